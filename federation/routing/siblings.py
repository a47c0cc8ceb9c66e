"""What sibling routers sent to deployments and has no first token yet: sums that they tell, believed for a moment.

Sums come every SUMS_EVERY_SECONDS, each in place of its sender's last.  They count like our own pending tokens, so that
the formula needs no term for them; what they explain of a wait is not learned as a wait a second time.  A sum that is
old when it comes is not used at all: several routers that read the same old number all run to the same node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from federation.routing.state import PENDING, QUEUE_HALF_LIFE_SECONDS, THEIRS, State
from policies.pool import FloatArray

# How often a router tells its sums.
SUMS_EVERY_SECONDS = 0.25
# A sum that took longer to come is not used.
MAX_AGE_SECONDS = 0.25
# Of a sibling that is not heard any more nothing is left after this; until then its sums fade as queues do.
FORGET_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Sums:
    """One sibling's tokens by slot, and when they were so."""

    tokens: FloatArray
    at: float


class Siblings:
    """Pending sums of other routers, by the name of who told them. Keeps the state's PENDING and THEIRS true."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._sums: dict[str, Sums] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def hear(self, sibling: str, tokens: Mapping[str, float], age_seconds: float, now: float) -> bool:
        """Takes a sibling's tokens by deployment, that were so some seconds ago, in place of all it told before.

        False, and nothing is taken: they are too old. Deployments that are not known here are passed over.
        """
        if not age_seconds <= MAX_AGE_SECONDS:
            return False
        known = self._state.slots
        found = np.zeros(self._state.matrix.shape[1])
        for name, value in tokens.items():
            slot = known.get(name)
            if slot is not None and value > 0.0:
                found[slot] = value
        self._sums[sibling] = Sums(found, now - max(0.0, age_seconds))
        self.settle(now)
        return True

    def settle(self, now: float) -> None:
        """Lets what was heard fade up to `now`, and forgets who is silent."""
        if not self._sums:
            return
        matrix = self._state.matrix
        theirs = np.zeros(matrix.shape[1])
        for sibling, sums in list(self._sums.items()):
            age = now - sums.at
            if age > FORGET_SECONDS:
                del self._sums[sibling]
                continue
            theirs[: len(sums.tokens)] += sums.tokens * 0.5 ** (age / QUEUE_HALF_LIFE_SECONDS)
        ours = np.maximum(matrix[PENDING] - matrix[THEIRS], 0.0)
        matrix[PENDING] = ours + theirs
        matrix[THEIRS] = theirs

    def tell(self) -> dict[str, float]:
        """Our own tokens by deployment, for siblings; whoever has none is left out."""
        matrix = self._state.matrix
        ours = matrix[PENDING] - matrix[THEIRS]
        # Less than a token is what rounding left of others.
        return {name: float(ours[slot]) for name, slot in self._state.slots.items() if ours[slot] >= 0.5}
