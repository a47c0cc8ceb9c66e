"""The catalog as this process sees it: one snapshot that follows the store's change log.

Reads, watches and tables are served from here, so that they go on, from the last snapshot, while the store is away.
A write is answered once its revision arrived here: who writes reads it next.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from catalog.errors import RevisionCompacted, StoreUnavailable
from catalog.snapshot import EMPTY_SNAPSHOT, apply, rolled
from catalog.store import CatalogStore
from catalog.types import Change, ResourceKind, Snapshot
from federation.logs import Log

# The longest that a change of another process goes unseen where nothing wakes us, and a lost database unnoticed.
POLL_SECONDS = 1.0
RETRY_SECONDS = 0.5
PAGE = 1_000
# Changes that watches resume from without asking the store; about 1 KB each.
RECENT_CHANGES = 10_000
COMPACT_SECONDS = 600.0


class CatalogFeed:
    """`snapshot` is the newest known; `available` tells whether the store answered last."""

    def __init__(
        self,
        store: CatalogStore,
        *,
        log: Log,
        monotonic: Callable[[], float],
        keep_changes: int = 100_000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._log = log
        self._monotonic = monotonic
        self._sleep = sleep
        self._keep = keep_changes
        self._compacted_at = monotonic()
        self._pulling = asyncio.Lock()
        self._news = asyncio.Event()
        self._recent: deque[Change] = deque(maxlen=RECENT_CHANGES)
        # Nothing older than this revision is in `_recent`.
        self._recent_after = 0
        self._names: dict[ResourceKind, list[str]] = {kind: [] for kind in ResourceKind}
        self._node_paths: list[str] = []
        self._aliases: dict[str, str] = {}
        self.snapshot: Snapshot = EMPTY_SNAPSHOT
        self.available = True
        # Monotonic seconds at which the store last answered.
        self.answered_at = monotonic()
        # Whether the snapshot is of another life of this process, so that the store has to be read anew.
        self._restored = False

    @property
    def revision(self) -> int:
        return self.snapshot.revision

    async def start(self) -> None:
        """Reads the first snapshot. StoreUnavailable."""
        self._replace(await self._store.snapshot())

    def restore(self, snapshot: Snapshot, answered_at: float) -> None:
        """Serves a snapshot from elsewhere until the store answers."""
        self._show(snapshot)
        self.answered_at = answered_at
        self.available = False
        self._restored = True

    async def run(self) -> None:
        """Follows the store until cancelled; an outage is logged once, and once again when it is over."""
        while True:
            try:
                await self._store.wait(self.revision, POLL_SECONDS)
                await self.pull()
                await self._compact()
            except StoreUnavailable as e:
                self._lost(e)
                await self._sleep(RETRY_SECONDS)

    async def pull(self) -> None:
        """Applies what the store has beyond the snapshot. StoreUnavailable."""
        async with self._pulling:
            if self._restored:
                self._replace(await self._store.snapshot())
            while True:
                try:
                    changes = await self._store.changes(self.revision, PAGE)
                except RevisionCompacted:
                    self._replace(await self._store.snapshot())
                    continue
                self._found()
                if not changes:
                    return
                self._apply(changes)

    async def reached(self, revision: int) -> None:
        """Returns once the snapshot shows a revision that was committed, or the store went away after it."""
        if self.revision >= revision:
            return
        try:
            await self.pull()
        except StoreUnavailable as e:
            # What was committed stays so; that the reads lag behind it is what `available` tells.
            self._lost(e)

    async def moved(self, after_revision: int) -> None:
        """Returns once the snapshot is beyond a revision."""
        while self.revision <= after_revision:
            await self._news.wait()

    async def since(self, after_revision: int) -> Sequence[Change]:
        """Known changes after a revision, at most a page. RevisionCompacted, StoreUnavailable."""
        if after_revision >= self.revision:
            return ()
        if after_revision >= self._recent_after:
            first = bisect_right(self._recent, after_revision, key=lambda change: change.revision)
            return [self._recent[at] for at in range(first, min(first + PAGE, len(self._recent)))]
        return await self._store.changes(after_revision, PAGE)

    def names(self, kind: ResourceKind, after: str = "", limit: int | None = None) -> list[str]:
        """Names of one kind in their order, those after `after`; all of them, or the first `limit`."""
        return _slice(self._names[kind], after, limit)

    def node_paths(self, after: str = "", limit: int | None = None) -> list[str]:
        """Names of nodes with a slash at their end, which puts their deployments in the order of their names."""
        return _slice(self._node_paths, after, limit)

    def model_id(self, name: str) -> str:
        """The id of the model that goes by this id or alias; "" where there is none."""
        return name if name in self.snapshot.models else self._aliases.get(name, "")

    def _replace(self, snapshot: Snapshot) -> None:
        self._restored = False
        self._show(snapshot)
        self._found()
        self._tell()

    def _show(self, snapshot: Snapshot) -> None:
        self.snapshot = rolled(snapshot)
        self._recent.clear()
        self._recent_after = snapshot.revision
        self._names = {
            ResourceKind.REGION: sorted(snapshot.regions),
            ResourceKind.MODEL: sorted(snapshot.models),
            ResourceKind.NODE: sorted(snapshot.nodes),
            ResourceKind.POLICY: sorted(snapshot.policies),
        }
        self._node_paths = sorted(f"{name}/" for name in snapshot.nodes)
        self._index_aliases()

    def _apply(self, changes: Sequence[Change]) -> None:
        self.snapshot = apply(self.snapshot, changes)
        for change in changes:
            if len(self._recent) == RECENT_CHANGES:
                self._recent_after = self._recent[0].revision
            self._recent.append(change)
            _follow(self._names[change.kind], change.name, change.resource is not None)
            if change.kind is ResourceKind.NODE:
                _follow(self._node_paths, f"{change.name}/", change.resource is not None)
        if any(change.kind is ResourceKind.MODEL for change in changes):
            self._index_aliases()
        self._tell()

    def _index_aliases(self) -> None:
        models = self.snapshot.models
        # Where two models claim an alias, the first in the order of ids has it, as in tables.
        self._aliases = {
            alias: model_id
            for model_id in reversed(self._names[ResourceKind.MODEL])
            for alias in models[model_id].aliases
        }

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _found(self) -> None:
        self.answered_at = self._monotonic()
        if not self.available:
            self.available = True
            self._log.info("catalog store answers again", revision=self.revision)

    def _lost(self, error: StoreUnavailable) -> None:
        if self.available:
            self.available = False
            self._log.error(
                "catalog store does not answer; routing goes on from the last snapshot, writes fail",
                revision=self.revision,
                error=str(error),
            )

    async def _compact(self) -> None:
        now = self._monotonic()
        if now - self._compacted_at >= COMPACT_SECONDS:
            self._compacted_at = now
            await self._store.compact(self._keep)


def _slice(names: Sequence[str], after: str, limit: int | None) -> list[str]:
    first = bisect_right(names, after) if after else 0
    return list(names[first : None if limit is None else first + limit])


def _follow(names: list[str], name: str, exists: bool) -> None:
    at = bisect_left(names, name)
    stands = at < len(names) and names[at] == name
    if exists and not stands:
        insort(names, name)
    elif stands and not exists:
        del names[at]
