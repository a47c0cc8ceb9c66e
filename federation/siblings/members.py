"""Who serves this region beside us, by the beats in its database. No I/O, no clock.

A replica lives while its beats grow between two answers of the database. Neither the clocks of other machines nor an
outage of the database makes anybody dead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from catalog.types import Replica
from policies.chance import hash_text, mix

# Beats are a second apart; a replica whose process or machine pauses must not lose its nodes' leases at once.
DEAD_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Member:
    """A replica as it was read, and when its beats last grew (monotonic seconds)."""

    replica: Replica
    grown_at: float


class Members:
    """What the last answer of the database said; this replica is not among them."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._known: dict[str, Member] = {}
        self._answered_at = float("-inf")

    def read(self, replicas: Iterable[Replica], now: float) -> None:
        """Takes over an answer of the database."""
        known, self._known = self._known, {}
        self._answered_at = now
        for replica in replicas:
            if replica.replica_id == self._me:
                continue
            before = known.get(replica.replica_id)
            same = before is not None and (before.replica.beats, before.replica.incarnation) == (
                replica.beats,
                replica.incarnation,
            )
            grown_at = before.grown_at if before is not None and same else now
            self._known[replica.replica_id] = Member(replica, grown_at)

    def living(self) -> dict[str, Replica]:
        """Replicas that live, by their ids."""
        return {name: each.replica for name, each in self._known.items() if self._lives(each)}

    def lives(self, replica_id: str) -> bool:
        known = self._known.get(replica_id)
        return known is not None and self._lives(known)

    def _lives(self, member: Member) -> bool:
        return self._answered_at - member.grown_at < DEAD_SECONDS

    def incarnation_of(self, replica_id: str) -> str:
        """A replica's life; "" where it was not read."""
        known = self._known.get(replica_id)
        return "" if known is None else known.replica.incarnation


def share_of(node: str, replicas: Iterable[str]) -> str:
    """The replica that probes a node: the one whose name hashes highest with it, so that few nodes move when replicas
    come and go. "" of none."""
    return max(replicas, key=lambda replica: (mix(_hash(replica) ^ _hash(node)), replica), default="")


# A fleet's names are hashed again whenever a replica comes or goes, and each takes microseconds.
_hash = lru_cache(maxsize=1 << 17)(hash_text)
