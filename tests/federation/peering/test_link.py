"""One stream: what a slow, silent or wrong-speaking peer does to it, and to nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from federation.peering.link import WRITE_SECONDS, Link
from federation.peering.messages import (
    Apply,
    Effect,
    Goodbye,
    Heard,
    Hello,
    Identity,
    Measured,
    Message,
    Met,
    Told,
    Update,
    View,
)
from federation.peering.session import NO_REPORTS, Session
from tests.federation.server import until

pytestmark = pytest.mark.anyio
EU = Identity("eu", ("eu",), "life-1")
US = Identity("us", ("us",), "life-1")


class Around:
    """What a link sees of its control plane, and a clock that is moved."""

    def __init__(self, objection: str = "") -> None:
        self.now = 0.0
        self.objection = objection
        self.applied: list[Apply | Heard | Told | Measured] = []

    def carry(self, link: Link[Session], effect: Effect, now: float) -> str:
        if isinstance(effect, Met):
            return self.objection
        assert isinstance(effect, Apply | Heard | Told | Measured)
        self.applied.append(effect)
        return ""

    def offer(self, link: Link[Session], now: float) -> tuple[Effect, ...]:
        return link.session.offer(View(1), NO_REPORTS, now)

    def link(self, *, opened_here: bool = False) -> Link[Session]:
        return Link(
            Session(US, now=self.now, lease_seconds=30.0),
            self,
            opened_here=opened_here,
            address="there",
            monotonic=lambda: self.now,
            sleep=lambda _: asyncio.sleep(0.001),
        )


async def says(*messages: Message, stays: bool = True) -> AsyncIterator[Message]:
    for message in messages:
        yield message
    if stays:
        await asyncio.Event().wait()


class Written(list[Message]):
    async def write(self, message: Message) -> None:
        self.append(message)


async def test_a_stream_that_ends_ends_the_link():
    around, written = Around(), Written()
    link = around.link()

    await link.run(says(Hello(EU), Update(None, 4), stays=False), written.write)

    assert link.was_up
    assert link.reason == "the stream ended without a goodbye"
    assert [type(effect) for effect in around.applied] == [Apply, Heard]
    assert written[0] == Hello(US)


async def test_a_link_that_is_not_wanted_ends_with_a_goodbye():
    around, written = Around("the other link between the two stays"), Written()
    link = around.link()

    await link.run(says(Hello(EU)), written.write)

    assert written == [Hello(US), Goodbye("the other link between the two stays")]
    assert not link.was_up


async def test_what_cannot_be_read_ends_it_with_a_goodbye_that_says_so():
    async def wrong() -> AsyncIterator[Message]:
        yield Hello(EU)
        raise ValueError("a node in no region")

    around, written = Around(), Written()
    link = around.link()

    await link.run(wrong(), written.write)

    assert link.reason == "it sent a node in no region"
    assert isinstance(written[-1], Goodbye)


async def test_a_peer_that_does_not_read_is_hung_up_on_and_what_waits_for_it_stays_bounded():
    around = Around()
    link = around.link()
    blocked = asyncio.Event()

    async def write(message: Message) -> None:
        blocked.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(link.run(says(Hello(EU)), write))
    await blocked.wait()
    waiting = []
    for _ in range(9):
        around.now += 1.0
        # It is heard, and reads nothing.
        link.session.heard_at = around.now
        await asyncio.sleep(0.005)
        waiting.append(len(link._outbox))
    around.now += WRITE_SECONDS
    link.session.heard_at = around.now
    await until(running.done)

    assert max(waiting) < 15
    assert link.reason.startswith("it did not read for")


async def test_silence_ends_it():
    around, written = Around(), Written()
    link = around.link(opened_here=True)
    running = asyncio.create_task(link.run(says(), written.write))
    await until(lambda: written == [Hello(US)])

    around.now += 60.0
    await until(running.done)

    assert link.reason == "nothing heard for 60.0 s"
