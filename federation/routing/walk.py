"""The walk: decides by visiting few candidates of a ranking, from the top.

Scalar twin of `policies.pipeline.judge` and `choose`; a property test holds its choice against theirs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from federation.routing.ranking import Ranking, Scalars
from federation.routing.state import State
from policies import chance
from policies.pipeline import Selection, alternatives
from policies.policy import Policy

# Past so many, one pass over the columns is cheaper than walking on.
MAX_STEPS = 64


@dataclass(frozen=True, slots=True)
class Walked:
    """What a walk found: a selection in places of the ranking, and whom it visited for it."""

    selection: Selection
    # Seconds that the target's node would take to the first token.
    at_node: float
    visited: list[int]
    full: int  # Visited and without room.
    low: int  # Visited and under the least score.
    # Whether one pass over all columns said whom to visit.
    swept: bool


def walk(
    ranking: Ranking,
    scalars: Scalars,
    state: State,
    policy: Policy,
    tokens: int,
    answer: int,
    seed: int,
    session_slot: int,
    wanted: int,
    cached: Mapping[int, float],
    session_id: str,
    names: Sequence[str],
    swept: bool = False,
) -> Walked | None:
    """Decides by visiting from the top; None where the whole pipeline must decide, for instance where nobody is fit.

    Means the same as `pipeline.judge` and `choose` over the rows that pass.  It visits in this order: where the prompt
    is cached and where the session is, then down the list until nobody further down can be as good as the best or as
    an alternative, then the first of each failure domain where the alternatives still lack one.

    Under load good routing fills every node to the same level, and a walk would visit them all.  So where it does not
    end soon it begins anew, `swept`: one pass over the columns of `sweep.py` names the few that do best now.
    """
    if not swept and ranking.sweep.crowded:
        swept = True
    slowdown, sequence_tokens = policy.batch_slowdown, policy.assume.output_tokens
    pending, in_flight, running = state.pending, state.in_flight, state.running
    wait, suspicion = state.wait, state.suspicion
    rows, at_best, slots = ranking.rows, ranking.at_best, scalars.slot
    regions = scalars.domains.place
    bounded = policy.min_score > 0.0 and not ranking.panic
    floor = -policy.min_score * ranking.weight_sum / ranking.per_second if bounded else float("inf")
    # Seconds, place, seconds at the node.
    found: list[tuple[float, int, float]] = []
    visited: list[int] = []
    best, margin = float("inf"), 0.0
    full = low = 0
    session = _place_of(ranking, scalars, session_slot) if session_slot >= 0 else -1
    early: list[int] = []
    if cached or session >= 0:
        early = sorted({_place_of(ranking, scalars, slot) for slot in cached} | {session})
        early = [place for place in early if place >= 0]
    heads: Iterator[int] = iter(())
    line: Sequence[int] = range(len(rows))
    if swept:
        line, full = ranking.sweep.shortlist(state, policy, tokens, answer, cached)
    size, number, down = len(line), 0, True
    while True:
        if number < len(early):
            place = early[number]
        elif down:
            step = number - len(early)
            place = line[step] if step < size else -1
            bound = at_best[place] if place >= 0 else float("inf")
            if place < 0 or (
                not swept and bound > best + margin and sum(worth <= bound for worth, _, _ in found) > wanted
            ):
                down = False
                if wanted and len(ranking.heads) > 1:
                    seen = set(visited)
                    heads = iter([head for head in ranking.heads if head not in seen])
                continue
            if early and place in early:
                number += 1
                continue
        else:
            place = next(heads, -1)
            if place < 0:
                break
        number += 1
        visited.append(place)
        if len(visited) > MAX_STEPS and not swept:
            ranking.sweep.crowded = True
            return walk(
                ranking,
                scalars,
                state,
                policy,
                tokens,
                answer,
                seed,
                session_slot,
                wanted,
                cached,
                session_id,
                names,
                swept=True,
            )
        row = rows[place]
        slot = slots[row]
        flying = in_flight[slot]
        if flying >= scalars.limit[row]:
            full += not swept
            continue
        batch, per_token, decode = scalars.batch[row], scalars.per_token[row], scalars.decode[row]
        busy = max(flying, running[slot])
        slow = 1.0 + slowdown * min(busy / batch, 1.0)
        hits = cached.get(slot, 0.0) if cached else 0.0
        prefill = max(per_token * (tokens - hits), scalars.least[row])
        at_node = (pending[slot] * per_token + prefill) * slow + wait[slot]
        queue = busy - batch + 1.0
        if queue > 0.0:
            at_node += queue * (sequence_tokens / decode / batch)
        trusted = at_node
        at_node *= suspicion[slot]
        region = regions[row]
        first = ranking.round_trip[region] + at_node
        dollars = 0.0
        if flying >= scalars.committed[row]:
            dollars = (
                (tokens - hits) * scalars.input_price[row]
                + hits * scalars.cached_price[row]
                + answer * scalars.output_price[row]
            )
        dollars = scalars.priced[row] * (dollars + answer * ranking.egress[region])
        worth = (
            first
            + ranking.fixed[place]
            + ranking.dollar_seconds * dollars
            - ranking.throughput_seconds * (decode / slow)
        )
        if worth - at_node + trusted > floor:
            if at_best[place] > floor:
                low += 1
            else:
                full += 1
            continue
        found.append((worth, place, at_node))
        if worth < best:
            best = worth
            margin = policy.near_seconds + policy.near_ratio * first
    if not found:
        return None
    found.sort()
    near = 0
    held = [each for each in found if each[1] == session] if session >= 0 and scalars.best_grade[rows[session]] else []
    if session_slot >= 0 and not held:
        # A session that must move is rare, and has rules of its own.
        return None
    by = "session" if held else "picker"
    if held:
        _, target, at_node = held[0]
    elif policy.picker == "best":
        _, target, at_node = found[0]
    else:
        leaders = found[: policy.max_candidates]
        near = bisect_right(leaders, found[0][0] + margin, key=itemgetter(0))
        if session_id:
            one, two = chance.two_for(session_id, [names[rows[place]] for _, place, _ in leaders[:near]])
        else:
            one, two = chance.two_of(seed, near)
        first_drawn = (found[one][2], one) <= (found[two][2], two)
        _, target, at_node = found[one if first_drawn else two]
    order = [rows[place] for _, place, _ in found]
    others = alternatives(rows[target], order, scalars.domains, wanted)
    places = tuple(ranking.place_of[row] for row in others)
    return Walked(Selection(target, places, by, near), at_node, visited, full, low, swept)


def _place_of(ranking: Ranking, scalars: Scalars, slot: int) -> int:
    """Where a slot stands in a ranking; -1: nowhere."""
    return ranking.place_of.get(scalars.row_of_slot.get(slot, -1), -1)
