"""A catalog store in memory: for tests, simulations and demonstrations; nothing survives the process."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar, cast

import anyio
import anyio.lowlevel

from catalog.changes import (
    REPLICA_SECONDS,
    REQUEST_ID_SECONDS,
    AuditEntry,
    Entry,
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
    served_models,
    spend_horizon,
)
from catalog.errors import NotFound, RequestIdReused, RevisionCompacted, StoreUnavailable
from catalog.records import digest
from catalog.turns import at_once
from catalog.types import (
    Change,
    Model,
    Node,
    PolicyRecord,
    Region,
    Replica,
    Resource,
    ResourceKind,
    Snapshot,
    Spend,
    name_of,
)

R = TypeVar("R", bound=Resource)

# The audit of a process that forgets everything anyway; more would only cost memory, some 2 KB each.
AUDIT_ENTRIES = 10_000


class MemoryStore:
    """A `CatalogStore` whose writes are done before they await anything; `clock` gives Unix seconds."""

    def __init__(self, owner: str, *, clock: Callable[[], float]) -> None:
        self.owner = owner
        self.incarnation = secrets.token_hex(8)
        self._clock = clock
        self._revision = 0
        self._compacted = 0
        self._resources: dict[ResourceKind, dict[str, Resource]] = {kind: {} for kind in ResourceKind}
        self._log: deque[Change] = deque()
        self._history: dict[str, list[PolicyRecord]] = {}
        # By request id: when it came, what it wanted, what it was answered.
        self._requests: dict[str, tuple[float, str, tuple[Resource, ...]]] = {}
        self._audit: deque[AuditEntry] = deque(maxlen=AUDIT_ENTRIES)
        # By period, tenant and writer.
        self._spend: dict[tuple[str, str, str], float] = {}
        self._replicas: dict[str, Replica] = {}
        self._news = anyio.Event()
        self._closed = False

    async def put(self, resources: Sequence[R], *, request_id: str = "", actor: str = "") -> tuple[R, ...]:
        self._open()
        check_words(request_id=request_id, actor=actor)
        now = self._clock()
        wanted = digest(resources) if request_id else ""
        if request_id and (answered := self._answered(request_id, wanted, now)) is not None:
            return cast(tuple[R, ...], answered)
        planned = plan_put(resources, self._known(resources), owner=self.owner, revision=self._revision, now=now)
        answer, entries = at_once(planned)
        self._commit(entries, now, actor)
        if request_id:
            self._requests[request_id] = (now, wanted, answer)
        return answer

    async def edit(
        self, kind: ResourceKind, name: str, change: Callable[[Resource], Resource], *, actor: str = ""
    ) -> Resource:
        stored = await self.get(kind, name)
        now = self._clock()
        changed = check_edit(stored, change(stored), now)
        if changed is None:
            return stored
        entries = plan_edit(stored, changed, self._known([changed]), owner=self.owner, revision=self._revision)
        self._commit(entries, now, actor)
        return self._resources[kind][name]

    async def delete(self, kind: ResourceKind, name: str, *, etag: str = "", actor: str = "") -> int:
        self._open()
        stored = self._resources[kind].get(name)
        entry = plan_delete(
            (kind, name),
            stored,
            self._server_of(name) if kind is ResourceKind.MODEL else None,
            etag=etag,
            owner=self.owner,
            revision=self._revision,
        )
        self._commit((entry,), self._clock(), actor)
        return entry.revision

    async def get(self, kind: ResourceKind, name: str) -> Resource:
        self._open()
        stored = self._resources[kind].get(name)
        if stored is None:
            raise NotFound(kind.value, name)
        return stored

    async def snapshot(self) -> Snapshot:
        self._open()
        of = {kind: MappingProxyType(dict(self._resources[kind])) for kind in ResourceKind}
        return Snapshot(
            self._revision,
            regions=cast(MappingProxyType[str, Region], of[ResourceKind.REGION]),
            models=cast(MappingProxyType[str, Model], of[ResourceKind.MODEL]),
            nodes=cast(MappingProxyType[str, Node], of[ResourceKind.NODE]),
            policies=cast(MappingProxyType[str, PolicyRecord], of[ResourceKind.POLICY]),
        )

    async def changes(self, after_revision: int, limit: int = 1000) -> tuple[Change, ...]:
        self._open()
        check_page(after_revision, limit)
        if after_revision < self._compacted:
            raise RevisionCompacted(after_revision, self._compacted + 1)
        # Revisions have no gaps, so that a change's place in the log follows from its revision.
        first = after_revision - self._compacted
        return tuple(self._log[at] for at in range(first, min(first + limit, len(self._log))))

    async def wait(self, after_revision: int, timeout_seconds: float) -> None:
        with anyio.move_on_after(timeout_seconds):
            while self._revision <= after_revision and not self._closed:
                await self._news.wait()
        await anyio.lowlevel.checkpoint()

    async def compact(self, keep: int) -> int:
        self._open()
        check_keep(keep)
        while len(self._log) > keep:
            self._compacted = self._log.popleft().revision
        now = self._clock()
        self._requests = {
            request_id: of for request_id, of in self._requests.items() if now - of[0] < REQUEST_ID_SECONDS
        }
        oldest = spend_horizon(now)
        self._spend = {key: usd for key, usd in self._spend.items() if key[0] >= oldest}
        return self._compacted + 1

    async def put_spend(self, writer: str, spend: Sequence[Spend]) -> None:
        self._open()
        check_spend(writer, spend)
        self._spend.update({(each.period, each.tenant_id, writer): each.usd for each in spend})

    async def spend(self, periods: Sequence[str], *, without: str = "") -> tuple[Spend, ...]:
        self._open()
        sums: dict[tuple[str, str], float] = {}
        for (period, tenant_id, writer), usd in self._spend.items():
            if period in periods and writer != without:
                sums[period, tenant_id] = sums.get((period, tenant_id), 0.0) + usd
        return tuple(Spend(*key, usd) for key, usd in sorted(sums.items()))

    async def beat(self, replica: Replica) -> tuple[Replica, ...]:
        self._open()
        check_replica(replica)
        now = self._clock()
        self._replicas[replica.replica_id] = replace(replica, beat_time=now)
        self._replicas = {
            name: each for name, each in sorted(self._replicas.items()) if each.beat_time > now - REPLICA_SECONDS
        }
        return tuple(self._replicas.values())

    async def leave(self, replica: Replica) -> None:
        self._open()
        known = self._replicas.get(replica.replica_id)
        if known is not None and known.incarnation == replica.incarnation:
            del self._replicas[replica.replica_id]

    async def policy_history(self, policy_id: str) -> tuple[PolicyRecord, ...]:
        self._open()
        return tuple(reversed(self._history.get(policy_id, ())))

    async def audit(self, after_revision: int = 0, limit: int = 1000) -> tuple[AuditEntry, ...]:
        """Who changed what after a revision, in order; only the newest 10,000 entries are kept."""
        self._open()
        check_page(after_revision, limit)
        return tuple([entry for entry in self._audit if entry.revision > after_revision][:limit])

    async def ping(self) -> None:
        self._open()

    async def close(self) -> None:
        self._closed = True
        self._news.set()

    def _open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the catalog store is closed; nothing was written")

    def _known(self, resources: Sequence[Resource]) -> dict[Key, Resource]:
        return {
            (kind, name): self._resources[kind][name]
            for kind, name in keys_to_read(resources)
            if name in self._resources[kind]
        }

    def _answered(self, request_id: str, wanted: str, now: float) -> tuple[Resource, ...] | None:
        came = self._requests.get(request_id)
        if came is None or now - came[0] >= REQUEST_ID_SECONDS:
            return None
        if came[1] != wanted:
            raise RequestIdReused(request_id)
        return came[2]

    def _server_of(self, model_id: str) -> str | None:
        nodes = self._resources[ResourceKind.NODE].values()
        serving = (of.name for of in nodes if isinstance(of, Node) and model_id in served_models(of))
        return min(serving, default=None)

    def _commit(self, entries: Sequence[Entry], now: float, actor: str) -> None:
        if not entries:
            return
        for entry in entries:
            if entry.after is None:
                del self._resources[entry.kind][entry.name]
            else:
                self._resources[entry.kind][name_of(entry.after)] = entry.after
            if isinstance(entry.after, PolicyRecord):
                self._history.setdefault(entry.name, []).append(entry.after)
            self._log.append(entry.change)
            self._audit.append(
                AuditEntry(entry.revision, now, actor, entry.kind, entry.name, entry.before, entry.after)
            )
        self._revision = entries[-1].revision
        self._news.set()
        self._news = anyio.Event()
