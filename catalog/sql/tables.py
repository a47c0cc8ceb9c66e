"""The tables of a catalog. A column is named as the field that it repeats; `body` is the whole resource as JSON.

The columns beside a body are for joins, checks and people with a SQL shell; the program reads the bodies. Changes of
this file need a migration: a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import BigInteger, Column, Double, Index, MetaData, String, Table, Text

from catalog.types import ResourceKind

metadata = MetaData()

owners = Table(
    "owners",
    metadata,
    Column("owner", String, primary_key=True),
    # Its last revision. A writer holds the row's lock until it commits, so that commit order is revision order.
    Column("revision", BigInteger, nullable=False),
    # Which life of the log this is.
    Column("incarnation", String, nullable=False),
    # Changes up to here were forgotten.
    Column("compacted_revision", BigInteger, nullable=False),
)

# Regions and nodes have one name among all owners; models and policies one for each.
# `name` is how Python reaches every kind's name, whatever SQL calls it.
regions = Table(
    "regions",
    metadata,
    Column("region_id", String, key="name", primary_key=True),
    Column("owner", String, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("etag", String, nullable=False),
    Column("body", Text, nullable=False),
)
models = Table(
    "models",
    metadata,
    Column("owner", String, primary_key=True),
    Column("model_id", String, key="name", primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("etag", String, nullable=False),
    Column("body", Text, nullable=False),
)
nodes = Table(
    "nodes",
    metadata,
    # `region_id/node_id`.
    Column("name", String, primary_key=True),
    Column("region_id", String, nullable=False),
    Column("node_id", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("etag", String, nullable=False),
    Column("body", Text, nullable=False),
)
policies = Table(
    "policies",
    metadata,
    Column("owner", String, primary_key=True),
    Column("policy_id", String, key="name", primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("etag", String, nullable=False),
    Column("body", Text, nullable=False),
)
TABLES: Mapping[ResourceKind, Table] = {
    ResourceKind.REGION: regions,
    ResourceKind.MODEL: models,
    ResourceKind.NODE: nodes,
    ResourceKind.POLICY: policies,
}

# Which node serves which model; the deployments themselves stand in the node's body.
deployments = Table(
    "deployments",
    metadata,
    # The node's: `region_id/node_id`.
    Column("node_name", String, primary_key=True),
    Column("model_id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Index("deployments_by_model", "owner", "model_id"),
)

changes = Table(
    "changes",
    metadata,
    Column("owner", String, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    # Null: removed.
    Column("body", Text),
    # Unix seconds, here and below.
    Column("time", Double, nullable=False),
)

policy_revisions = Table(
    "policy_revisions",
    metadata,
    Column("owner", String, primary_key=True),
    Column("policy_id", String, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("body", Text, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("owner", String, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("time", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("before", Text),
    Column("after", Text),
)

requests = Table(
    "requests",
    metadata,
    Column("owner", String, primary_key=True),
    Column("request_id", String, primary_key=True),
    # A mark of what was asked.
    Column("digest", String, nullable=False),
    # What was answered, as JSON.
    Column("answer", Text, nullable=False),
    Column("time", Double, nullable=False),
    Index("requests_by_time", "owner", "time"),
)

# What tenants spent. A row is the whole sum of one writer, so that storing it again changes nothing.
spend = Table(
    "spend",
    metadata,
    Column("owner", String, primary_key=True),
    # A day or a month.
    Column("period", String, primary_key=True),
    Column("tenant_id", String, primary_key=True),
    # A replica, in one of its lives.
    Column("writer", String, primary_key=True),
    Column("usd", Double, nullable=False),
)

# Who serves an owner's catalog now, see `catalog.types.Replica`.
replicas = Table(
    "replicas",
    metadata,
    Column("owner", String, primary_key=True),
    Column("replica_id", String, primary_key=True),
    Column("address", String, nullable=False),
    Column("incarnation", String, nullable=False),
    Column("beats", BigInteger, nullable=False),
    Column("beat_time", Double, nullable=False),
)
