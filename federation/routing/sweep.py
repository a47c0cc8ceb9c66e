"""The sweep: one pass over a ranking's columns that names the few candidates that do best now.

The third form of the same formula (`policies.prediction` for explanations, `walk.py` one by one): it computes only what
orders candidates, for all of them at once, and leaves the choice among the few to the walk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from federation.routing.state import IN_FLIGHT, PENDING, RUNNING, SUSPICION, WAIT, State
from policies.policy import Policy
from policies.pool import FloatArray, IntArray

# Enough for the near margin, which looks at `max_candidates`, and for alternatives in other zones.
SHORTLIST = 32


@dataclass(slots=True)
class Sweep:
    """A ranking's columns, by place. `crowded` remembers that walks down it did not end soon."""

    slots: IntArray
    per_token: FloatArray
    least: FloatArray
    batch: FloatArray
    decode: FloatArray
    limit: FloatArray
    committed: FloatArray
    round_trip: FloatArray
    # The composite in seconds without the time to the first token, money and speed.
    fixed: FloatArray
    # Seconds that a token is worth: of the prompt, of a cached prompt, of the answer, and of carrying the answer out.
    input_seconds: FloatArray
    cached_seconds: FloatArray
    output_seconds: FloatArray
    egress_seconds: FloatArray
    throughput_seconds: float
    crowded: bool = False

    def shortlist(
        self, state: State, policy: Policy, tokens: int, answer: int, cached: Mapping[int, float]
    ) -> tuple[list[int], int]:
        """Places that do best now, best first, and how many have no room."""
        moving = np.take(state.matrix, self.slots, axis=1)
        in_flight = moving[IN_FLIGHT]
        hits = np.zeros(len(self.slots))
        if cached:
            hits = np.array([cached.get(slot, 0.0) for slot in self.slots.tolist()])
        busy = np.maximum(in_flight, moving[RUNNING])
        slow = 1.0 + policy.batch_slowdown * np.minimum(busy / self.batch, 1.0)
        at_node = (moving[PENDING] * self.per_token + np.maximum(self.per_token * (tokens - hits), self.least)) * slow
        at_node += moving[WAIT]
        queue = busy - self.batch
        queue += 1.0
        if queue.max(initial=0.0) > 0.0:
            at_node += np.maximum(queue, 0.0) * (policy.assume.output_tokens / self.decode / self.batch)
        at_node *= moving[SUSPICION]
        money = (tokens - hits) * self.input_seconds + hits * self.cached_seconds + answer * self.output_seconds
        money[in_flight < self.committed] = 0.0
        worth = self.round_trip + at_node
        worth += self.fixed
        worth += money
        worth += answer * self.egress_seconds
        worth -= self.throughput_seconds * (self.decode / slow)
        full = in_flight >= self.limit
        worth[full] = np.inf
        if len(worth) > SHORTLIST:
            few = np.argpartition(worth, SHORTLIST)[:SHORTLIST]
            few = few[np.lexsort((few, worth[few]))]
        else:
            few = np.lexsort((np.arange(len(worth)), worth))
        return few[np.isfinite(worth[few])].tolist(), int(np.count_nonzero(full))
