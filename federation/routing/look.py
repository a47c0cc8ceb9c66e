"""One look after another: what a walk has seen so far of a ranking, and what the next must be to matter.

The scalar form of the scores: `policies.prediction` has them for whole columns.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence

from federation.routing.groups import Entry, Group
from federation.routing.ranking import Ranking
from policies.policy import Policy

INFINITE = float("inf")
# Past every row.
NOBODY = 1 << 62
# Whom less than this tells apart stand level, and the order of rows decides: an idle fleet of one kind does nothing
# else, and sums that should be the same differ in their last bits.
LEVEL_SECONDS = 1e-9

# A group of which all are known ends here.
NO_FLOOR = (INFINITE, 0)

# Requests in flight by slot.
InFlight = Mapping[int, float] | Sequence[float]
# A candidate that was found fit: its worth in seconds, less is better; its row, seconds at the node, and group.
Found = tuple[float, int, float, int]


class Look:
    """What one decision has seen so far: candidates in the order of their worth, in seconds, less is better.

    `limit` is what the next must be under to matter: to be as good as the best, or to be an alternative; of those who
    stand level with it only rows up to `last` do.
    """

    __slots__ = (
        "answer",
        "assume",
        "floor",
        "flying",
        "found",
        "full",
        "last",
        "leaders",
        "limit",
        "low",
        "near_ratio",
        "near_seconds",
        "ranking",
        "tokens",
        "visited",
        "wanted",
    )

    def __init__(
        self, ranking: Ranking, flying: InFlight, policy: Policy, tokens: int, answer: int, wanted: int
    ) -> None:
        self.ranking = ranking
        self.flying = flying
        self.tokens = tokens
        self.answer = answer
        self.wanted = wanted
        self.assume = policy.assume
        self.leaders = policy.max_candidates - 1
        near = policy.picker == "predicted"
        self.near_seconds = policy.near_seconds if near else 0.0
        self.near_ratio = policy.near_ratio if near else 0.0
        bounded = policy.min_score > 0.0 and not ranking.panic
        self.floor = -policy.min_score * ranking.weight_sum / ranking.per_second if bounded else INFINITE
        self.forget()

    def forget(self) -> None:
        """Begins anew."""
        self.found: list[Found] = []
        self.visited: list[Entry] = []
        self.open()
        self.full = self.low = 0

    def open(self) -> None:
        """Whoever is looked at next matters."""
        self.limit, self.last = INFINITE, NOBODY

    def past(self, bound: float, row: int) -> bool:
        """Whether who does no better than this, in seconds, and stands in this row or behind it, does not matter."""
        further = bound - self.limit
        return further > LEVEL_SECONDS or (row > self.last and further >= -LEVEL_SECONDS)

    def at(
        self,
        number: int,
        group: Group,
        entries: Iterable[Entry],
        hits: float = 0.0,
        floor: tuple[float, int] = NO_FLOOR,
    ) -> bool:
        """Looks at members of a group until one could only be past the limit; False where `entries` ended before.

        Entries after the last come after `floor`, a key and a row.
        """
        ranking, tokens, found, visited = self.ranking, self.tokens, self.found, self.visited
        prefill = group.per_token * (tokens - hits)
        if prefill < group.least:
            prefill = group.least
        base = ranking.fixed[number] + self.answer * ranking.egress_seconds[number]
        money = (
            (tokens - hits) * ranking.input_seconds[number]
            + hits * ranking.cached_seconds[number]
            + self.answer * ranking.output_seconds[number]
        )
        committed, limited = group.committed, group.limit < INFINITE
        speed = group.speed
        least = base if committed else base + money
        more = prefill - group.reference
        flying, lowest, wanted = self.flying, self.floor, self.wanted
        for entry in entries:
            key, row, slot, work, factor, slow, _ = entry
            if self.past(least + group.least_for(key, more), row):
                return True
            visited.append(entry)
            if limited and flying[slot] >= group.limit:
                self.full += 1
                continue
            at_node = work + factor * prefill
            worth = base + at_node - speed / slow
            if not committed or flying[slot] >= committed:
                worth += money
            # Suspicion puts last, and refuses nobody.
            if worth > lowest and worth - at_node + at_node * slow / factor > lowest:
                free = committed > 0.0 and flying[slot] < committed
                trusted = worth - at_node + at_node * slow / factor
                if trusted - self._past_usual(number, group, hits, slow, free) > lowest:
                    if self._idle(number, group) > lowest:
                        self.low += 1
                    else:
                        self.full += 1
                    continue
            insort(found, (worth, row, at_node, number))
            if len(found) > wanted and (worth, row) < (self.limit, self.last):
                self._narrow()
        key, row = floor
        return key == INFINITE or self.past(least + group.least_for(key, more), row)

    def _narrow(self) -> None:
        """Finds the limit again."""
        found, leaders = self.found, self.leaders
        edge = found[0][0] + self.margin_of(found[0]), NOBODY
        if len(found) > leaders:
            edge = min(edge, found[leaders][:2])
        self.limit, self.last = max(edge, found[self.wanted][:2])

    def _past_usual(self, number: int, group: Group, hits: float, slow: float, free: bool) -> float:
        """Seconds that are the length's beyond what is assumed, which `min_score` does not judge."""
        ranking, assume = self.ranking, self.assume
        cut, answer = min(self.tokens, assume.input_tokens), min(self.answer, assume.output_tokens)
        computed = self.tokens - hits
        left = min(computed, cut)
        past = slow * (max(group.per_token * computed, group.least) - max(group.per_token * left, group.least))
        past += (self.answer - answer) * ranking.egress_seconds[number]
        if not free:
            past += (computed - left) * ranking.input_seconds[number]
            past += (hits - (cut - left)) * ranking.cached_seconds[number]
            past += (self.answer - answer) * ranking.output_seconds[number]
        return past

    def _idle(self, number: int, group: Group) -> float:
        """What `min_score` would judge if nothing ran there."""
        ranking, assume = self.ranking, self.assume
        cut, answer = min(self.tokens, assume.input_tokens), min(self.answer, assume.output_tokens)
        idle = ranking.fixed[number] + answer * ranking.egress_seconds[number] - group.speed
        idle += max(group.per_token * cut, group.least)
        if not group.committed:
            idle += cut * ranking.input_seconds[number] + answer * ranking.output_seconds[number]
        return idle

    def margin_of(self, best: Found) -> float:
        """Seconds within which others are as good as the best."""
        _, _, at_node, number = best
        return self.near_seconds + self.near_ratio * (self.ranking.round_trip[number] + at_node)
