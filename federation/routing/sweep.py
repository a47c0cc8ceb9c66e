"""The sweep: one pass over all rows of a ranking that names the few that do best now.

The third form of the same formula (`policies.prediction` for explanations, `walk.py` group by group): it computes only
what orders candidates, for all of them at once, and leaves the choice among the few to the walk.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from federation.routing.ranking import Ranking
from federation.routing.state import IN_FLIGHT, PENDING, RUNNING, SUSPICION, WAIT, State
from policies.policy import Policy
from policies.pool import FloatArray, IntArray

# Enough for the near margin, which looks at `max_candidates`, and for alternatives in other zones.
SHORTLIST = 32


def shortlist(
    ranking: Ranking, state: State, policy: Policy, tokens: int, answer: int, cached: Mapping[int, float]
) -> tuple[list[int], int]:
    """Slots that do best now, best first, and how many have no room."""
    columns = ranking.groups.columns
    number, slots = columns.number, columns.slots
    per_token, least, batch, decode, limit, committed = columns.by_row

    def by_row(figures: list[float]) -> FloatArray:
        return np.array(figures)[number]

    moving = np.take(state.matrix, slots, axis=1)
    in_flight = moving[IN_FLIGHT]
    hits = np.array([cached.get(slot, 0.0) for slot in slots.tolist()]) if cached else 0.0
    busy = np.maximum(in_flight, moving[RUNNING])
    slow = 1.0 + policy.batch_slowdown * np.minimum(busy / batch, 1.0)
    at_node = (moving[PENDING] * per_token + np.maximum(per_token * (tokens - hits), least)) * slow + moving[WAIT]
    queue = busy - batch + 1.0
    if queue.max(initial=0.0) > 0.0:
        at_node += np.maximum(queue, 0.0) * (policy.assume.output_tokens / decode / batch)
    at_node *= moving[SUSPICION]
    money = (tokens - hits) * by_row(ranking.input_seconds) + answer * by_row(ranking.output_seconds)
    if cached:
        money += hits * by_row(ranking.cached_seconds)
    money[in_flight < committed] = 0.0
    worth = at_node + money
    worth += by_row(ranking.fixed)
    worth += answer * by_row(ranking.egress_seconds)
    worth -= ranking.throughput_seconds * (decode / slow)
    full = in_flight >= limit
    worth[full] = np.inf
    if ranking.only is not None:
        worth[~ranking.only[number]] = np.inf
    few = np.arange(len(worth)) if len(worth) <= SHORTLIST else _least(worth, columns.rows)
    few = few[np.lexsort((columns.rows[few], worth[few]))]
    return slots[few[np.isfinite(worth[few])]].tolist(), int(np.count_nonzero(full))


def _least(worth: FloatArray, rows: IntArray) -> IntArray:
    """Where the SHORTLIST least stand, in any order; of those that stand level at its end the first by row."""
    edge = np.partition(worth, SHORTLIST - 1)[SHORTLIST - 1]
    before, level = np.flatnonzero(worth < edge), np.flatnonzero(worth == edge)
    left = SHORTLIST - len(before)
    if left < len(level):
        level = level[np.argpartition(rows[level], left - 1)[:left]]
    return np.concatenate([before, level])
