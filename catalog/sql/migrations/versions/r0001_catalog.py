"""The catalog: owners, their resources, the change log, the audit and the requests that were answered."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Double, String, Text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "owners",
        Column("owner", String, primary_key=True),
        Column("revision", BigInteger, nullable=False),
        Column("incarnation", String, nullable=False),
        Column("compacted_revision", BigInteger, nullable=False),
    )
    op.create_table(
        "regions",
        Column("region_id", String, primary_key=True),
        Column("owner", String, nullable=False),
        Column("revision", BigInteger, nullable=False),
        Column("etag", String, nullable=False),
        Column("body", Text, nullable=False),
    )
    op.create_table(
        "nodes",
        Column("name", String, primary_key=True),
        Column("region_id", String, nullable=False),
        Column("node_id", String, nullable=False),
        Column("owner", String, nullable=False),
        Column("revision", BigInteger, nullable=False),
        Column("etag", String, nullable=False),
        Column("body", Text, nullable=False),
    )
    for table, name in (("models", "model_id"), ("policies", "policy_id")):
        op.create_table(
            table,
            Column("owner", String, primary_key=True),
            Column(name, String, primary_key=True),
            Column("revision", BigInteger, nullable=False),
            Column("etag", String, nullable=False),
            Column("body", Text, nullable=False),
        )
    op.create_table(
        "deployments",
        Column("node_name", String, primary_key=True),
        Column("model_id", String, primary_key=True),
        Column("owner", String, nullable=False),
    )
    op.create_index("deployments_by_model", "deployments", ["owner", "model_id"])
    op.create_table(
        "changes",
        Column("owner", String, primary_key=True),
        Column("revision", BigInteger, primary_key=True, autoincrement=False),
        Column("kind", String, nullable=False),
        Column("name", String, nullable=False),
        Column("body", Text),
        Column("time", Double, nullable=False),
    )
    op.create_table(
        "policy_revisions",
        Column("owner", String, primary_key=True),
        Column("policy_id", String, primary_key=True),
        Column("revision", BigInteger, primary_key=True, autoincrement=False),
        Column("body", Text, nullable=False),
    )
    op.create_table(
        "audit",
        Column("owner", String, primary_key=True),
        Column("revision", BigInteger, primary_key=True, autoincrement=False),
        Column("time", Double, nullable=False),
        Column("actor", Text, nullable=False),
        Column("kind", String, nullable=False),
        Column("name", String, nullable=False),
        Column("before", Text),
        Column("after", Text),
    )
    op.create_table(
        "requests",
        Column("owner", String, primary_key=True),
        Column("request_id", String, primary_key=True),
        Column("digest", String, nullable=False),
        Column("answer", Text, nullable=False),
        Column("time", Double, nullable=False),
    )
    op.create_index("requests_by_time", "requests", ["owner", "time"])


def downgrade() -> None:
    raise NotImplementedError("a catalog is not taken back to an empty database; drop the database instead")
