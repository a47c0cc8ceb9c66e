"""Whose turn it is to try a half-open circuit: one replica's at a time, as if there were only one.

The replica that probes a node gives the turns of its deployments, to itself and to its siblings one after the other,
since traffic may come to any of them. Before the next one's turn it hears from the last one that its turn is over and
no trial is under way there; a sibling that is gone is not waited for. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

# Long enough that a trial comes by, short enough that three successes do not take a minute where one replica has all
# the traffic.
TURN_SECONDS = 1.0
SELF = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a sibling: the last news told to it, the last that it heard, and where it has a trial."""

    told: int
    heard: int
    trials: frozenset[str]


@dataclass(slots=True)
class _Turn:
    holder: str
    since: float
    # The number of the first news that no longer gives the turn; None: it is given.
    ended_by: int | None = None


class Turns:
    """`step` brings it up to date; `held` tells what a replica may try ("": this one)."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    def held(self, replica: str) -> frozenset[str]:
        """Deployments whose trials are a replica's now."""
        return frozenset(name for name, turn in self._turns.items() if turn.holder == replica and turn.ended_by is None)

    def step(
        self, half_open: Collection[str], siblings: Mapping[str, Seen], own_trials: Collection[str], now: float
    ) -> None:
        """Moves turns on. `half_open` are circuits of nodes that this replica probes."""
        known = self._turns
        self._turns = {name: known.get(name) or _Turn(SELF, now) for name in sorted(half_open)}
        ring = (SELF, *sorted(siblings))
        for name, turn in self._turns.items():
            if turn.holder != SELF and turn.holder not in siblings:
                self._turns[name] = _Turn(SELF, now)
            elif len(ring) > 1 and now - turn.since >= TURN_SECONDS and self._is_over(name, turn, siblings, own_trials):
                self._turns[name] = _Turn(ring[(ring.index(turn.holder) + 1) % len(ring)], now)

    def _is_over(self, name: str, turn: _Turn, siblings: Mapping[str, Seen], own_trials: Collection[str]) -> bool:
        """Whether the holder has no trial under way and will begin none."""
        if turn.holder == SELF:
            return name not in own_trials
        seen = siblings[turn.holder]
        if turn.ended_by is None:
            turn.ended_by = seen.told + 1
            return False
        return seen.heard >= turn.ended_by and name not in seen.trials
