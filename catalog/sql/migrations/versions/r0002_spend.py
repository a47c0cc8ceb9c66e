"""What tenants spent by day and month."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Double, String

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "spend",
        Column("owner", String, primary_key=True),
        Column("period", String, primary_key=True),
        Column("tenant_id", String, primary_key=True),
        Column("writer", String, primary_key=True),
        Column("usd", Double, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("spend")
