"""The catalog store on SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import MappingProxyType
from typing import TypeVar, cast

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.changes import (
    REQUEST_ID_SECONDS,
    AuditEntry,
    Key,
    check_edit,
    check_keep,
    check_page,
    check_replica,
    check_spend,
    check_words,
    keys_to_read,
    plan_delete,
    plan_edit,
    plan_put,
    spend_horizon,
)
from catalog.errors import NotFound, NotOwner, RequestIdReused, RevisionCompacted, StoreUnavailable
from catalog.records import decode, decode_answer, digest, encode_answer
from catalog.sql import replicas, schema
from catalog.sql.engines import is_sqlite, parse_url
from catalog.sql.news import CHANNEL, Listener, News
from catalog.sql.rows import store_entries, store_spend
from catalog.sql.sessions import Sessions, Timeouts, Written
from catalog.sql.tables import TABLES, audit, changes, deployments, owners, policy_revisions, requests
from catalog.sql.tables import spend as spends
from catalog.turns import Steps, in_turns
from catalog.types import Change, Model, Node, PolicyRecord, Region, Replica, Resource, ResourceKind, Snapshot, Spend

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

# Names in one statement. SQLite takes 32,766 variables, PostgreSQL 65,535.
NAMES_A_QUERY = 5_000
# Bodies that are decoded between two turns of the loop: about 2 ms.
BODIES_A_TURN = 200
# Changes that one transaction forgets, so that writers are not kept waiting.
COMPACTED_AT_ONCE = 10_000
# What each further resource of one put may take. Ten times what it took on two slow cores.
SECONDS_A_RESOURCE = 0.01
# Kinds whose names are one set for all owners of a database.
SHARED_NAMES = (ResourceKind.REGION, ResourceKind.NODE)


async def open_store(
    url: str,
    *,
    owner: str,
    clock: Callable[[], float],
    timeouts: Timeouts | None = None,
    connections: int = 5,
) -> SqlStore:
    """The store of an owner in the database at `sqlite:///FILE` or `postgresql://…`; `clock` gives Unix seconds.

    SchemaBehind, SchemaAhead; StoreUnavailable where the database does not answer; ValueError for another URL.
    `connections` is the most that PostgreSQL is asked for, besides one for notifications.
    """
    sessions = Sessions(parse_url(url), owner=owner, timeouts=timeouts or Timeouts(), connections=connections)
    try:
        await opened(sessions)
    except BaseException:
        await sessions.close()
        raise
    return SqlStore(sessions, clock=clock)


async def opened(sessions: Sessions) -> None:
    """Checks the schema and learns what sessions need of their database. Raises as `open_store`."""
    url = sessions.url
    if not schema.file_exists(url):
        schema.check_current(None, url)
    schema.check_current(await sessions.read(_schema_of), url)
    sessions.incarnation = await _incarnation(sessions)
    sessions.notifies = not is_sqlite(url) and await _notifies(sessions)


async def _schema_of(connection: AsyncConnection) -> str | None:
    return await connection.run_sync(schema.current_of)


async def _incarnation(sessions: Sessions) -> str:
    """Which life of the log this is; begins its first where the owner is new."""

    async def read(connection: AsyncConnection) -> str | None:
        found: str | None = await connection.scalar(
            select(owners.c.incarnation).where(owners.c.owner == sessions.owner)
        )
        return found

    found = await sessions.read(read)
    if found is None:
        await sessions.begin(secrets.token_hex(8))
        found = await sessions.read(read)
    assert found is not None, "the owner's row was just stored"
    return found


async def _notifies(sessions: Sessions) -> bool:
    """Whether the database has NOTIFY; others that speak PostgreSQL's protocol may not."""

    async def notify(connection: AsyncConnection) -> bool:
        try:
            await connection.execute(select(func.pg_notify(CHANNEL, "")))
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return False
        return True

    return await sessions.read(notify)


