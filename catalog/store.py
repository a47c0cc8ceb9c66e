"""What a catalog store does, whatever keeps it.

Both stores (`memory.py`, `sql/store.py`) pass one contract suite, `tests/catalog/contract`.
A store belongs to one control plane, its `owner`, and writes only that owner's records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from catalog.types import Change, PolicyRecord, Replica, Resource, ResourceKind, Snapshot, Spend

R = TypeVar("R", bound=Resource)


class CatalogStore(Protocol):
    """Durable resources and their change log.

    Every write is one transaction: the resource, its change and its audit entry are committed before the call
    returns, under a revision that no other write has and that is greater than all before it.
    Writes raise StoreUnavailable where the database does not answer; nothing was written then.
    """

    owner: str
    # Names this life of the log; a log that was lost and started anew has another one.
    incarnation: str

    async def put(self, resources: Sequence[R], *, request_id: str = "", actor: str = "") -> tuple[R, ...]:
        """Stores all of them or none; answers them as stored (etag, revision, generation, times).

        Same content as stored: nothing is written, the stored version is answered (an expired node comes back).
        An empty etag creates; for a known name with other content it raises Conflict, a stale one EtagMismatch.
        `draining` and deployments' status DRAINING that an operator set survive a registration that keeps the name.
        A Node whose region has no record raises NotFound("region"); a model that it names and that has no record
        gets a minimal one, with the capabilities that the deployments name, in the same transaction.
        The same `request_id` within a day answers what it answered first; RequestIdReused for another content.
        """
        ...

    async def edit(
        self, kind: ResourceKind, name: str, change: Callable[[Resource], Resource], *, actor: str = ""
    ) -> Resource:
        """Reads, changes and writes one resource in one transaction. NotFound; what `change` raises passes through.

        A change that leaves the resource equal writes nothing.
        """
        ...

    async def delete(self, kind: ResourceKind, name: str, *, etag: str = "", actor: str = "") -> int:
        """Removes a resource; answers the revision. NotFound, EtagMismatch, ModelInUse."""
        ...

    async def get(self, kind: ResourceKind, name: str) -> Resource:
        """One resource as committed. NotFound."""
        ...

    async def snapshot(self) -> Snapshot:
        """Everything at one revision, in one read transaction."""
        ...

    async def changes(self, after_revision: int, limit: int = 1000) -> tuple[Change, ...]:
        """Changes after a revision in order, without gaps. RevisionCompacted where the log starts later."""
        ...

    async def wait(self, after_revision: int, timeout_seconds: float) -> None:
        """Returns when there may be changes after the revision, or at the latest after the timeout."""
        ...

    async def compact(self, keep: int) -> int:
        """Forgets all but the newest `keep` changes, request ids over a day old and spend over 13 months old.

        Answers the oldest change that is left.
        """
        ...

    async def put_spend(self, writer: str, spend: Sequence[Spend]) -> None:
        """Stores what a writer saw its tenants spend, in place of what it stored for the same tenant and period.

        Whole sums rather than additions: a repeat changes nothing, and writers never overwrite each other. All or
        none is stored; it is no change in the log and no entry of the audit.
        """
        ...

    async def spend(self, periods: Sequence[str], *, without: str = "") -> tuple[Spend, ...]:
        """What tenants spent in some periods, over all writers but one, by period and tenant."""
        ...

    async def beat(self, replica: Replica) -> tuple[Replica, ...]:
        """Stores that a replica lives, and answers all that do, this one included, by their ids.

        The store fills in `beat_time`. Who did not beat for REPLICA_SECONDS is forgotten. It is no change in the log.
        """
        ...

    async def leave(self, replica: Replica) -> None:
        """Forgets a replica that ends; one of another incarnation stays, and one that is not there is no error."""
        ...

    async def policy_history(self, policy_id: str) -> tuple[PolicyRecord, ...]:
        """All revisions of a policy, newest first; they are never compacted. Empty where there was none."""
        ...

    async def ping(self) -> None:
        """Raises StoreUnavailable unless the database answers."""
        ...

    async def close(self) -> None:
        """Ends connections; idempotent."""
        ...
