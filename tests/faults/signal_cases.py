"""Faults of what is known of nodes: one that comes and goes, and signals that stand still."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from federation.v1 import fleet_pb2, policy_pb2, routing_pb2
from policies.health import CircuitState
from policies.policy import Policy
from tests.builders import MODEL
from tests.faults.cases import engines, routes
from tests.faults.crew import enrolled
from tests.faults.lives import Life
from tests.faults.regions import ANSWER_NANOS, ANSWER_TOKENS, FIRST_TOKEN_NANOS, PROMPT_TOKENS, Place, until
from tests.faults.scale import Measured, Scale
from tests.faults.stage import REGION, Stage
from tests.federation.server import Engine

# A policy that asks everybody in turn: one that looks at who answers late leaves a node that fails before its circuit
# opens, and there is nothing to see.
TURNS = "turns"
FLAPPER = "n0"
UP_SECONDS, DOWN_SECONDS = 2.0, 2.0
WINDOW_SECONDS = 10.0
MOST_CHANGES = 4
STEADY = 0.05


@dataclass
class Flapping:
    """What was seen of a node that comes and goes: what was published of it, and who got its neighbours' calls."""

    nodes: int
    # Its grade, or that it is out of routing, as it changed.
    published: list[str] = field(default_factory=list)
    # Seconds until a trial, as told when its circuit opened.
    opened: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    _windows: dict[int, Counter[str]] = field(default_factory=dict)

    def saw(self, grade: str, opened_seconds: float | None, *, out: bool) -> None:
        """What is published now. A circuit that is half-open is out: it gets single trials."""
        state = "OUT" if out else grade
        if self.published[-1:] != [state]:
            self.published.append(state)
        if opened_seconds is not None:
            self.opened.append(opened_seconds)

    def took(self, node: str, seconds: float) -> None:
        """A call that a node got, so long after the begin."""
        self.calls += 1
        self._windows.setdefault(int(seconds / WINDOW_SECONDS), Counter())[node] += 1

    @property
    def changes(self) -> int:
        return len(self.published) - 1

    @property
    def unsteady(self) -> float:
        """The most by which a neighbour's share of its neighbours' calls was off an equal one, in any window."""
        worst = 0.0
        for window in self._windows.values():
            counts = [count for node, count in window.items() if node != FLAPPER]
            if sum(counts) >= 100:
                counts += [0] * (self.nodes - 1 - len(counts))
                worst = max(worst, *(abs(count / sum(counts) - 1 / (self.nodes - 1)) for count in counts))
        return worst

    @property
    def doubles(self) -> bool:
        """Whether each time open was twice the one before, up to 300 s; jitter takes or adds a tenth of each."""
        wanted = [min(300.0, 30.0 * 2**number) for number in range(len(self.opened))]
        return all(0.88 * each <= told <= 1.12 * each for each, told in zip(wanted, self.opened, strict=True))

    @property
    def met(self) -> bool:
        return not self.refused and self.changes <= MOST_CHANGES and self.doubles and self.unsteady <= STEADY

    def told(self) -> str:
        times = ", ".join(f"{seconds:.0f}" for seconds in self.opened)
        return (
            f"{self.refused.total()} of {self.calls + self.refused.total()} failed{dict(self.refused) or ''}; "
            f"{self.changes} published changes ({', '.join(self.published).lower()}); circuit open for {times} s; "
            f"neighbours' shares within {self.unsteady:.1%} of equal"
        )


def flapping_in_virtual_time(seed: int, seconds: float, rate: float, nodes: int = 10) -> Flapping:
    """A node that is up for two seconds and down for two, on one region's real parts."""
    seen = Flapping(nodes)
    name = f"{REGION}/{FLAPPER}"
    policies = {TURNS: Policy(TURNS, picker="round_robin")}
    stage = Stage([f"{REGION}/n{number}" for number in range(nodes)], seed, policies=policies)
    stage.advance(30.0)
    begin, opens = stage.now, 0
    while (passed := stage.now - begin) < seconds:
        stage.nodes[name].well = passed % (UP_SECONDS + DOWN_SECONDS) < UP_SECONDS
        record = stage.ask(policy_id=TURNS)
        if record is None:
            seen.refused["refused"] += 1
        else:
            seen.took(record.names()[0].split("/")[1], passed)
        stage.advance(1.0 / rate)
        health = stage.installer.health[f"{name}/{MODEL}"]
        circuit = health.circuit
        told = circuit.retry_at - stage.now if circuit.opens_total > opens else None
        opens = circuit.opens_total
        out = circuit.state is not CircuitState.CLOSED or health.ejected_until > stage.now
        seen.saw(health.grade.name, told, out=out)
    return seen


