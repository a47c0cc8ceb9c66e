"""What must hold in the simulation of `dst.py`, at every decision, trial and message, and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.types import PrivacyLevel
from federation.routing.siblings import SUM_SECONDS
from federation.siblings.telling import SUM_DIGITS
from policies.circuit import Closed
from policies.types import RouteRequest
from tests.faults.dst_fleet import NODE_LEASE_SECONDS, PEER_LEASE_SECONDS, REGIONS, born

if TYPE_CHECKING:
    from tests.faults.dst_region import Territory
    from tests.faults.dst_replica import Replica
    from tests.faults.dst_world import World

# Two replicas that know each other for so long have told each other all that they have under way.
TOLD_SECONDS = 2.0

# Until the record of a silent node says so at the latest: the replica that heard it died and must be found dead (a beat
# and five seconds), and a lease goes by before, after that, and where a process stood still.
EXPIRED_SECONDS = 6.0 + 3 * NODE_LEASE_SECONDS + 2.0


class Broken(AssertionError):
    """An invariant does not hold."""


def check_decision(replica: Replica, node: str, request: RouteRequest) -> None:
    """Nobody is sent where a hard rule forbids it, nor to a region that has not been heard for a lease."""
    region = node.split("/")[0]
    home = region == replica.region.name
    truth = born(node)
    level = truth.privacy_level or (PrivacyLevel.INTERNAL if home else PrivacyLevel.PUBLIC)
    if level < request.privacy_level:
        raise Broken(f"{replica.place}: {node} may not serve {request.privacy_level.name}")
    if request.jurisdictions and not set(request.jurisdictions) & set(REGIONS[region]):
        raise Broken(f"{replica.place}: {node} is not in {request.jurisdictions}")
    if truth.deployments[0].tenant_ids and request.tenant_id not in truth.deployments[0].tenant_ids:
        raise Broken(f"{replica.place}: {node} is not {request.tenant_id!r}'s")
    if home:
        if node in replica.leases.ended():
            raise Broken(f"{replica.place}: sent to {node}, whose lease ended")
        return
    silent = replica.world.now - replica.heard.get(region, float("-inf"))
    if silent > PEER_LEASE_SECONDS * 1.002 + replica.world.slack + replica.grace:
        raise Broken(f"{replica.place}: sent to {node}, not heard for {silent:.2f} s")


def check_trial(replica: Replica, deployment: str) -> None:
    """Of replicas that know each other one at a time tries a half-open circuit."""
    for other in replica.region.replicas:
        if other is replica or not other.up or replica.world.linked_for(replica, other) < TOLD_SECONDS:
            continue
        slot = other.router.state.slots.get(deployment)
        if slot not in other.router.reservations.trials:
            continue
        began = max(
            other.world_time(each.started)
            for each in other.router.reservations._open.values()
            if each.trial and each.slot == slot
        )
        if replica.world.now - began < replica.world.linked_for(replica, other) - TOLD_SECONDS:
            raise Broken(f"{replica.place} and {other.place} both try {deployment}")


def check_sums(receiver: Replica, sender: Replica, before: object, late_seconds: float) -> None:
    """What came later than others did by more than a quarter of a second is not added to what is under way here."""
    used = receiver.router.state._siblings.get(sender.id)
    # Clocks part by a thousandth, over the half minute in which ways are compared.
    if late_seconds > SUM_SECONDS + 0.1 and used is not None and used is not before:
        raise Broken(f"{receiver.place}: used sums of {sender.place} that came {late_seconds:.2f} s late")


def check_imports(replica: Replica) -> None:
    """Only owners tell, and revisions only grow."""
    for peer, known in replica.peering.imports.peers.items():
        if any(node.region_id != peer for node in known.view.nodes.values()):
            raise Broken(f"{replica.place}: {peer} told of nodes that it does not own")
        # In this life: the next one may begin with what was kept earlier.
        key = (replica.lives, peer, known.applied.incarnation)
        if known.applied.revision < replica.applied.get(key, 0):
            raise Broken(f"{replica.place}: revision of {peer} went back")
        replica.applied[key] = known.applied.revision
    for name, node in replica.installer.snapshot.nodes.items():
        if node.owner != name.split("/")[0]:
            raise Broken(f"{replica.place}: {name} is said to be {node.owner}'s")


def check_agreement(world: World) -> None:
    """Everybody shows what its owner has: nothing lost, doubled or risen from the dead. Siblings agree."""
    for region in world.regions.values():
        for replica in region.replicas:
            for owner in world.regions.values():
                _check_shown(replica, owner)
            if any(peer.expired for peer in replica.peering.imports.peers.values()):
                raise Broken(f"{replica.place}: a lease is over though all is well")
        _check_leases(region)
        first, *others = region.replicas
        for other in others:
            _check_one_mind(first, other)


def _check_shown(replica: Replica, owner: Territory) -> None:
    has = replica.world.nodes_of(owner)
    told = {name: node for name, node in replica.installer.snapshot.nodes.items() if node.region_id == owner.name}
    if set(told) != set(has):
        raise Broken(f"{replica.place} shows {sorted(told)} of {owner.name}, not {sorted(has)}")
    drained = {name for name, node in told.items() if node.draining}
    if drained != {name for name, node in has.items() if node.draining}:
        raise Broken(f"{replica.place} shows other nodes of {owner.name} as draining")


def _check_leases(region: Territory) -> None:
    for name, node in region.world.nodes_of(region).items():
        alive, held = region.agents[name].alive, region.heard.get(name)
        silent = region.world.now - (held[2] if held is not None else 0.0)
        if node.expired if alive else not node.expired and silent > EXPIRED_SECONDS:
            raise Broken(f"{region.name}: {name} is {'alive' if alive else 'silent'}, and its record does not say so")


def _check_one_mind(one: Replica, other: Replica) -> None:
    if other.id not in one.siblings._up or one.id not in other.siblings._up:
        raise Broken(f"{one.place} and {other.place} do not know each other")
    now, then = one.now(), other.now()
    for name, record in one.monitor._deployments.items():
        same = other.monitor._deployments[name]
        if isinstance(record.circuit, Closed) != isinstance(same.circuit, Closed):
            raise Broken(f"{name} is {record.circuit} at {one.place}, {same.circuit} at {other.place}")
        # Two words of one ejection differ by what their way took.
        if abs(max(0.0, record.ejected_until - now) - max(0.0, same.ejected_until - then)) > 1.5:
            raise Broken(f"{name} is ejected differently at {one.place} and {other.place}")
    for name, node in one.monitor._nodes.items():
        twin = other.monitor._nodes[name]
        if abs(max(0.0, node.ejected_until - now) - max(0.0, twin.ejected_until - then)) > 1.5:
            raise Broken(f"{name} is ejected differently at {one.place} and {other.place}")


def check_told(world: World) -> None:
    """Siblings know what each of them has under way. What changed a moment ago may still be on its way."""
    for region in world.regions.values():
        for teller in region.replicas:
            own = teller.router.state.own().round(SUM_DIGITS)
            told = {
                name: (float(own[0, slot]), float(own[1, slot]))
                for name, slot in teller.router.state.slots.items()
                if own[:, slot].any()
            }
            for hearer in region.replicas:
                if hearer is not teller and hearer.siblings._hearing._sums.get(teller.id, {}) != told:
                    raise Broken(f"{hearer.place} knows other sums of {teller.place} than it has")