class SqlStore:
    """A `CatalogStore` in a database. Lives in the event loop in which `open_store` made it."""

    def __init__(self, sessions: Sessions, *, clock: Callable[[], float]) -> None:
        self.owner = sessions.owner
        self.incarnation = sessions.incarnation
        self._sessions = sessions
        self._clock = clock
        self._listener = (
            Listener(sessions.writer, connect_seconds=sessions.timeouts.write) if sessions.notifies else None
        )
        self._news = News(
            self._revision,
            asyncio.sleep if self._listener is None else self._listener.pause,
            poll_seconds=sessions.timeouts.poll,
        )
        self._closed = False

    async def put(self, resources: Sequence[R], *, request_id: str = "", actor: str = "") -> tuple[R, ...]:
        """As `CatalogStore.put`. May take the write timeout, and 10 ms more for each resource."""
        self._open()
        check_words(request_id=request_id, actor=actor)
        wanted = digest(resources) if request_id else ""

        async def work(connection: AsyncConnection, revision: int) -> Written[tuple[R, ...]]:
            now = self._clock()
            if request_id and (answered := await self._answered(connection, request_id, wanted, now)) is not None:
                return Written(cast(tuple[R, ...], answered))
            known = await self._known(connection, keys_to_read(resources))
            plan = plan_put(resources, known, owner=self.owner, revision=revision, now=now)
            answer, entries = await in_turns(plan)
            await store_entries(connection, entries, owner=self.owner, now=now, actor=actor)
            if request_id:
                row = {"owner": self.owner, "request_id": request_id, "digest": wanted, "time": now}
                await connection.execute(insert(requests), [{**row, "answer": encode_answer(answer)}])
            return Written(answer, entries)

        return await self._write(work, more_seconds=SECONDS_A_RESOURCE * len(resources))

    async def edit(
        self, kind: ResourceKind, name: str, change: Callable[[Resource], Resource], *, actor: str = ""
    ) -> Resource:
        self._open()
        check_words(actor=actor)

        async def work(connection: AsyncConnection, revision: int) -> Written[Resource]:
            now = self._clock()
            stored = await self._stored(connection, kind, name)
            if stored is None:
                raise NotFound(kind.value, name)
            if stored.owner != self.owner:
                raise NotOwner(name, stored.owner)
            changed = check_edit(stored, change(stored), now)
            if changed is None:
                return Written(stored)
            known = await self._known(connection, keys_to_read([changed]))
            entries = plan_edit(stored, changed, known, owner=self.owner, revision=revision)
            await store_entries(connection, entries, owner=self.owner, now=now, actor=actor)
            return Written(cast(Resource, entries[-1].after), entries)

        return await self._write(work)

    async def delete(self, kind: ResourceKind, name: str, *, etag: str = "", actor: str = "") -> int:
        self._open()
        check_words(actor=actor)

        async def work(connection: AsyncConnection, revision: int) -> Written[int]:
            stored = await self._stored(connection, kind, name)
            server: str | None = None
            if isinstance(stored, Model):
                ours = (deployments.c.owner == self.owner) & (deployments.c.model_id == name)
                server = await connection.scalar(select(func.min(deployments.c.node_name)).where(ours))
            entry = plan_delete((kind, name), stored, server, etag=etag, owner=self.owner, revision=revision)
            await store_entries(connection, (entry,), owner=self.owner, now=self._clock(), actor=actor)
            return Written(entry.revision, (entry,))

        return await self._write(work)

    async def get(self, kind: ResourceKind, name: str) -> Resource:
        self._open()
        stored = await self._sessions.read(lambda connection: self._stored(connection, kind, name))
        if stored is None or stored.owner != self.owner:
            raise NotFound(kind.value, name)
        return stored

    async def snapshot(self) -> Snapshot:
        self._open()
        return await self._sessions.read(self._snapshot)

    async def changes(self, after_revision: int, limit: int = 1000) -> tuple[Change, ...]:
        self._open()
        check_page(after_revision, limit)

        async def read(connection: AsyncConnection) -> tuple[Change, ...]:
            compacted = await connection.scalar(select(owners.c.compacted_revision).where(owners.c.owner == self.owner))
            if after_revision < (compacted or 0):
                raise RevisionCompacted(after_revision, (compacted or 0) + 1)
            rows = await connection.execute(
                select(changes.c.revision, changes.c.kind, changes.c.name, changes.c.body)
                .where(changes.c.owner == self.owner, changes.c.revision > after_revision)
                .order_by(changes.c.revision)
                .limit(limit)
            )
            return await in_turns(_changes(rows.all()))

        return await self._sessions.read(read)

    async def wait(self, after_revision: int, timeout_seconds: float) -> None:
        await self._news.wait(after_revision, timeout_seconds)

    async def compact(self, keep: int) -> int:
        self._open()
        check_keep(keep)
        while True:
            oldest, more = await self._write(lambda connection, revision: self._compact(connection, revision, keep))
            if not more:
                return oldest

    async def put_spend(self, writer: str, spend: Sequence[Spend]) -> None:
        self._open()
        check_spend(writer, spend)

        async def work(connection: AsyncConnection, revision: int) -> Written[None]:
            await store_spend(connection, spend, owner=self.owner, writer=writer)
            return Written(None)

        await self._write(work, more_seconds=SECONDS_A_RESOURCE * len(spend))

    async def spend(self, periods: Sequence[str], *, without: str = "") -> tuple[Spend, ...]:
        self._open()
        of = spends.c
        query = (
            select(of.period, of.tenant_id, func.sum(of.usd))
            .where(of.owner == self.owner, of.period.in_(periods), of.writer != without)
            .group_by(of.period, of.tenant_id)
        )

        async def read(connection: AsyncConnection) -> tuple[Spend, ...]:
            rows = await connection.execute(query)
            # Sorted here: databases order text by their own rules.
            return tuple(sorted((Spend(*row) for row in rows), key=lambda each: (each.period, each.tenant_id)))

        return await self._sessions.read(read)

    async def beat(self, replica: Replica) -> tuple[Replica, ...]:
        self._open()
        check_replica(replica)

        async def work(connection: AsyncConnection, revision: int) -> Written[tuple[Replica, ...]]:
            return Written(await replicas.store_beat(connection, replica, owner=self.owner, now=self._clock()))

        return await self._write(work)

    async def leave(self, replica: Replica) -> None:
        self._open()

        async def work(connection: AsyncConnection, revision: int) -> Written[None]:
            await replicas.remove(connection, replica, owner=self.owner)
            return Written(None)

        await self._write(work)

    async def policy_history(self, policy_id: str) -> tuple[PolicyRecord, ...]:
        self._open()
        if "\0" in policy_id:
            # Nothing has such a name, and PostgreSQL refuses the question.
            return ()

        async def read(connection: AsyncConnection) -> tuple[PolicyRecord, ...]:
            of = policy_revisions.c
            bodies = await connection.scalars(
                select(of.body).where(of.owner == self.owner, of.policy_id == policy_id).order_by(of.revision.desc())
            )
            return tuple(cast(PolicyRecord, decode(ResourceKind.POLICY, body)) for body in bodies)

        return await self._sessions.read(read)

    async def audit(self, after_revision: int = 0, limit: int = 1000) -> tuple[AuditEntry, ...]:
        """Who changed what after a revision, in order. The audit is never compacted."""
        self._open()
        check_page(after_revision, limit)

        async def read(connection: AsyncConnection) -> tuple[AuditEntry, ...]:
            rows = await connection.execute(
                select(audit)
                .where(audit.c.owner == self.owner, audit.c.revision > after_revision)
                .order_by(audit.c.revision)
                .limit(limit)
            )
            return tuple(
                AuditEntry(
                    row.revision,
                    row.time,
                    row.actor,
                    kind,
                    row.name,
                    _resource(kind, row.before),
                    _resource(kind, row.after),
                )
                for row in rows
                for kind in (ResourceKind(row.kind),)
            )

        return await self._sessions.read(read)

    async def ping(self) -> None:
        self._open()
        await self._sessions.read(self._revision_in, seconds=self._sessions.timeouts.write)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._news.close()
        if self._listener is not None:
            await self._listener.close()
        await self._sessions.close()

    def _open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the catalog store is closed; nothing was written")

    async def _write(
        self, work: Callable[[AsyncConnection, int], Awaitable[Written[T]]], *, more_seconds: float = 0.0
    ) -> T:
        written = await self._sessions.write(work, more_seconds=more_seconds)
        if written.entries:
            self._news.advance(written.entries[-1].revision)
        return written.answer

    async def _revision(self) -> int:
        return await self._sessions.read(self._revision_in, seconds=self._sessions.timeouts.write)

    async def _revision_in(self, connection: AsyncConnection) -> int:
        found = await connection.scalar(select(owners.c.revision).where(owners.c.owner == self.owner))
        return int(found or 0)

    async def _snapshot(self, connection: AsyncConnection) -> Snapshot:
        revision = await self._revision_in(connection)
        of: dict[ResourceKind, dict[str, Resource]] = {}
        for kind, table in TABLES.items():
            resources = of[kind] = {}
            rows = await connection.stream(
                select(table.c.name, table.c.body).where(table.c.owner == self.owner),
                execution_options={"yield_per": BODIES_A_TURN},
            )
            async for page in rows.partitions():
                for name, body in page:
                    resources[name] = decode(kind, body)
        return Snapshot(
            revision,
            regions=MappingProxyType(cast(dict[str, Region], of[ResourceKind.REGION])),
            models=MappingProxyType(cast(dict[str, Model], of[ResourceKind.MODEL])),
            nodes=MappingProxyType(cast(dict[str, Node], of[ResourceKind.NODE])),
            policies=MappingProxyType(cast(dict[str, PolicyRecord], of[ResourceKind.POLICY])),
        )

    async def _stored(self, connection: AsyncConnection, kind: ResourceKind, name: str) -> Resource | None:
        return (await self._known(connection, [(kind, name)])).get((kind, name))

    async def _known(self, connection: AsyncConnection, keys: Iterable[Key]) -> dict[Key, Resource]:
        """What is stored under the keys; regions and nodes also where another owner holds the name."""
        names: dict[ResourceKind, list[str]] = {}
        for kind, name in keys:
            # Nothing has such a name, and PostgreSQL refuses the question.
            if "\0" not in name:
                names.setdefault(kind, []).append(name)
        known: dict[Key, Resource] = {}
        for kind, of in names.items():
            table = TABLES[kind]
            query = select(table.c.name, table.c.body)
            if kind not in SHARED_NAMES:
                query = query.where(table.c.owner == self.owner)
            for first in range(0, len(of), NAMES_A_QUERY):
                page = of[first : first + NAMES_A_QUERY]
                rows = await connection.execute(query.where(table.c.name.in_(page)))
                known |= await in_turns(_decoded(kind, rows.all()))
        return known

    async def _answered(
        self, connection: AsyncConnection, request_id: str, wanted: str, now: float
    ) -> tuple[Resource, ...] | None:
        """What the request id was answered within a day; forgets it where it is older."""
        ours = (requests.c.owner == self.owner) & (requests.c.request_id == request_id)
        row = (await connection.execute(select(requests).where(ours))).one_or_none()
        if row is None:
            return None
        if now - row.time >= REQUEST_ID_SECONDS:
            await connection.execute(delete(requests).where(ours))
            return None
        if row.digest != wanted:
            raise RequestIdReused(request_id)
        return decode_answer(row.answer)

    async def _compact(self, connection: AsyncConnection, revision: int, keep: int) -> Written[tuple[int, bool]]:
        compacted = await connection.scalar(select(owners.c.compacted_revision).where(owners.c.owner == self.owner))
        goal = max(revision - keep, compacted or 0)
        upto = min(goal, (compacted or 0) + COMPACTED_AT_ONCE)
        await connection.execute(update(owners).where(owners.c.owner == self.owner).values(compacted_revision=upto))
        await connection.execute(delete(changes).where(changes.c.owner == self.owner, changes.c.revision <= upto))
        old = self._clock() - REQUEST_ID_SECONDS
        await connection.execute(delete(requests).where(requests.c.owner == self.owner, requests.c.time <= old))
        horizon = spend_horizon(self._clock())
        await connection.execute(delete(spends).where(spends.c.owner == self.owner, spends.c.period < horizon))
        return Written((upto + 1, upto < goal))


def _changes(rows: Iterable[Row[int, str, str, str | None]]) -> Steps[tuple[Change, ...]]:
    found: list[Change] = []
    for revision, of, name, body in rows:
        yield
        kind = ResourceKind(of)
        found.append(Change(revision, kind, name, _resource(kind, body)))
    return tuple(found)


def _decoded(kind: ResourceKind, rows: Iterable[Row[str, str]]) -> Steps[dict[Key, Resource]]:
    found: dict[Key, Resource] = {}
    for name, body in rows:
        yield
        found[kind, name] = decode(kind, body)
    return found


def _resource(kind: ResourceKind, body: str | None) -> Resource | None:
    return None if body is None else decode(kind, body)