async def flapping(directory: Path, scale: Scale) -> Measured:
    """The same on a running server with the default settings, in real time."""
    flags = {"store.url": f"sqlite:///{directory / 'fairway.db'}"}
    life = await Life.begin(flags, directory / "log")
    async with grpc.aio.insecure_channel(life.address) as channel, engines(scale.nodes) as servers:
        place = Place("local", life, channel)
        for number, server in enumerate(servers):
            await enrolled(place, f"n{number}", server.url)
        policy = policy_pb2.Policy(policy_id=TURNS, document_json='{"picker":"round_robin"}')
        await place.policy.PutPolicy(policy_pb2.PutPolicyRequest(policy=policy))
        await until(lambda: routes(place))
        await until(lambda: healthy(place, scale.nodes))
        callers = Callers(place, servers, Flapping(scale.nodes))
        tasks = [asyncio.create_task(callers.watch()), asyncio.create_task(callers.report())]
        await callers.call(scale.flap_seconds, scale.flap_rate)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await life.end()
    seen = callers.seen
    return Measured(
        "10",
        f"one of {scale.nodes} nodes is up for {UP_SECONDS:g} s and down for {DOWN_SECONDS:g} s, for "
        f"{scale.flap_seconds:g} s; policy round_robin, default settings",
        f"{scale.flap_rate:g}/s",
        f"0 failed; at most {MOST_CHANGES} published changes (grade, or out); open for 30, 60, 120 s; neighbours' "
        f"shares within {STEADY:.0%}",
        seen.told(),
        seen.met,
    )


async def healthy(place: Place, count: int) -> bool:
    answer = await place.fleet.ListNodeHealth(fleet_pb2.ListNodeHealthRequest(page_size=1000))
    return [node.state for node in answer.nodes].count(fleet_pb2.HEALTH_STATE_HEALTHY) == count


