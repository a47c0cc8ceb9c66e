"""Pickers: who among the eligible gets the request.

A picker sees candidates best composite first and answers a place among them.  It draws from the decision's seed only,
and what moves between decisions (turns, requests in flight) reaches it as columns; so the same input picks the same.
Candidates that filters refused are not among them: a picker that draws, draws among the available.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policies import chance
from policies.policy import Policy
from policies.pool import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Field:
    """The eligible candidates, best composite first, ties by name."""

    policy: Policy
    seed: int
    # What the request hashes by: its session, else its first prefix block, else its tenant, else itself.
    key: str
    # Its session; "" where it has none.
    session: str
    total: FloatArray
    # The composite taken back to seconds by the slope of the latency line; less is better.
    seconds: FloatArray
    time_to_first_token: FloatArray
    at_node: FloatArray
    # Seconds of recent outcomes: their median, and their peak-sensitive average; else as predicted.
    latency: FloatArray
    peak: FloatArray
    in_flight: FloatArray
    weight: FloatArray
    turn: FloatArray
    batch: FloatArray
    names: tuple[str, ...]
    endpoints: tuple[str, ...]
    # Whom to draw from: of those that only want of room or score may leave out, in the table's order, the place among
    # the eligible; -1 where it is left out now.
    drawable: IntArray

    def __len__(self) -> int:
        return len(self.total)


Picker = Callable[[Field], int]


def best(field: Field) -> int:
    """The best composite."""
    return 0


def near(field: Field) -> int:
    """How many of the leaders are as good as the best: within the policy's margin of predicted time."""
    margin = field.policy.near_seconds + field.policy.near_ratio * float(field.time_to_first_token[0])
    leaders = field.seconds[: field.policy.max_candidates]
    return max(1, int(np.searchsorted(leaders, float(leaders[0]) + margin, side="right")))


def predicted(field: Field) -> int:
    """The less loaded of two drawn among those as good as the best.

    The best alone would herd: between two signals every request sees the same leader.  Two draws spread nearly as well
    as full knowledge (Mitzenmacher: The Power of Two Choices in Randomized Load Balancing, 2001).  A session's two are
    drawn by its name, so that after a restart, which forgets sessions, most find their deployment and its cache again.
    """
    leaders = near(field)
    if field.session:
        one, two = chance.two_for(field.session, field.names[:leaders])
    else:
        one, two = chance.two_of(field.seed, leaders)
    return one if (field.at_node[one], one) <= (field.at_node[two], two) else two


def power_of_two(field: Field) -> int:
    """The better composite of two drawn among all; a draw that is unavailable is drawn again.

    Drawn in the table's order and not in that of composites, so that nobody has to sort everybody to draw two.
    """
    drawn = chance.fitting(field.seed, len(field.drawable), lambda number: field.drawable[number] >= 0)
    return min((int(field.drawable[number]) for number in drawn), default=0)


def least_latency(field: Field) -> int:
    """The shortest predicted time to the first token at the caller."""
    return int(np.argmin(field.time_to_first_token))


def least_connections(field: Field) -> int:
    """The fewest requests in flight per weight; among equals the one that waited longest for its turn."""
    busy = (field.in_flight + 1.0) / np.maximum(field.weight, 1e-9)
    return int(np.lexsort((field.turn, busy))[0])


def round_robin(field: Field) -> int:
    """The one that was chosen longest ago: fair over changing sets, since a newcomer starts at the end of the row."""
    return int(np.argmin(field.turn))


def weighted_random(field: Field) -> int:
    """Drawn with a probability in proportion to its weight; all alike where no weight is above zero."""
    shares = np.cumsum(field.weight)
    total = float(shares[-1])
    if total <= 0.0:
        return chance.below(field.seed, 0, len(field))
    return int(np.searchsorted(shares, chance.uniform(field.seed, 0) * total, side="right"))


def consistent_hash(field: Field) -> int:
    """By the request's key: the highest weighted rendezvous hash that carries under 1.25 times its share.

    When a deployment comes or goes only the keys it takes or leaves move (Thaler, Ravishankar: Using Name-Based
    Mappings to Increase Hit Rates, 1998); the bound keeps a hot key from drowning its deployment (Mirrokni, Thorup,
    Zadimoghaddam: Consistent Hashing with Bounded Loads, 2018).
    """
    weight = field.weight if field.weight.sum() > 0.0 else np.ones(len(field))
    # The bounds add up to more than what is in flight, so that somebody is always under its own.
    bound = np.ceil(1.25 * (field.in_flight.sum() + 1.0) * weight / weight.sum())
    # 52 bits and a half: strictly between 0 and 1, also after rounding.
    draws = [((chance.hash_text(f"{name}\0{field.key}") >> 12) + 0.5) / 2**52 for name in field.names]
    order = np.argsort(weight / np.log(draws), kind="stable")
    fits = field.in_flight[order] < bound[order]
    return int(order[int(np.argmax(fits))])


def peak_ewma(field: Field) -> int:
    """Of two drawn, the lower product of peak-sensitive latency and requests in flight (Finagle's Peak EWMA)."""
    one, two = chance.two_of(field.seed, len(field))
    cost = field.peak * (field.in_flight + 1.0)
    return one if (cost[one], one) <= (cost[two], two) else two


HOT_QUANTILE = 0.84
DRAWS = 16


def hot_cold(field: Field) -> int:
    """Prequal's rule over up to 16 drawn: hot ones carry more requests than the 84th percentile; the fastest cold one.

    Where all carry alike nobody is hot.  Wydrowski, Kleinberg, Rumble, Archer: Load is not what you should balance,
    NSDI 2024.
    """
    size = len(field)
    drawn = np.unique([chance.below(field.seed, n, size) for n in range(DRAWS)]) if size > DRAWS else np.arange(size)
    busy = field.in_flight[drawn]
    cold = drawn[busy <= np.quantile(busy, HOT_QUANTILE)]
    fastest = np.lexsort((field.in_flight[cold], field.latency[cold]))
    return int(cold[fastest[0]])
