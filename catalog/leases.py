"""The leases of nodes: who has to be heard of until when.

Pure bookkeeping in monotonic seconds. A renewal is one assignment; the heap holds one entry a node, at a time that is
never later than its lease's end, and is put right only when that time has come. So renewals cost the same however
many nodes there are, and a node that is renewed every few seconds is looked at once a lease.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from heapq import heappop, heappush

from catalog.types import Node


class Leases:
    """Leases by node name (`region_id/node_id`). Times are monotonic seconds; 0 seconds of lease never end.

    A node whose lease ended is reported by `expired` once and holds no lease then, until `grant` gives it one:
    at its next heartbeat, or when its record changed since.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._ends: dict[str, float] = {}
        # (when to look, name); an entry counts only while `_looks` names its time.
        self._heap: list[tuple[float, str]] = []
        self._looks: dict[str, float] = {}
        # The record that `sync` saw last, by its revision.
        self._seen: dict[str, int] = {}

    def __len__(self) -> int:
        """How many leases are held."""
        return len(self._ends)

    def grant(self, name: str, lease_seconds: float, now: float) -> None:
        """Starts a full lease, whatever was before. ValueError for a negative or non-finite lease."""
        if not 0 <= lease_seconds < math.inf:
            raise ValueError(
                f"lease_seconds of node {name!r} is {lease_seconds}; it must be 0 (never ends) or more, and finite"
            )
        end = now + lease_seconds if lease_seconds else math.inf
        self._seconds[name] = lease_seconds or math.inf
        self._ends[name] = end
        if end < self._looks.get(name, math.inf):
            self._looks[name] = end
            heappush(self._heap, (end, name))

    def renew(self, name: str, now: float) -> bool:
        """Extends a held lease from `now`; False where none is held: take the expiry back and `grant`, or register."""
        seconds = self._seconds.get(name)
        if seconds is None:
            return False
        self._ends[name] = now + seconds
        return True

    def forget(self, name: str) -> None:
        """Ends a lease silently: the node was deregistered."""
        self._drop(name)
        self._seen.pop(name, None)

    def expired(self, now: float) -> tuple[str, ...]:
        """The nodes whose lease has ended, each once, those that ended first first.

        The caller records it, and repeats that until the store has it: it is not reported again.
        """
        heap, looks = self._heap, self._looks
        ended: list[tuple[float, str]] = []
        while heap and heap[0][0] <= now:
            at, name = heappop(heap)
            if looks.get(name) != at:
                continue
            end = self._ends[name]
            if end <= now:
                ended.append((end, name))
                self._drop(name)
            elif end < math.inf:
                looks[name] = end
                heappush(heap, (end, name))
            else:
                del looks[name]
        return tuple(name for _, name in sorted(ended))

    def sync(self, nodes: Mapping[str, Node], now: float) -> None:
        """Follows the catalog: grants new nodes a full lease, forgets those that are gone.

        A record that says `expired` gets none before its heartbeat. A changed `lease_seconds` counts from the last
        renewal; other changes of a record leave its lease alone.
        """
        for name, node in nodes.items():
            self.follow(name, node, now)
        if len(self._seen) > len(nodes):
            for name in [name for name in self._seen if name not in nodes]:
                self.forget(name)

    def follow(self, name: str, node: Node, now: float) -> None:
        """The same for one node that the catalog has."""
        if self._seen.get(name) == node.revision:
            return
        self._seen[name] = node.revision
        if node.expired:
            self._drop(name)
        elif name not in self._ends:
            self.grant(name, node.lease_seconds, now)
        elif (node.lease_seconds or math.inf) != self._seconds[name]:
            self.grant(name, node.lease_seconds, self._renewed(name, now))

    def _renewed(self, name: str, now: float) -> float:
        """When a held lease was renewed last; now where it has no end to tell it from."""
        end = self._ends[name]
        return end - self._seconds[name] if end < math.inf else now

    def _drop(self, name: str) -> None:
        self._seconds.pop(name, None)
        self._ends.pop(name, None)
        self._looks.pop(name, None)