@dataclass
class Callers:
    """Calls at a rate; whose node is down reports so."""

    place: Place
    servers: list[Engine]
    seen: Flapping
    begin: float = 0.0
    over: list[routing_pb2.Outcome] = field(default_factory=list)

    async def call(self, seconds: float, rate: float) -> None:
        due = self.begin = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            while (passed := due - self.begin) < seconds:
                self.servers[0].status = 200 if passed % (UP_SECONDS + DOWN_SECONDS) < UP_SECONDS else 500
                calls.create_task(self._call())
                due += 1.0 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _call(self) -> None:
        try:
            decision = await self.place.route(policy_id=TURNS)
        except grpc.aio.AioRpcError as error:
            self.seen.refused[f"{error.code().name} {(error.details() or '')[:80]}"] += 1
            return
        node = decision.target.node_id
        self.seen.took(node, time.monotonic() - self.begin)
        outcome = routing_pb2.Outcome(decision_id=decision.decision_id, phase=routing_pb2.OUTCOME_PHASE_FINISHED)
        if self.servers[int(node[1:])].status == 200:
            outcome.result = routing_pb2.OUTCOME_RESULT_OK
            outcome.latency.nanos, outcome.time_to_first_token.nanos = ANSWER_NANOS, FIRST_TOKEN_NANOS
            outcome.input_tokens, outcome.output_tokens = PROMPT_TOKENS, ANSWER_TOKENS
        else:
            outcome.result = routing_pb2.OUTCOME_RESULT_UNREACHABLE
        self.over.append(outcome)

    async def report(self) -> None:
        """Until cancelled; what was not taken is reported again."""
        while True:
            await asyncio.sleep(0.05)
            over = self.over[:1_000]
            with suppress(grpc.aio.AioRpcError):
                if over:
                    await self.place.routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=over))
                    del self.over[: len(over)]

    async def watch(self) -> None:
        """Until cancelled: what is published of the node."""
        opens = 0
        async for message in self.place.fleet.WatchFleet(fleet_pb2.WatchFleetRequest()):
            for node in message.nodes:
                if node.node_id == FLAPPER:
                    (deployment,) = node.deployments
                    circuit = deployment.circuit
                    told = circuit.retry_after.ToTimedelta().total_seconds() if circuit.opens_total > opens else None
                    opens = circuit.opens_total
                    out = circuit.state != fleet_pb2.CIRCUIT_STATE_CLOSED or deployment.ejected
                    self.seen.saw(fleet_pb2.HealthState.Name(node.state).removeprefix("HEALTH_STATE_"), told, out=out)


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of calls while signals stood still. Shares are of all calls of a phase."""

    refused: int
    # Of the one whose page stands still at "idle", while it answers late, and when all the others are dead.
    late: float
    last: float
    # While everything stands still: calls that stayed at home, that went to one that fails, and that were told so.
    home: float
    failing: float
    flagged: float

    def met(self, nodes: int) -> bool:
        return (
            self.refused == 0
            and self.late < 1 / nodes
            and self.last > 0.99
            and self.home == 1.0
            and self.failing < 0.02
            and self.flagged == 1.0
        )


def standing_still(seed: int, seconds: float, rate: float, nodes: int = 5) -> Standing:
    """Two regions, of which one is home. First one metrics page stands still, then nothing tells anything but calls."""
    home = [f"{REGION}/n{number}" for number in range(nodes)]
    stage = Stage(home + [f"us/n{number}" for number in range(nodes)], seed)
    first, *others = home
    refused = flagged = 0

    def calls() -> Counter[str]:
        nonlocal refused, flagged
        found: Counter[str] = Counter()
        flagged = 0
        for _ in range(int(seconds * rate)):
            record = stage.ask()
            if record is None:
                refused += 1
            else:
                found[record.names()[0].rpartition("/")[0]] += 1
                flagged += REGION in record.table.stale_regions
            stage.advance(1.0 / rate)
        return found

    for name in others:
        stage.nodes[name].waiting = 2.0
    stage.advance(15.0)
    calls()
    # It told last that nobody waits there, and is busy from now on.
    stage.nodes[first].page, stage.nodes[first].first_token_seconds = False, 0.5
    late = calls()[first]
    stage.nodes[first].first_token_seconds = 0.05
    dead = [name for name in stage.nodes if name != first]
    for name in dead:
        stage.nodes[name].well = False
    calls()
    last = calls()[first]
    for name in dead:
        stage.nodes[name].well = True
    for node in stage.nodes.values():
        node.silent = True
    # Longer than signals count.
    stage.advance(60.0)
    stage.nodes[others[0]].well = False
    calls()
    found = calls()
    asked = int(seconds * rate)
    away = sum(count for name, count in found.items() if name not in home)
    return Standing(refused, late / asked, last / asked, 1.0 - away / asked, found[others[0]] / asked, flagged / asked)


async def stale(directory: Path, scale: Scale) -> Measured:
    """Seeds of the above."""
    nodes, rate = 5, 100.0
    found = [standing_still(seed, scale.stale_seconds, rate, nodes) for seed in range(1, scale.stale_seeds + 1)]
    return Measured(
        "25",
        f"the page of one of {nodes} nodes stands still at idle, then no probe, page or heartbeat comes any more; "
        f"virtual time, seeds 1 to {len(found)}",
        f"{rate:g}/s, phases of {scale.stale_seconds:g} s",
        f"0 failed; the one never preferred (under {1 / nodes:.0%}), but used where it is the last; with all still: by "
        "locality and outcomes, flag set",
        f"{sum(each.refused for each in found)} failed; the one got {max(each.late for each in found):.1%} at most, "
        f"and {min(each.last for each in found):.1%} as the last; all still: "
        f"{min(each.home for each in found):.0%} at home, {max(each.failing for each in found):.1%} to one that fails, "
        f"{min(each.flagged for each in found):.0%} flagged",
        all(each.met(nodes) for each in found),
    )
