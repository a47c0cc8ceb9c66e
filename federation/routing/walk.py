"""The walk: decides by looking at the heads of few groups of a ranking, from the top.

Scalar twin of `policies.pipeline.judge` and `choose`; a property test holds its choice against theirs.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from federation.routing.frame import Visit
from federation.routing.groups import Entry
from federation.routing.look import INFINITE, LEVEL_SECONDS, NOBODY, Found, Look
from federation.routing.ranking import Ranking, Scalars
from federation.routing.state import IN_FLIGHT, State
from federation.routing.sweep import shortlist
from policies import chance
from policies.pipeline import alternatives
from policies.policy import Policy
from policies.pool import IntArray
from policies.types import RouteRequest

# Past so many, one pass over the columns is cheaper than walking on; of large rankings one step in so many rows, as
# long as the decisions that are remembered do not fill memory with whom they looked at.
MAX_STEPS = 160
ROWS_A_STEP = 32
MOST_STEPS = 640
worth_of = itemgetter(0)


@dataclass(slots=True, eq=False)
class Walked:
    """What a walk found, in rows of the table, and whom it visited for it."""

    target: int
    # Those that are fit, best first: alternatives are among them.
    found: list[Found]
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
    draws: tuple[int, int] | None = None,
    turns: tuple[int, ...] | None = None,
) -> Walked | None:
    """Decides by visiting from the top; None where the whole pipeline must decide, for instance where nobody is fit.

    Means the same as `pipeline.judge` and `choose` over the rows that pass, but that of many equally good it may know
    only some.  It visits in this order: where the prompt is cached and where the session is, then the groups' heads
    until nobody further down can be as good as the best or as an alternative, then a head of each failure domain that
    the alternatives still lack.  `rows`, where given, are those to visit, as a recorded decision did; `draws` are the
    seed's first two, where they are known.  `turns`, by region, tell where the target is looked for first; those who
    stand in may be anywhere.

    Under load good routing fills all groups to the same level.  Where a walk does not end soon, one pass over the
    columns names the few that do best now.
    """
    ranking.groups.follow(state)
    # A session is held wherever it is.
    part = ranking if turns is None or session_slot >= 0 else ranking.foremost(turns)
    swept, full, drawn = False, 0, -1
    if policy.picker == "power_of_two" and session_slot < 0:
        look = Look(ranking, state.in_flight, policy, tokens, answer, wanted)
        drawn = _draw(look, state, scalars, seed, cached, rows, part.rows)
        if drawn < 0:
            return None
    elif rows is not None:
        look = Look(ranking, state.in_flight, policy, tokens, answer, wanted)
        _visit(look, state, [scalars.slot[row] for row in rows], cached)
    elif part is ranking:
        early = (session_slot,) if session_slot >= 0 else ()
        look, swept, full = _seek(ranking, state, policy, tokens, answer, wanted, cached, early)
    else:
        look, swept, full = _seek(part, state, policy, tokens, answer, 0, cached, ())
        if wanted and look.found:
            leaders = [scalars.slot[each[1]] for each in look.found[: policy.max_candidates]]
            # One more than wanted: the target may be among them.
            look, swept, full = _seek(ranking, state, policy, tokens, answer, wanted + 1, cached, leaders)
    found = look.found
    fit = found if part.only is None else [each for each in found if part.only[each[3]]]
    if not fit:
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
        _, target, at_node, _ = fit[0]
    else:
        edge = fit[0][0] + look.margin_of(fit[0])
        near = bisect_right(fit, edge, 0, min(len(fit), policy.max_candidates), key=worth_of)
        if request.session_id:
            one, two = chance.two_for(request.session_id, [names[each[1]] for each in fit[:near]])
        else:
            one, two = chance.two_of(seed, near) if draws is None else chance.two_by(*draws, near)
        if (fit[two][2], two) < (fit[one][2], one):
            one = two
        _, target, at_node, _ = fit[one]
    by = "session" if session >= 0 else "picker"
    return Walked(target, found, by, near, at_node, look.visited, full + look.full, look.low, swept)


def _seek(
    ranking: Ranking,
    state: State,
    policy: Policy,
    tokens: int,
    answer: int,
    wanted: int,
    cached: Mapping[int, float],
    early: Sequence[int],
) -> tuple[Look, bool, int]:
    """Who matters in a ranking: by a walk, or by one pass over all of it, and then how many of it have no room."""
    look = Look(ranking, state.in_flight, policy, tokens, answer, wanted)
    if not ranking.crowded and _go_down(look, state, early, cached):
        return look, False, 0
    ranking.crowded = True
    look = Look(ranking, state.in_flight, policy, tokens, answer, wanted)
    few, full = shortlist(ranking, state, policy, tokens, answer, cached)
    _visit(look, state, dict.fromkeys((*early, *few)), cached)
    return look, True, full


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
        look.open()
        look.at(number, group, (group.entry_of(slot, (*moving, 1.0)),))
    order = [each[1] for each in look.found]
    return alternatives(target, order, scalars.domains, wanted), look.full, look.low


def _visit(look: Look, state: State, slots: Iterable[int], cached: Mapping[int, float]) -> None:
    """Looks at these, whatever was found."""
    groups = look.ranking.groups
    for slot in slots:
        number = groups.number(slot)
        if number >= 0:
            group = groups.at(number, state)
            look.open()
            look.at(number, group, (group.entry(slot, state),), cached.get(slot, 0.0) if cached else 0.0)


def _draw(
    look: Look,
    state: State,
    scalars: Scalars,
    seed: int,
    cached: Mapping[int, float],
    rows: Sequence[int] | None,
    passed: IntArray,
) -> int:
    """Looks at drawn ones of those that passed until two are fit, and at a head of each failure domain; the better
    drawn one's row, or -1.

    `rows`, where given, are those that were looked at then, in that order.
    """
    found, slot = look.found, scalars.slot
    size = len(passed)
    if rows is not None:
        left = iter(rows)
        while len(found) < min(2, size) and (row := next(left, -1)) >= 0:
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


def _go_down(look: Look, state: State, early: Sequence[int], cached: Mapping[int, float]) -> bool:
    """Looks at `early`, and at groups from the best one on; False where too many would matter."""
    if not early and not cached:
        gone = _glide(look, state)
        if gone is not None:
            return gone
        look.forget()
    return _descend(look, state, early, cached)


def _glide(look: Look, state: State) -> bool | None:
    """`_descend` where nobody is looked at early, with all that does not move laid out; None where that cannot tell.

    The same sums in the same order as `Look.at`, which is for whoever scores too low, too.
    """
    ranking, tokens, answer, wanted, leaders = look.ranking, look.tokens, look.answer, look.wanted, look.leaders
    found, visited, floor, flying = look.found, look.visited, look.floor, look.flying
    near_seconds, near_ratio = look.near_seconds, look.near_ratio
    groups, line, steps = ranking.groups, ranking.line, ranking.steps
    filled, laid, near = groups.filled, len(steps), INFINITE
    # Whoever does between `level` and `past` stands level with the limit.
    limit, last, level, past = INFINITE, NOBODY, INFINITE, INFINITE
    steps_at_most = _steps_at_most(ranking)
    for place, number in enumerate(line):
        if place == laid:
            steps.append(ranking.step(number))
            laid += 1
        (
            group,
            at_best,
            slack,
            fixed,
            egress,
            per_input,
            per_output,
            round_trip,
            per_token,
            shortest,
            reference,
            speed,
            idle,
            committed,
            most,
        ) = steps[place]
        if at_best > past:
            break
        if group.filled != filled or group.stale:
            groups.at(number, state)
        heads = group.heads
        high = group.high
        if heads and at_best + (heads[0][0] - idle) - (high - 1.0) * slack > past:
            continue
        prefill = per_token * tokens
        if prefill < shortest:
            prefill = shortest
        base = fixed + answer * egress
        money = tokens * per_input + answer * per_output
        least, more = base if committed else base + money, prefill - reference
        if more > 0.0:
            least, more = least + group.low * more, 0.0
        begin = 0
        while True:
            for entry in heads[begin:] if begin else heads:
                key, row, slot, work, factor, slow, _ = entry
                bound = least + key
                if more:
                    # As `Group.least_for` says.
                    most_factor = (key + speed) / reference
                    bound += (most_factor if most_factor < high else high) * more
                if bound >= level and (bound > past or row > last):
                    break
                visited.append(entry)
                if most < INFINITE and flying[slot] >= most:
                    look.full += 1
                    continue
                at_node = work + factor * prefill
                worth = base + at_node - speed / slow
                if not committed or flying[slot] >= committed:
                    worth += money
                if worth > floor:
                    return None
                item = (worth, row, at_node, number)
                insort(found, item)
                if worth < limit or (worth == limit and row < last):
                    if found[0] is item:
                        near = worth + (near_seconds + near_ratio * (round_trip + at_node))
                    size = len(found)
                    if size > wanted:
                        limit, last = near, NOBODY
                        if size > leaders:
                            edge, there, _, _ = found[leaders]
                            if edge <= limit:
                                limit, last = edge, there
                        edge, there, _, _ = found[wanted]
                        if edge > limit or (edge == limit and there > last):
                            limit, last = edge, there
                        level, past = limit - LEVEL_SECONDS, limit + LEVEL_SECONDS
            else:
                key, row = group.floor
                bound = least + group.least_for(key, more)
                if key < INFINITE and bound <= past and (bound < level or row <= last):
                    # Of those who are not known yet some may matter.
                    if not group.deepen():
                        return False
                    begin, heads = len(heads), groups.at(number, state).heads
                    continue
            break
        if len(visited) > steps_at_most:
            return False
    _visit_heads(look, state)
    return True


def _descend(look: Look, state: State, leaders: Sequence[int], cached: Mapping[int, float]) -> bool:
    """`_go_down`, whatever is known of the prompt and its session."""
    ranking = look.ranking
    groups, visited, only = ranking.groups, look.visited, ranking.only
    early: set[int] = set()
    known: set[int] = set()
    if cached or leaders:
        numbers = {slot: groups.number(slot) for slot in (*cached, *leaders)}
        early = {slot for slot, number in numbers.items() if number >= 0 and (only is None or only[number])}
        known = {numbers[slot] for slot in early}
        _visit(look, state, sorted(early), cached)
    made, filled, at_best, slack = groups.made, groups.filled, ranking.at_best, ranking.slack
    steps_at_most = _steps_at_most(ranking)
    for number in ranking.line:
        bound = at_best[number]
        if bound > look.limit + LEVEL_SECONDS:
            break
        group = made.get(number)
        if group is None or group.filled != filled or group.stale:
            group = groups.at(number, state)
        heads: Sequence[Entry] = group.heads
        # What runs there adds at least this to its best.
        if (
            heads
            and bound + (heads[0][0] - group.idle) - (group.high - 1.0) * slack[number] > look.limit + LEVEL_SECONDS
        ):
            continue
        begin = 0
        while True:
            entries = heads[begin:] if begin else heads
            if number in known:
                entries = [entry for entry in entries if entry[2] not in early]
            if look.at(number, group, entries, floor=group.floor):
                break
            # Of those who are not known yet some may matter.
            if not group.deepen():
                return False
            begin, heads = len(heads), groups.at(number, state).heads
        if len(visited) > steps_at_most:
            return False
    _visit_heads(look, state)
    return True


def _steps_at_most(ranking: Ranking) -> int:
    return max(MAX_STEPS, min(MOST_STEPS, len(ranking.rows) // ROWS_A_STEP))


def _visit_heads(look: Look, state: State) -> None:
    """Looks at one of each failure domain that the alternatives still lack."""
    ranking = look.ranking
    if not look.wanted or len(ranking.heads) <= 1:
        return
    zone, region = ranking.zone, ranking.region
    numbers = {each[3] for each in look.found}
    seen = {zone[number] for number in numbers}
    regions = {region[number] for number in numbers}
    # Whoever was fit is of a zone that is seen.
    unfit = {entry[1] for entry in look.visited} if look.full or look.low else ()
    for number in ranking.heads:
        if len(seen) > look.wanted and len(regions) > 1:
            break
        if zone[number] not in seen:
            seen.add(zone[number])
            regions.add(region[number])
            group = ranking.groups.at(number, state)
            look.open()
            look.at(number, group, [head for head in group.heads[:1] if head[1] not in unfit])
