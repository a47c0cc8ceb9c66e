"""The scenes of the full demonstration. Each waits until decisions show what it did, and checks that nobody noticed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from federation.cli.figures import duration
from federation.edge.client import RouteError
from federation.simulation.demo.asking import answered, explained
from federation.simulation.demo.checks import expect, until
from federation.simulation.demo.full.places import Federation, Place
from federation.simulation.demo.full.plan import PEER_LEASE_SECONDS
from federation.simulation.demo.gateway import Ask, Sent
from federation.simulation.demo.load import got

# Decisions before and after each blow.
SOME = 8
# Requests a second from each region that matters.
RATE = 4.0
LEASE_OVER = "peer_lease_expired"


@dataclass(frozen=True, slots=True)
class Scene:
    """`play` raises NotShown where what it promises was not to be seen."""

    title: str
    promise: str
    play: Callable[[Federation], Awaitable[None]]


async def three_regions(all_of_it: Federation) -> None:
    """Each control plane routes at home, knows the others' nodes, and keeps to what their owners declared."""
    fleet, screen = all_of_it.fleet, all_of_it.screen
    for place in all_of_it.places:
        sent = await explained(place, Ask(place.id))
        assert sent.decision is not None
        target = sent.decision.target
        abroad = [each.deployment for each in sent.decision.alternatives if each.region_id != place.id]
        expect(target.region_id == place.id, f"a target in {place.id}, where it was asked", target.deployment)
        expect(bool(abroad), "an alternative of another control plane", sent.decision.alternatives)
        screen.shown(f"{place.name} serves its caller; {abroad[0]} stands by, owned by another control plane")
    tokyo, vault = all_of_it.places[-1], fleet.confidential
    await _confidential_goes_to(tokyo, vault.name)
    screen.shown(f"a confidential prompt asked in {tokyo.name} goes where its owner, {vault.region_id}, allows it")
    _show_peers(all_of_it, tokyo)


async def killed_replica(all_of_it: Federation) -> None:
    """A replica is killed under load: its callers go on with its sibling, and it is one of two again."""
    machines, screen, place = all_of_it.machines, all_of_it.screen, all_of_it.places[0]
    victim, sibling = machines.names(place.id)
    started = all_of_it.clock()
    async with place.load.coming({place.id: 2 * RATE}):
        before = await place.until_decided(2 * SOME, started)
        expect(len(_deciders(before)) == 2, "decisions of both replicas", _deciders(before))
        machines.kill_replica(victim)
        killed = all_of_it.clock()
        screen.event(f"killed {victim} (SIGKILL), one of two that decided in {place.name}", "yellow")
        after = await place.until_decided(2 * SOME, killed)
        alone = _deciders(after[SOME:])
        expect(len(alone) == 1, "decisions of the sibling alone", alone)
        assert after[-1].decision is not None
        screen.event(f"{sibling} goes on, {after[-1].decision.decision_id}: {after[-1].decision.reasoning}")

        async def down() -> tuple[bool, object]:
            links = await place.links(place.replicas[1])
            return "up" not in [state for name, state in links.items() if name.startswith(f"{place.id}.")], links

        await until("the sibling to say that its link is down", down)
        await machines.start_replica(victim)
        screen.event(f"started {victim} again, at the same address", "yellow")
        with screen.waiting("waiting until both decide as one again"):
            await until("all links up", all_of_it.joined)

        async def both() -> tuple[bool, object]:
            new = _deciders(each for each in place.load.sent if each.asked_at >= killed and each.decision is not None)
            return len(new) == 2, new

        await until("decisions of both replicas again", both)
    asked, retried = place.answered(started)
    screen.shown(f"{asked} callers of {place.name} had their answers, {retried} by an alternative; no Route failed")


