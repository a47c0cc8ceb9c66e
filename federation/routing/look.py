"""One look after another: what a walk has seen so far of a ranking, and what the next must be to matter.

The scalar form of the scores: `policies.prediction` has them for whole columns.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence

from federation.routing.groups import Entry, Group
from federation.routing.ranking import Ranking
from policies.policy import Policy

# Factors of nodes that are not suspected stay under this, and so does what they make of a shorter prompt.
SURE_FACTOR = 2.0
INFINITE = float("inf")

# Requests in flight by slot.
InFlight = Mapping[int, float] | Sequence[float]
# A candidate that was found fit: its worth in seconds, less is better; its row, seconds at the node, and group.
Found = tuple[float, int, float, int]


class Look:
    """What one decision has seen so far: candidates in the order of their worth, in seconds, less is better.

    `limit` is what the next must be under to matter: to be as good as the best, or to be an alternative.
    """

    __slots__ = (
        "answer",
        "assume",
        "floor",
        "flying",
        "found",
        "full",
        "leaders",
        "limit",
        "low",
        "near_ratio",
        "near_seconds",
        "ranking",
        "short",
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
        self.limit = INFINITE
        self.full = self.low = 0
        # Whether too few heads of a group were known, and more will be the next time.
        self.short = False

    def at(
        self, number: int, group: Group, entries: Iterable[Entry], hits: float = 0.0, past: float = INFINITE
    ) -> bool:
        """Looks at members of a group until one could only be past the limit; False where `entries` ended before.

        Entries after the last are no better than the key `past`.
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
        # Nobody of the group is better than this and its key, scaled.
        more, scale = prefill - group.reference, 1.0
        least = base
        if more >= 0.0:
            least += group.low * more
        elif group.high < SURE_FACTOR:
            least += group.high * more
        else:
            scale = prefill / group.reference
        if not committed:
            least += money
        flying, limit, floor = self.flying, self.limit, self.floor
        wanted, leaders = self.wanted, self.leaders
        for entry in entries:
            key, row, slot, work, factor, slow, _ = entry
            if least + key * scale > limit:
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
            if worth > floor and worth - at_node + at_node * slow / factor > floor:
                free = committed > 0.0 and flying[slot] < committed
                trusted = worth - at_node + at_node * slow / factor
                if trusted - self._past_usual(number, group, hits, slow, free) > floor:
                    if self._idle(number, group) > floor:
                        self.low += 1
                    else:
                        self.full += 1
                    continue
            insort(found, (worth, row, at_node, number))
            if worth < limit and len(found) > wanted:
                limit = found[0][0] + self.margin_of(found[0])
                if len(found) > leaders and found[leaders][0] < limit:
                    limit = found[leaders][0]
                if found[wanted][0] > limit:
                    limit = found[wanted][0]
                self.limit = limit
        return past == INFINITE or least + past * scale > limit

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
