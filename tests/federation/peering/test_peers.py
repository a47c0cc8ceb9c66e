"""What the peerings of a control plane do at moments that sockets do not show often."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from catalog.snapshot import EMPTY_SNAPSHOT
from catalog.types import Region
from federation import logs
from federation.peering.exports import ExportRules
from federation.peering.imports import KEEP_SECONDS, Imports
from federation.peering.link import Link
from federation.peering.messages import Hello, Identity, Replacement
from federation.peering.peers import Exported, Peering
from federation.peering.session import Applied, Session
from tests.builders import a_node

EU = Identity("eu", ("eu",), "life-1", ("DE", "EU"))


def test_a_peer_that_is_greeted_is_not_forgotten_before_its_first_word():
    imports = Imports()
    imports.met(EU, 30.0, 0.0)
    imports.met(EU, 30.0, 30.0 + KEEP_SECONDS)

    imports.tick(30.0 + KEEP_SECONDS)
    imports.heard("eu", 30.0 + KEEP_SECONDS)

    assert list(imports.peers) == ["eu"]


def a_peering(region_id: str, *peers: str) -> Peering:
    return Peering(
        Identity(region_id, (region_id,), f"life-of-{region_id}"),
        peers=peers,
        rules=ExportRules(),
        lease_seconds=30.0,
        tls=None,
        exported=lambda: Exported(EMPTY_SNAPSHOT, {}, frozenset()),
        log=logs.get(),
        rng=Random(1),
        monotonic=lambda: 0.0,
    )


def met(peering: Peering, incarnation: str, dialed: str = "") -> Link[Session]:
    """A link over which a replica of `eu` said hello."""
    link = peering._link(opened_here=bool(dialed), address=dialed or "somewhere", expected="")
    link._carry(link.session.receive(Hello(replace(EU, incarnation=incarnation)), 0.0))
    return link


def test_no_replica_is_left_with_links_that_bring_nothing():
    peering = a_peering("us", "eu:50051")
    main, *spares = (met(peering, f"life-{number}") for number in range(3))
    assert peering.links["eu"] is main

    main._lost("it is gone")
    peering._released(main)

    # Each of them may be the one that is dead too: all greet anew.
    assert all(spare.session.closed for spare in spares)


def test_an_import_that_is_forgotten_during_the_greeting_is_not_resumed():
    now = 0.0
    peering = a_peering("us")
    peering._monotonic = lambda: now
    peering.imports.met(EU, 30.0, now)
    told = Replacement(4, True, {"eu": Region("eu")}, {}, {"eu/n": a_node("eu/n")})
    peering.imports.apply("eu", told, Applied("life-1", 4), now)
    now = 30.0 + KEEP_SECONDS

    link = peering._link(opened_here=False, address="there", expected="")
    peering.imports.tick(now)
    link._carry(link.session.receive(Hello(EU), now))

    assert link.session.closed
    assert "begins anew" in link.reason
    again = peering._link(opened_here=False, address="there", expected="")
    again._carry(again.session.receive(Hello(EU), now))
    assert peering.links["eu"] is again
