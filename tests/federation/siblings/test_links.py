"""Which link between two replicas stays, where both dial."""

from __future__ import annotations

from itertools import product

import pytest

from federation.peering.link import Link
from federation.siblings.session import Session
from tests.federation.siblings.world import World

# In which order words of the one link and of the other arrive, in either direction, as far as it can matter.
ORDERS = list(product((0, 1), repeat=6))


def crossing(world: World) -> tuple[tuple[Link[Session], Link[Session]], ...]:
    """Two links between `a` and `b`, one opened by each: (end at a, end at b)."""
    one, two = world["a"], world["b"]
    by_one = one.siblings._link(two.me, "b"), two.siblings._link(None, "a")
    by_two = one.siblings._link(None, "b"), two.siblings._link(one.me, "a")
    by_one[0]._carry(by_one[0].session.open())
    by_two[1]._carry(by_two[1].session.open())
    return by_one, by_two


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(map(str, order)))
def test_where_both_dial_both_keep_the_same_link_whatever_arrives_first(order: tuple[int, ...]):
    world = World("ab")
    links = crossing(world)

    def word(link: int, to: int) -> None:
        """The next word of a link reaches one of its ends."""
        here, there = links[link][to], links[link][1 - to]
        if there._outbox:
            here._carry(here.session.receive(there._outbox.popleft(), world.now))

    for number, link in enumerate(order):
        word(link, number % 2)
        word(1 - link, 1 - number % 2)
    for _ in range(10):
        for link, to in product((0, 1), repeat=2):
            word(link, to)
    for link in links:
        for one, end in zip("ab", link, strict=True):
            if end.session.closed:
                world[one].siblings._released(end)

    kept = world["a"].siblings._up["eu.b"].link, world["b"].siblings._up["eu.a"].link
    assert kept == links[0]
    assert not kept[0].session.closed
    assert not kept[1].session.closed
