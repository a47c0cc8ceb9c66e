"""The replicas that serve a catalog, so that they find each other."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Double, String

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replicas",
        Column("owner", String, primary_key=True),
        Column("replica_id", String, primary_key=True),
        Column("address", String, nullable=False),
        Column("incarnation", String, nullable=False),
        Column("beats", BigInteger, nullable=False),
        Column("beat_time", Double, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("replicas")
