"""The walk: decides by looking at the heads of few groups of a ranking, from the top.

Scalar twin of `policies.pipeline.judge` and `choose`; a property test holds its choice against theirs.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from federation.routing.frame import Visit
from federation.routing.groups import Entry, Group
from federation.routing.ranking import Ranking, Scalars
from federation.routing.state import IN_FLIGHT, State
from federation.routing.sweep import shortlist
from policies import chance
from policies.pipeline import alternatives
from policies.policy import Policy
from policies.types import RouteRequest

# Factors of nodes that are not suspected stay under this, and so does what they make of a shorter prompt.
SURE_FACTOR = 2.0
# Past so many, one pass over the columns is cheaper than walking on.
MAX_STEPS = 160
INFINITE = float("inf")
worth_of = itemgetter(0)

# Requests in flight by slot.
InFlight = Mapping[int, float] | Sequence[float]


@dataclass(frozen=True, slots=True)
class Walked:
    """What a walk found, in rows of the table, and whom it visited for it."""

    target: int
    alternatives: tuple[int, ...]
    # "picker" or "session".
    by: str
    # Candidates that the picker took for as good as the best; 0 where it did not look.
    near: int
    # Seconds that the target's node would take to the first token.
    at_node: float
    visited: list[Entry]
    full: int  # Visited and without room.
    low: int  # Visited and under the least score.
    # Whether one pass over all columns said whom to visit.
    swept: bool


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
        # Worth, row, seconds at the node, group.
        self.found: list[tuple[float, int, float, int]] = []
        self.visited: list[Entry] = []
        self.limit = INFINITE
        self.full = self.low = 0

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
                limit = found[0][0] + self.margin
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

    @property
    def margin(self) -> float:
        """Seconds within which others are as good as the best."""
        _, _, at_node, number = self.found[0]
        return self.near_seconds + self.near_ratio * (self.ranking.round_trip[number] + at_node)


def walk(
    ranking: Ranking,
    scalars: Scalars,
    state: State,
    policy: Policy,
    request: RouteRequest,
    tokens: int,
    answer: int,
    seed: int,
    session_slot: int,
    wanted: int,
    cached: Mapping[int, float],
    names: Sequence[str],
    rows: Sequence[int] | None = None,
) -> Walked | None:
    """Decides by visiting from the top; None where the whole pipeline must decide, for instance where nobody is fit.

    Means the same as `pipeline.judge` and `choose` over the rows that pass, but that of many equally good it may know
    only some.  It visits in this order: where the prompt is cached and where the session is, then the groups' heads
    until nobody further down can be as good as the best or as an alternative, then a head of each failure domain that
    the alternatives still lack.  `rows`, where given, are those to visit, as a recorded decision did.

    Under load good routing fills all groups to the same level.  Where a walk does not end soon, one pass over the
    columns names the few that do best now.
    """
    groups = ranking.groups
    groups.follow(state)
    look = Look(ranking, state.in_flight, policy, tokens, answer, wanted)
    swept, full, drawn = False, 0, -1
    if policy.picker == "power_of_two" and session_slot < 0:
        drawn = _draw(look, state, scalars, seed, cached, rows)
        if drawn < 0:
            return None
    elif rows is not None:
        _visit(look, state, [scalars.slot[row] for row in rows], cached)
    elif ranking.crowded or not _descend(look, state, session_slot, cached):
        ranking.crowded = swept = True
        look = Look(ranking, state.in_flight, policy, tokens, answer, wanted)
        few, full = shortlist(ranking, state, policy, tokens, answer, cached)
        _visit(look, state, few, cached)
    found = look.found
    if not found:
        return None
    session = -1
    if session_slot >= 0:
        row = scalars.row_of_slot.get(session_slot, -1)
        held = [each for each in found if each[1] == row]
        if not held or not scalars.best_grade[row]:
            # A session that must move is rare, and has rules of its own.
            return None
        session = row
    near = 0
    if session >= 0:
        _, target, at_node, _ = held[0]
    elif drawn >= 0:
        _, target, at_node, _ = next(each for each in found if each[1] == drawn)
    elif policy.picker == "best":
        _, target, at_node, _ = found[0]
    else:
        leaders = found[: policy.max_candidates]
        near = bisect_right(leaders, found[0][0] + look.margin, key=worth_of)
        if request.session_id:
            one, two = chance.two_for(request.session_id, [names[each[1]] for each in leaders[:near]])
        else:
            one, two = chance.two_of(seed, near)
        if (found[two][2], two) < (found[one][2], one):
            one = two
        _, target, at_node, _ = found[one]
    others = alternatives(target, [each[1] for each in found], scalars.domains, wanted)
    by = "session" if session >= 0 else "picker"
    return Walked(target, others, by, near, at_node, look.visited, full + look.full, look.low, swept)


def settle(
    ranking: Ranking,
    scalars: Scalars,
    policy: Policy,
    tokens: int,
    answer: int,
    wanted: int,
    target: int,
    drawn: Sequence[Visit],
) -> tuple[tuple[int, ...], int, int]:
    """Alternatives to a drawn target among those visited, as they were then; how many were full, and how many low.

    Reads nothing that moves, so that it may be asked for later than the decision was made.
    """
    groups = ranking.groups
    slot_of = scalars.slot
    look = Look(ranking, {slot_of[row]: moving[IN_FLIGHT] for row, *moving in drawn}, policy, tokens, answer, wanted)
    for row, *moving in drawn:
        slot = slot_of[row]
        number = groups.number(slot)
        group = groups.one(number)
        look.limit = INFINITE
        look.at(number, group, (group.entry_of(slot, (*moving, 1.0)),))
    order = [each[1] for each in look.found]
    return alternatives(target, order, scalars.domains, wanted), look.full, look.low


def _visit(look: Look, state: State, slots: Sequence[int], cached: Mapping[int, float]) -> None:
    """Looks at these, whatever was found."""
    groups = look.ranking.groups
    for slot in slots:
        number = groups.number(slot)
        if number >= 0:
            group = groups.at(number, state)
            look.limit = INFINITE
            look.at(number, group, (group.entry(slot, state),), cached.get(slot, 0.0) if cached else 0.0)


def _draw(
    look: Look, state: State, scalars: Scalars, seed: int, cached: Mapping[int, float], rows: Sequence[int] | None
) -> int:
    """Looks at drawn ones until two are fit, and at a head of each failure domain; the better drawn one's row, or -1.

    `rows`, where given, are those that were looked at then, in that order.
    """
    found, slot, passed = look.found, scalars.slot, look.ranking.rows
    size = len(passed)
    if rows is not None:
        left = iter(rows)
        while len(found) < 2 and (row := next(left, -1)) >= 0:
            _visit(look, state, (slot[row],), cached)
        drawn = found[0][1] if found else -1
        _visit(look, state, [slot[row] for row in left], cached)
        return drawn

    def fits(place: int) -> bool:
        before = len(found)
        _visit(look, state, (slot[passed[place]],), cached)
        return len(found) > before

    if not size or len(chance.fitting(seed, size, fits)) < min(2, size):
        return -1
    drawn = found[0][1]
    _visit_heads(look, state)
    return drawn


def _descend(look: Look, state: State, session_slot: int, cached: Mapping[int, float]) -> bool:
    """Looks at groups from the best one on; False where too many would matter."""
    ranking = look.ranking
    groups, visited = ranking.groups, look.visited
    early: set[int] = set()
    if cached or session_slot >= 0:
        early = {slot for slot in (*cached, session_slot) if groups.number(slot) >= 0}
        _visit(look, state, sorted(early), cached)
    made, filled, at_best, slack = groups.made, groups.filled, ranking.at_best, ranking.slack
    for number in ranking.line:
        bound = at_best[number]
        if bound > look.limit:
            break
        group = made.get(number)
        if group is None or group.filled != filled or group.stale:
            group = groups.at(number, state)
        heads: Sequence[Entry] = group.heads
        # What runs there adds at least this to its best.
        if heads and bound + (heads[0][0] - group.idle) - (group.high - 1.0) * slack[number] > look.limit:
            continue
        if early:
            heads = [entry for entry in heads if entry[2] not in early]
        if not look.at(number, group, heads, past=group.floor[0]) or len(visited) > MAX_STEPS:
            return False
    _visit_heads(look, state)
    return True


def _visit_heads(look: Look, state: State) -> None:
    """Looks at one of each failure domain that the alternatives still lack."""
    ranking = look.ranking
    if not look.wanted or len(ranking.heads) <= 1:
        return
    zone, region = ranking.zone, ranking.region
    visited = {entry[1] for entry in look.visited}
    seen = {zone[each[3]] for each in look.found}
    regions = {region[each[3]] for each in look.found}
    for number in ranking.heads:
        if len(seen) > look.wanted and len(regions) > 1:
            break
        if zone[number] not in seen:
            seen.add(zone[number])
            regions.add(region[number])
            group = ranking.groups.at(number, state)
            look.limit = INFINITE
            look.at(number, group, [entry for entry in group.heads[:1] if entry[1] not in visited])