async def stopped_database(all_of_it: Federation) -> None:
    """A region's PostgreSQL is gone: it routes as before, refuses writes clearly, and takes them again."""
    machines, screen, place = all_of_it.machines, all_of_it.screen, all_of_it.places[1]
    started = all_of_it.clock()
    async with place.load.coming({place.id: RATE}):
        await place.until_decided(SOME, started)
        machines.stop_database(place.id)
        stopped = all_of_it.clock()
        screen.event(f"stopped the PostgreSQL of {place.name}", "yellow")
        refused = await place.written(1)
        expect(refused is not None and refused.reason == "STORE_UNAVAILABLE", "STORE_UNAVAILABLE for a write", refused)
        assert refused is not None
        expect(refused.retry_after_seconds is not None, "a time after which to try again (RetryInfo)", refused)
        screen.event(f"a write: {refused}; try again after {duration(refused.retry_after_seconds)}")

        async def told() -> tuple[bool, object]:
            catalog, routing = await place.serves("CatalogService"), await place.serves("RoutingService")
            return (catalog, routing) == (False, True), f"catalog {catalog}, routing {routing}"

        await until("health that says: catalog not serving, routing serving", told)
        screen.event("grpc.health.v1: CatalogService NOT_SERVING, RoutingService SERVING")
        after = await place.until_decided(SOME, stopped)
        decision = after[-1].decision
        assert decision is not None
        age = decision.catalog_age.ToNanoseconds() / 1e9
        screen.event(f"a decision, from a catalog that was read {duration(age)} ago: {decision.reasoning}")
        await machines.start_database(place.id)
        screen.event(f"started the PostgreSQL of {place.name} again", "yellow")

        async def taken() -> tuple[bool, object]:
            error = await place.written(2)
            return error is None, error

        await until("a write that is taken", taken)
        back = all_of_it.clock()
    asked, _ = place.answered(started)
    screen.shown(
        f"{asked} callers had their answers with the database gone for {duration(back - stopped)}; "
        "the write is taken now, nothing was restarted"
    )


async def cut_off(all_of_it: Federation) -> None:
    """The cables of a region are cut: both sides go on alone, within what they may, and are one again."""
    fleet, machines, screen = all_of_it.fleet, all_of_it.machines, all_of_it.screen
    tokyo = all_of_it.places[-1]
    others = all_of_it.others(tokyo)
    own = {node.name for node in fleet.nodes_of(tokyo.id)}
    started = all_of_it.clock()
    for wire in machines.around(tokyo.id):
        wire.cut()
    screen.event(f"cut {tokyo.name} off: nothing goes through, and nobody is told", "yellow")

    async def forgotten() -> tuple[bool, object]:
        found = {place.id: await place.rejections(Ask(place.id)) for place in all_of_it.places}
        abroad = {place.id: own if place is not tokyo else _all_nodes(all_of_it) - own for place in all_of_it.places}
        lapsed = (
            each.get(node) == LEASE_OVER for place, nodes in abroad.items() for node in nodes for each in found[place]
        )
        return all(lapsed), found

    async with tokyo.load.coming({tokyo.id: RATE}), others[0].load.coming({others[0].id: RATE}):
        with screen.waiting(f"waiting for the end of the leases, {PEER_LEASE_SECONDS:g} s after the last word"):
            await until("both sides to leave the other out at the lease's end", forgotten)
        ended = all_of_it.clock()
        screen.event(f"leases ended {duration(ended - started)} after the cut: PEER_LEASE_EXPIRED on both sides")
        _show_peers(all_of_it, others[0])
        inside = await tokyo.until_decided(SOME, ended)
        outside = await others[0].until_decided(SOME, ended)
        expect({each.target for each in inside} <= own, f"only nodes of {tokyo.id} for its callers", got(inside))
        expect(not {each.target for each in outside} & own, f"no node of {tokyo.id} elsewhere", got(outside))
        assert inside[-1].decision is not None
        screen.event(f"{tokyo.name} alone: {inside[-1].decision.reasoning}")
        refused = await tokyo.refusal(Ask(tokyo.id, confidential=True))
        expect(refused is not None and bool(refused.reason), "no place for a confidential prompt there", refused)
        screen.event(f"a confidential prompt in {tokyo.name}, whose one place is cut off: {refused}")
        for wire in machines.around(tokyo.id):
            wire.heal()
        healed = all_of_it.clock()
        screen.event("mended the cables", "yellow")
        with screen.waiting("waiting until all know each other's nodes again"):
            await until("all links up and all nodes known", all_of_it.joined)
        joined = all_of_it.clock()
    asked = tokyo.answered(started)[0] + others[0].answered(started)[0]
    await _confidential_goes_to(tokyo, fleet.confidential.name)
    screen.shown(
        f"{asked} callers on both sides had their answers; {duration(joined - healed)} after the mending every region "
        "knows all nodes again, and nothing was restarted"
    )


