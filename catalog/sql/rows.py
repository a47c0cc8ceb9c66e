"""Rows of a write: for each entry of the log the resource, its change and its audit, in a few statements for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table, bindparam, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.changes import Entry, served_models
from catalog.records import encode
from catalog.sql.tables import TABLES, audit, changes, deployments, policy_revisions, spend
from catalog.turns import Steps, in_turns
from catalog.types import Node, PolicyRecord, Resource, ResourceKind, Spend

Row = dict[str, Any]


async def store_entries(
    connection: AsyncConnection, entries: Sequence[Entry], *, owner: str, now: float, actor: str
) -> None:
    """Writes the rows of the entries. Each statement is sent once with all of its rows, however many."""
    befores, bodies = await in_turns(_encoded(entries))
    for kind, table in TABLES.items():
        await _store_resources(connection, table, kind, entries, bodies, owner)
    await _store_deployments(connection, entries, owner)
    log: list[Row] = []
    trail: list[Row] = []
    history: list[Row] = []
    for entry, before, body in zip(entries, befores, bodies, strict=True):
        common = {"owner": owner, "revision": entry.revision, "kind": entry.kind.value, "name": entry.name, "time": now}
        log.append({**common, "body": body})
        trail.append({**common, "actor": actor, "before": before, "after": body})
        if isinstance(entry.after, PolicyRecord):
            history.append({"owner": owner, "policy_id": entry.name, "revision": entry.revision, "body": body})
    await _insert(connection, changes, log)
    await _insert(connection, audit, trail)
    await _insert(connection, policy_revisions, history)


def _encoded(entries: Sequence[Entry]) -> Steps[tuple[list[str | None], list[str | None]]]:
    """Bodies before and after."""
    befores: list[str | None] = []
    bodies: list[str | None] = []
    for entry in entries:
        yield
        befores.append(None if entry.before is None else encode(entry.before))
        bodies.append(None if entry.after is None else encode(entry.after))
    return befores, bodies


async def _store_resources(
    connection: AsyncConnection,
    table: Table,
    kind: ResourceKind,
    entries: Sequence[Entry],
    bodies: Sequence[str | None],
    owner: str,
) -> None:
    created: list[Row] = []
    replaced: list[Row] = []
    removed: list[Row] = []
    for entry, body in zip(entries, bodies, strict=True):
        if entry.kind is not kind:
            continue
        if entry.after is None:
            removed.append({"at": entry.name})
        elif entry.before is None:
            created.append({"name": entry.name, "owner": owner, **_columns(entry.after), "body": body})
        else:
            marks = {"revision": entry.after.revision, "etag": entry.after.etag}
            replaced.append({"at": entry.name, **marks, "body": body})
    ours = (table.c.name == bindparam("at")) & (table.c.owner == owner)
    await _insert(connection, table, created)
    if replaced:
        values: Row = {name: bindparam(name) for name in ("revision", "etag", "body")}
        await connection.execute(update(table).where(ours).values(values), replaced)
    if removed:
        await connection.execute(delete(table).where(ours), removed)


def _columns(resource: Resource) -> Row:
    marks: Row = {"revision": resource.revision, "etag": resource.etag}
    if isinstance(resource, Node):
        return {**marks, "region_id": resource.region_id, "node_id": resource.node_id}
    return marks


async def _store_deployments(connection: AsyncConnection, entries: Sequence[Entry], owner: str) -> None:
    ended: list[Row] = []
    begun: list[Row] = []
    for entry in entries:
        if entry.kind is not ResourceKind.NODE:
            continue
        before = served_models(entry.before) if isinstance(entry.before, Node) else frozenset()
        after = served_models(entry.after) if isinstance(entry.after, Node) else frozenset()
        ended += ({"at": entry.name, "model": model_id} for model_id in sorted(before - after))
        begun += ({"node_name": entry.name, "model_id": of, "owner": owner} for of in sorted(after - before))
    if ended:
        named = (deployments.c.node_name == bindparam("at")) & (deployments.c.model_id == bindparam("model"))
        await connection.execute(delete(deployments).where(named), ended)
    await _insert(connection, deployments, begun)


async def store_spend(connection: AsyncConnection, sums: Sequence[Spend], *, owner: str, writer: str) -> None:
    """Puts a writer's sums in place of those that it stored before. The owner's lock is held: nobody is between."""
    ours = (spend.c.owner == owner) & (spend.c.writer == writer)
    named = (spend.c.period == bindparam("of_period")) & (spend.c.tenant_id == bindparam("of_tenant"))
    # Of two sums of one key the later counts, as it would in two calls.
    last = {(each.period, each.tenant_id): each.usd for each in sums}
    if not last:
        return
    keys = [{"of_period": period, "of_tenant": tenant_id} for period, tenant_id in last]
    await connection.execute(delete(spend).where(ours & named), keys)
    rows: list[Row] = [
        {"owner": owner, "writer": writer, "period": period, "tenant_id": tenant_id, "usd": usd}
        for (period, tenant_id), usd in last.items()
    ]
    await _insert(connection, spend, rows)


async def _insert(connection: AsyncConnection, table: Table, rows: Sequence[Row]) -> None:
    if rows:
        await connection.execute(insert(table), rows)
