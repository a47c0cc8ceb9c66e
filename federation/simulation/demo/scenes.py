"""The five scenes. Each breaks or asks something, waits until the control plane's decisions show it, and checks them.

Shares are judged with margins that chance and a slow machine do not reach; everything else is waited for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from federation.cli.figures import duration, enum_word, share
from federation.simulation.demo.asking import all_answered, answered, explained, predicted_seconds
from federation.simulation.demo.checks import expect, until
from federation.simulation.demo.gateway import FIRST_TOKEN_SECONDS, STALL_SECONDS, Ask, Sent, node_of
from federation.simulation.demo.load import got, shares
from federation.simulation.demo.world import World

# Decisions that a share is taken of.
ENOUGH = 20
SLOWER = 10
# More than the failures in a row that open a circuit.
FLYING = 6
# Answers of the killed node, so that enough of them are under way.
LONG_ANSWER_TOKENS = 48
SHORT_ANSWER_TOKENS = 16
# What leaves a node out because it does not answer.
DOWN = ("unhealthy", "circuit_open", "ejected")


@dataclass(frozen=True, slots=True)
class Scene:
    """`play` raises NotShown where what it promises was not to be seen."""

    title: str
    promise: str
    play: Callable[[World], Awaitable[None]]


async def normal_choice(world: World) -> None:
    """Short prompts stay at home; a long one crosses an ocean where that is faster."""
    fleet, screen = world.fleet, world.screen
    home, away = fleet.regions[0].region_id, fleet.regions[2].region_id
    for origin in (home, away):
        sent = await explained(world, Ask(origin))
        assert sent.decision is not None
        target, alternatives = sent.decision.target, sent.decision.alternatives
        expect(target.region_id == origin, f"a target in {origin}, where the request comes from", target.deployment)
        others = [each.region_id for each in alternatives if each.region_id != origin]
        expect(bool(others), "an alternative in another region", [each.deployment for each in alternatives])
        screen.shown(f"a node next to the caller is chosen, in {origin}; {others[0]} stands by")
    sent = await explained(world, Ask(away, prompt_tokens=3500))
    assert sent.decision is not None
    target = sent.decision.target
    near = min(predicted_seconds(each.target) for each in sent.decision.candidates if each.target.region_id == away)
    far = predicted_seconds(target)
    expect(target.region_id != away, f"a faster node outside {away} for a long prompt", target.deployment)
    expect(far < near, "the far node to be expected sooner than every near one", f"{far:.3f} s against {near:.3f} s")
    screen.shown(
        f"{node_of(target)} is {duration(fleet.round_trip(away, target.region_id))} away and still sooner: "
        f"{duration(far)} against {duration(near)} for the best of {fleet.place(away)}"
    )


async def slow_node(world: World) -> None:
    """An engine gets ten times slower: its share goes, and decisions say why."""
    fleet, screen = world.fleet, world.screen
    origin = fleet.regions[2].region_id
    place = fleet.place(origin)
    local = [node.name for node in fleet.nodes_of(origin)]
    rates = {region.region_id: 1.0 for region in fleet.regions} | {origin: 5.0}
    started = world.clock()
    async with world.load.coming(rates):
        with screen.waiting(f"requests come, 5 a second of them from {place}"):
            before = await world.until_decided(ENOUGH, origin, started)
        was = shares(before)
        slow = max(local, key=lambda node: was.get(node, 0.0))
        screen.event(f"{len(before)} decisions for requests from {place} while all is well:")
        screen.got(got(before))
        expect(was.get(slow, 0.0) >= 0.25, f"one node of {origin} with at least a quarter of its requests", was)
        await world.control(slow, speed=1 / SLOWER)
        broken = world.clock()
        screen.event(f"made {slow} {SLOWER} times slower", "yellow")

        async def found_out() -> tuple[bool, object]:
            health = await world.health(slow)
            state = enum_word(health, "state")
            return state == "degraded" and "later than predicted" in health.reason, f"{state}, {health.reason}"

        await until(f"{slow} degraded because its answers come late", found_out)
        noticed = world.clock()
        screen.event(f"found out after {duration(noticed - broken)}: {(await found_out())[1]}", "yellow")
        others = tuple(node.name for node in fleet.nodes if node.name != slow)
        alone = await world.gateway.decide(Ask(origin, exclude_nodes=others))
        with screen.waiting("requests come as before"):
            after = await world.until_decided(ENOUGH, origin, noticed)
        now = shares(after).get(slow, 0.0)
        screen.event(f"the next {len(after)} decisions for requests from {place}:")
        screen.got(got(after))
        screen.event(f"asked for {slow} alone: {alone.reasoning}")
        expect("times late" in alone.reasoning, "a reasoning that says how late answers have been", alone.reasoning)
        expect(
            now <= min(0.15, was[slow] / 3),
            f"{slow} with at most 15%, and a third of its share of {was[slow]:.0%}",
            f"{now:.0%}",
        )
        await world.control(slow, speed=1.0)
    all_answered(world.load.sent, started)
    screen.shown(f"the slow node's share went from {share(was[slow])} to {share(now)}")


def _trial(sent: Sent) -> bool:
    """Whether it was sent to see if a node is well again."""
    return sent.decision is not None and "recovering" in sent.decision.reasoning


async def killed_node(world: World) -> None:
    """An engine is killed under load: its circuit opens, callers do not notice; trials bring it back, slowly."""
    fleet, screen = world.fleet, world.screen
    origin = fleet.regions[0].region_id
    node = fleet.nodes_of(origin)[0]
    started = world.clock()
    async with world.load.coming({origin: 8.0}, answer_tokens=LONG_ANSWER_TOKENS):

        async def busy() -> tuple[bool, object]:
            flying = world.gateway.in_flight[node.name]
            return flying >= FLYING, f"{flying} requests under way"

        with screen.waiting(f"requests come, 8 a second from {fleet.place(origin)}"):
            await until(f"{FLYING} requests under way at {node.name}", busy)
        flying = world.gateway.in_flight[node.name]
        world.machines.kill_engine(node)
        killed = world.clock()
        screen.event(f"killed the engine of {node.name} (SIGKILL) with {flying} requests under way there", "yellow")
        world.load.answer_tokens = SHORT_ANSWER_TOKENS

        async def out() -> tuple[bool, object]:
            circuit = await world.circuit(node.name)
            state = enum_word(circuit, "state")
            left_out = node.name not in await world.eligible(Ask(origin))
            return state == "open" and left_out, f"{state}, {circuit.reason}" + ("" if left_out else "; still eligible")

        await until(f"an open circuit of {node.name}, and decisions without it", out, 10.0)
        opened = world.clock()
        screen.event(f"out after {duration(opened - killed)}: {(await out())[1]}", "yellow")
        later = await world.until_decided(8, origin, opened)
        assert later[0].decision is not None
        screen.event(f"a decision now: {later[0].decision.reasoning}")
        sent_there = [each.story for each in later if each.target == node.name]
        expect(not sent_there, f"no decision for {node.name} while its circuit is open", sent_there)
        await world.machines.start_engine(node)
        screen.event(f"started the engine of {node.name} again, at the same address", "yellow")
        await _comes_back(world, node.name, origin, opened)
    asked, retried = all_answered(world.load.sent, started)
    expect(retried > 0, "requests that took an alternative", retried)
    screen.shown(
        f"{asked} callers had their answers, {retried} by an alternative; the node was out after "
        f"{duration(opened - killed)} and came back by trials and a slow start"
    )


async def _comes_back(world: World, node: str, origin: str, opened: float) -> None:
    """Follows a node from its open circuit through trials and slow start to ordinary requests."""
    screen, states = world.screen, ["open"]

    async def closed() -> tuple[bool, object]:
        state = enum_word(await world.circuit(node), "state")
        if state != states[-1]:
            states.append(state)
        return state == "closed", " -> ".join(states)

    with screen.waiting("waiting for trials"):
        await until(f"a closed circuit of {node}", closed)
    path, back = " -> ".join(states), world.clock()
    trials = [each for each in world.load.sent if _trial(each) and each.target == node and each.asked_at >= opened]
    expect("half_open" in states, "a circuit that was half-open before it closed", path)
    expect(len(trials) >= 3, "at least 3 trials", len(trials))
    assert trials[0].decision is not None
    screen.event(f"{path} after {len(trials)} trials, the first: {trials[0].decision.reasoning}")

    scores: list[float] = []

    async def chosen() -> tuple[bool, object]:
        score = await world.health_score(node, origin)
        scores.append(score)
        usual = [each for each in world.load.sent if each.target == node and each.asked_at >= back and not _trial(each)]
        return len(usual) >= 2, f"{len(usual)} ordinary requests, health score {score:.2f}"

    with screen.waiting("waiting for the slow start"):
        await until(f"ordinary requests for {node} again", chosen)
    # The first ones may be of a table from before the circuit closed.
    low, high = min(scores), scores[-1]
    expect(low < 0.6 < high, "a health score that starts low and rises", f"{low:.2f}, then {high:.2f}")
    screen.event(
        f"slow start: its health score was {low:.2f} when the circuit closed; it is {high:.2f} "
        f"{duration(world.clock() - back)} later, and ordinary requests go there again"
    )


async def cut_region(world: World) -> None:
    """A region stops answering: its callers are served from elsewhere, and by it again when it is back."""
    fleet, screen = world.fleet, world.screen
    origin = fleet.regions[1].region_id
    machines = fleet.nodes_of(origin)
    nodes = [node.name for node in machines]
    started = world.clock()
    async with world.load.coming({origin: 4.0}):
        with screen.waiting(f"requests come, 4 a second from {fleet.place(origin)}"):
            before = await world.until_decided(8, origin, started)
        at_home = sum(each.target in nodes for each in before)
        expect(at_home * 2 >= len(before), f"most requests from {origin} served there", shares(before))
        for node in machines:
            world.machines.freeze_engine(node)
        cut = world.clock()
        screen.event(
            f"cut {origin}: its {len(nodes)} engines are stopped (SIGSTOP), so that connections hang. The gateway "
            f"gives up on a first token after {FIRST_TOKEN_SECONDS:g} s, on the next after {STALL_SECONDS:g} s",
            "yellow",
        )

        async def all_out() -> tuple[bool, object]:
            codes = {node: await world.rejection(node, origin) for node in nodes}
            return all(code in DOWN for code in codes.values()), codes

        with screen.waiting("waiting until the control plane gives up on it"):
            await until(f"all nodes of {origin} left out", all_out)
        out = world.clock()
        hit = sum(each.target in nodes and each.asked_at >= cut for each in world.load.sent)
        screen.event(
            f"all of it is left out after {duration(out - cut)}; {hit} requests went there until then", "yellow"
        )
        after = await world.until_decided(8, origin, out)
        screen.event(f"the next {len(after)} decisions for requests from {fleet.place(origin)}:")
        screen.got(got(after))
        decision = after[-1].decision
        assert decision is not None
        world.to_explain = decision.decision_id
        screen.event(f"why: {decision.reasoning}")
        inside = [each.story for each in after if each.target in nodes and not _trial(each)]
        expect(not inside, f"no decision for {origin} but trials", inside)
        counted = sum(decision.rejected.get(code.upper(), 0) for code in DOWN)
        expect(counted == len(nodes), "a decision that counts those that do not answer", dict(decision.rejected))

        async def settled() -> tuple[bool, object]:
            left = {node: world.gateway.in_flight[node] for node in nodes}
            return not any(left.values()), left

        await until(f"the gateway to have given up on {origin}", settled)
        for node in machines:
            world.machines.thaw_engine(node)
        back = world.clock()
        screen.event(f"{origin} is back", "yellow")

        async def at_home_again() -> tuple[bool, object]:
            usual = [
                each
                for each in world.load.sent
                if each.asked_at >= back and each.served_by in nodes and not _trial(each)
            ]
            return len(usual) >= 3, f"{len(usual)} ordinary requests served there"

        with screen.waiting("waiting until it serves its callers again"):
            await until(f"3 ordinary requests from {origin} served there", at_home_again)
        returned = world.clock() - back
    asked, retried = all_answered(world.load.sent, started)
    screen.shown(
        f"traffic moved to other regions, and came back {duration(returned)} after the region did; {asked} callers had "
        f"their answers, {retried} by an alternative"
    )


async def confidential(world: World) -> None:
    """A confidential request has one place to go, and without it none: it is refused with the reason."""
    fleet, screen = world.fleet, world.screen
    node = fleet.confidential
    ask = Ask(fleet.regions[0].region_id, confidential=True)

    async def well() -> tuple[bool, object]:
        health = await world.health(node.name)
        circuit = enum_word(health.deployments[0].circuit, "state")
        eligible = await world.eligible(ask)
        return circuit == "closed" and eligible == [node.name], f"circuit {circuit}, eligible {eligible}"

    await until(f"{node.name} alone to take confidential requests", well)
    sent = await explained(world, ask)
    assert sent.decision is not None
    rejected = dict(sent.decision.rejected)
    expect(sent.served_by == node.name, f"{node.name}, the only node that may serve it", sent.served_by)
    expect(rejected == {"PRIVACY": len(fleet.nodes) - 1}, "all other nodes left out for PRIVACY", rejected)
    expect(not sent.decision.alternatives, "no alternative", [each.deployment for each in sent.decision.alternatives])
    world.machines.kill_engine(node)
    screen.event(f"killed the engine of {node.name}", "yellow")
    await _refused(world, ask, "ALL_NODES_UNHEALTHY")
    world.machines.end_agent(node)
    screen.event("ended its agent, which takes the node back", "yellow")
    await _refused(world, ask, "PRIVACY_VIOLATION")
    ordinary = await answered(world, Ask(ask.origin))
    screen.event(f"an ordinary request at the same time is answered by {ordinary.served_by}")
    screen.shown("a confidential request goes to the one node that may serve it, or nowhere")


async def _refused(world: World, ask: Ask, reason: str) -> None:
    """Waits for a refusal with a reason, and prints it."""

    async def look() -> tuple[bool, object]:
        error = await world.refusal(ask)
        return error is not None and error.reason == reason, error or "a decision"

    await until(f"confidential requests refused with {reason}", look)
    world.screen.event(f"refused: {(await look())[1]}")


SCENES = (
    Scene("a normal choice", "Near nodes first, unless a far one is sooner.", normal_choice),
    Scene("a slow node", "An engine that answers late loses its share, and decisions say why.", slow_node),
    Scene("a killed node", "Its circuit opens; callers do not notice; it comes back by degrees.", killed_node),
    Scene("a cut region", "Traffic moves to other regions and comes back.", cut_region),
    Scene("a confidential request", "It finds the one node that may serve it, or is refused.", confidential),
)