async def power_cut(all_of_it: Federation) -> None:
    """All of a region goes out: its callers are served elsewhere, within what they may, and come back by degrees."""
    fleet, machines, screen = all_of_it.fleet, all_of_it.machines, all_of_it.screen
    near, dark = all_of_it.places[0], all_of_it.places[1]
    own = {node.name for node in fleet.nodes_of(dark.id)}
    best = fleet.nodes_of(dark.id)[0].name
    started = all_of_it.clock()
    # The gateway of these callers has the next region's control plane for the case that its own does not answer.
    async with near.load.coming({dark.id: RATE}):
        before = await near.until_decided(SOME, started, dark.id)
        expect(any(each.target in own for each in before), f"callers of {dark.name} served there", got(before))
        machines.cut_power(dark.id)
        out = all_of_it.clock()
        screen.event(f"cut the power of {dark.name}: replicas, database and engines are gone", "yellow")

        async def left() -> tuple[bool, object]:
            found = await near.rejections(Ask(dark.id))
            return all(each.get(node) == LEASE_OVER for each in found for node in own), found

        with screen.waiting("waiting for the end of the lease"):
            await until(f"{dark.id} left out at its lease's end", left)
        ended = all_of_it.clock()
        after = await near.until_decided(SOME, ended, dark.id)
        screen.event(f"lease ended {duration(ended - out)} later; the next {len(after)} for its callers:")
        screen.got(got(after))
        assert after[-1].decision is not None
        screen.event(f"why: {after[-1].decision.reasoning}")
        expect(not {each.target for each in after} & own, f"no decision for {dark.id}", got(after))
        refused = await near.refusal(Ask(dark.id, confidential=True))
        expect(refused is not None and bool(refused.reason), "no place for a confidential prompt", refused)
        screen.event(f"a confidential prompt stays unserved rather than leave its owner's hands: {refused}")
        await machines.power_up(dark.id)
        screen.event(f"the power of {dark.name} is back: all of it started again from its database", "yellow")
        scores: list[float] = []

        async def known() -> tuple[bool, object]:
            with suppress(RouteError):
                scores.extend(score for score in [await near.health_score(best)] if score)
            return await all_of_it.joined()

        with screen.waiting("waiting until it is known again"):
            await until("all links up and all nodes known", known)

        async def rising() -> tuple[bool, object]:
            scores.append(await near.health_score(best))
            return scores[-1] >= min(scores) + 0.1, f"health score {min(scores):.2f}, then {scores[-1]:.2f}"

        at_home = await explained(dark, Ask(dark.id))
        expect(at_home.served_by in own, f"a caller of {dark.name} served by its own region", at_home.story)
        with screen.waiting("waiting to see its worth rise elsewhere"):
            await until(f"a health score of {best} in {near.id} that rises", rising)
    first, score = min(scores), scores[-1]
    asked, retried = near.answered(started)
    await _confidential_goes_to(dark, fleet.confidential.name)
    screen.shown(
        f"{asked} callers had their answers, {retried} by an alternative; {dark.name} serves its own "
        f"again; in {near.name} its health score was {first:.2f} at first, is {score:.2f} now, and rises for a minute"
    )


async def _confidential_goes_to(place: Place, node: str) -> None:
    sent = await answered(place, Ask(place.id, confidential=True))
    expect(sent.served_by == node, f"a confidential prompt from {place.id} served by {node}", sent.story)
    assert sent.decision is not None
    place.screen.event(f"confidential, from {place.name}: {sent.decision.reasoning}")


def _deciders(sent: Iterable[Sent]) -> set[str]:
    """Who decided: the first parts of decision ids name region and life of a replica."""
    return {each.decision.decision_id.rpartition("-")[0] for each in sent if each.decision is not None}


def _all_nodes(all_of_it: Federation) -> set[str]:
    return {node.name for node in all_of_it.fleet.nodes}


def _show_peers(all_of_it: Federation, place: Place) -> None:
    """`fairway peers list`, as an operator of the region sees it."""
    words = ["peers", "list", "--server", all_of_it.machines.replicas[all_of_it.machines.names(place.id)[0]]]
    all_of_it.screen.event(f"$ {shlex.join(['fairway', *words])}   ({place.name})")
    code = all_of_it.processes.run([sys.executable, "-m", "federation", *words])
    expect(code == 0, "exit code 0 of `fairway peers list`", code)


SCENES = (
    Scene("three regions", "Each routes by itself, and knows what the others have.", three_regions),
    Scene("a killed replica", "Its sibling goes on; callers do not notice.", killed_replica),
    Scene("a database that is gone", "Routing goes on; a write is refused with a time to try again.", stopped_database),
    Scene("a region that is cut off", "Both sides go on alone, and are one again.", cut_off),
    Scene("a region without power", "Its callers are served elsewhere, and come back by degrees.", power_cut),
)
