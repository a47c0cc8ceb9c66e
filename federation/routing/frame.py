"""Frames: what all decisions of one plan share, laid out for reading one by one; and the draw of two that reads it.

A frame is made once for a plan and answers what would else be asked of each request anew: which steps its policy has at
all, and what of each deployment does not move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from federation.routing.planner import Plan
from federation.routing.ranking import Ranking, Scalars
from federation.routing.spread import Spread
from federation.routing.state import State
from federation.routing.table import Table
from policies.policy import Policy
from policies.pool import IntArray
from policies.registry import Registry

if TYPE_CHECKING:
    from federation.routing.pairs import Laid

# Pools up to this size are remembered whole with each decision; of larger ones, whom a walk visited.
KEEP_ROWS = 64
INFINITE = float("inf")
# Alternatives that are told at most.
MAX_ALTERNATIVES = 16

# Who is suspected of more is drawn to stand in for nobody.
SURE_SUSPICION = 1.5

# Of a group: prefill, least, batch, turn, slow-down, speed, committed, limit; then of the ranking: what is fixed, and
# what a token is worth that is carried out, of the prompt, of the answer; zone and region.
Still = tuple[float, ...]
# A row that was drawn and what the state said of it: pending tokens, requests in flight, running, wait, suspicion and
# turn.
Visit = tuple[int, float, float, float, float, float, float]


@dataclass(slots=True, eq=False)
class Frame:
    """One plan, as decisions read it."""

    replica: str
    registry: Registry
    spread: Spread
    plan: Plan
    table: Table
    policy: Policy
    ranking: Ranking
    scalars: Scalars
    # All of the plan's rows by slot.
    slots: IntArray
    # Whether decisions keep the values of all rows.
    small: bool
    # Whether a walk may decide, and whether it may draw two at once.
    walkable: bool
    paired: bool
    # Seconds past which a candidate scores too low.
    floor: float
    # Rows to draw from.
    drawable: Sequence[int]
    # By group, as far as they were drawn.
    still: list[Still | None]
    # Of the best group of each zone, best first: the zone, the region, and its rows.
    spares: list[tuple[int, int, Sequence[int]]]
    # By row: model, client region and chosen region, as they are counted.
    keys: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    # For reading by columns, once somebody does.
    laid: Laid | None = None

    def key(self, row: int) -> tuple[str, str, str]:
        """Under what a decision for a row is counted."""
        found = self.keys.get(row)
        if found is None:
            deployed = self.table.compiled.deployed[row]
            found = self.keys[row] = (deployed.model_id, self.plan.origin_region, deployed.region_id)
        return found

    def still_of(self, number: int) -> Still:
        """What of a group does not move."""
        ranking, group = self.ranking, self.ranking.groups.one(number)
        found = self.still[number] = (
            group.per_token,
            group.least,
            group.batch,
            group.turn_seconds,
            group.slowdown,
            group.speed,
            group.committed,
            group.limit,
            ranking.fixed[number],
            ranking.egress_seconds[number],
            ranking.input_seconds[number],
            ranking.output_seconds[number],
            ranking.zone[number],
            ranking.region[number],
        )
        return found


def frame_of(replica: str, registry: Registry, spread: Spread, plan: Plan) -> Frame:
    """The frame of a plan."""
    policy, ranking = plan.policy, plan.ranking
    walkable = ranking.walkable
    plain = plan.room is None and policy.spillover is None
    paired = walkable and plain and policy.picker == "power_of_two" and len(ranking.rows) > 1
    heads = ranking.heads if paired and len(ranking.heads) > 1 else []
    bounded = policy.min_score > 0.0 and not ranking.panic
    return Frame(
        replica=replica,
        registry=registry,
        spread=spread,
        plan=plan,
        table=plan.table,
        policy=policy,
        ranking=ranking,
        scalars=plan.scalars,
        slots=plan.table.pool.slot.take(plan.rows),
        small=len(plan.rows) <= KEEP_ROWS,
        walkable=walkable,
        paired=paired,
        floor=-policy.min_score * ranking.weight_sum / ranking.per_second if walkable and bounded else INFINITE,
        drawable=ranking.rows.data,
        still=[None] * len(ranking.groups) if paired else [],
        spares=[(ranking.zone[each], ranking.region[each], ranking.groups.one(each).rows.data) for each in heads],
    )


def draw_two(
    frame: Frame, state: State, tokens: int, answer: int, one: int, two: int, wanted: int
) -> tuple[list[Visit], int, float] | None:
    """`walk` for a picker that draws two: whom it visits, the better one's row, and its seconds at the node.

    `one` and `two` are the seed's first draws.  Nothing is cached and no session bound.  None where the walk itself
    must look closer: both draws are one deployment, or one of them is full or scores low.

    To stand in, it visits one of the best group of each zone that is not drawn from yet, drawn as well, so that nobody
    must know the order within a group.  What those are worth is found when alternatives are asked for.
    """
    rows, slot_of = frame.drawable, frame.scalars.slot
    size = len(rows)
    first, second = rows[(one * size) >> 64], rows[(two * size) >> 64]
    if first == second:
        return None
    numbers, still, floor = frame.ranking.groups.number_of, frame.still, frame.floor
    pending, in_flight, running = state.pending, state.in_flight, state.running
    waits, suspicions, turn = state.wait, state.suspicion, state.turn
    visits: list[Visit] = []
    zones: list[float] = []
    regions: list[float] = []
    best, best_row, best_at_node = INFINITE, -1, 0.0
    for row in (first, second):
        slot = slot_of[row]
        number = numbers[slot]
        (
            per_token,
            least,
            batch,
            turn_seconds,
            slowdown,
            speed,
            committed,
            limit,
            fixed,
            egress,
            per_input,
            per_output,
            zone,
            region,
        ) = still[number] or frame.still_of(number)
        waiting, flying, ran = pending[slot], in_flight[slot], running[slot]
        wait, suspicion = waits[slot], suspicions[slot]
        if flying >= limit:
            return None
        # The same sums in the same order as `Group.entry` and `Look.at`: replays go by those.
        busy = flying if flying > ran else ran
        slow = 1.0 + slowdown * (busy / batch if busy < batch else 1.0)
        work = waiting * per_token * slow + wait
        if (queue := busy - batch + 1.0) > 0.0:
            work += queue * turn_seconds
        prefill = per_token * tokens
        if prefill < least:
            prefill = least
        at_node = work * suspicion + slow * suspicion * prefill
        worth = fixed + answer * egress + at_node - speed / slow
        if not committed or flying >= committed:
            worth += tokens * per_input + answer * per_output
        if worth > floor:
            return None
        visits.append((row, waiting, flying, ran, wait, suspicion, turn[slot]))
        zones.append(zone)
        regions.append(region)
        if worth < best or (worth == best and row < best_row):
            best, best_row, best_at_node = worth, row, at_node
    if not wanted:
        return visits, best_row, best_at_node
    count = 1 + (zones[0] != zones[1])
    away = regions[0] != regions[1]
    for zone, region, members in frame.spares:
        if count > wanted and away:
            break
        if zone in zones:
            continue
        count += 1
        away = away or region != regions[0]
        # Low bits: the high ones drew the first two.
        row = members[((one >> count & 0xFFFF_FFFF) * len(members)) >> 32]
        slot = slot_of[row]
        flying, suspicion = in_flight[slot], suspicions[slot]
        if suspicion > SURE_SUSPICION or flying >= frame.scalars.limit[row]:
            return None
        visits.append((row, pending[slot], flying, running[slot], waits[slot], suspicion, turn[slot]))
    return visits, best_row, best_at_node
