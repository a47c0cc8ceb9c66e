"""One stream to a peer or a sibling with its session: what is read goes in, effects are carried out. All I/O of both.

             ┌─ reader ─► session ─► effects ─┬─► outbox ─► writer
    stream ──┤               ▲                └─► imports
             └─ EOF          └─ pulse: time, newest exports

Nothing waits for a slow peer: the outbox holds at most one telling at a time, and a write that does not end closes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

import grpc

from federation.peering.messages import Close, Send

# What a change waits at most before it is told; each pulse without news costs microseconds.
PULSE_SECONDS = 0.1
# How a stream tells that it is no more: as a client, as a server, and after the end.
BROKEN = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
# A write that takes longer is one to a peer that does not read.
WRITE_SECONDS = 10.0
# Messages of a telling, and answers to heartbeats; beyond it somebody floods.
MAX_OUTBOX = 10_000
# How long the last word may take.
FAREWELL_SECONDS = 0.5


class Talk(Protocol):
    """A session, of whatever kind; its effects are Send, Close, and what its carrier knows."""

    @property
    def closed(self) -> bool: ...

    @property
    def is_up(self) -> bool: ...

    def open(self) -> tuple[Any, ...]: ...

    def receive(self, message: Any, now: float) -> tuple[Any, ...]: ...

    def tick(self, now: float) -> tuple[Any, ...]: ...

    def end(self, reason: str) -> tuple[Any, ...]: ...


S = TypeVar("S", bound=Talk)


class Carrier(Protocol[S]):
    """What a link needs of the control plane around it."""

    def carry(self, link: Link[S], effect: Any, now: float) -> str:
        """Carries out what a session asks for; "" or why the link ends."""
        ...

    def offer(self, link: Link[S], now: float) -> tuple[Any, ...]:
        """What there is to tell now, as effects of the session. Called at each pulse while nothing waits."""
        ...


class Link(Generic[S]):
    """A connection now; `reason` tells why it ended."""

    def __init__(
        self,
        session: S,
        carrier: Carrier[S],
        *,
        opened_here: bool,
        address: str,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.session = session
        self.opened_here = opened_here
        self.address = address
        self.reason = ""
        self.refused = False
        self.was_up = False
        self._carrier = carrier
        self._monotonic = monotonic
        self._sleep = sleep
        self._outbox: deque[Any] = deque()
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._writing_since: float | None = None

    async def run(self, messages: AsyncIterator[Any], write: Callable[[Any], Awaitable[None]]) -> None:
        """Talks until either side ends it; the last word goes out before it returns."""
        if self.opened_here:
            self._carry(self.session.open())
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read(messages))
            writer = group.create_task(self._write(write))
            pulse = group.create_task(self._pulse())
            await self._over.wait()
            pulse.cancel()
            # The reader goes last: cancelling it cancels the stream with what was written.
            await asyncio.wait([writer], timeout=FAREWELL_SECONDS)
            if self.opened_here:
                await asyncio.wait([reader], timeout=FAREWELL_SECONDS)
            writer.cancel()
            reader.cancel()

    def end(self, reason: str) -> None:
        """Ends it with a goodbye."""
        self._carry(self.session.end(reason))

    def _lost(self, reason: str) -> None:
        """There is no stream any more to say goodbye on."""
        self.session.end(reason)
        self.reason = self.reason or reason
        self._over.set()
        self._news.set()

    async def _read(self, messages: AsyncIterator[Any]) -> None:
        try:
            async for message in messages:
                self._carry(self.session.receive(message, self._monotonic()))
        except ValueError as e:
            self.end(f"it sent {e}")
        except BROKEN as e:
            self._lost(_words(e))
        else:
            self._lost("the stream ended without a goodbye")

    async def _write(self, write: Callable[[Any], Awaitable[None]]) -> None:
        try:
            while self._outbox or not self._over.is_set():
                while self._outbox:
                    self._writing_since = self._monotonic()
                    await write(self._outbox[0])
                    self._outbox.popleft()
                    self._writing_since = None
                self._news.clear()
                if not self._over.is_set():
                    await self._news.wait()
        except BROKEN as e:
            self._lost(_words(e))

    async def _pulse(self) -> None:
        while True:
            now = self._monotonic()
            since = self._writing_since
            if since is not None and now - since >= WRITE_SECONDS:
                self._lost(f"it did not read for {now - since:.0f} s")
                return
            self._carry(self.session.tick(now))
            if not self._outbox and not self.session.closed:
                self._carry(self._carrier.offer(self, now))
            await self._sleep(PULSE_SECONDS)

    def _carry(self, effects: tuple[Any, ...]) -> None:
        now = self._monotonic()
        for effect in effects:
            match effect:
                case Send(message):
                    self._outbox.append(message)
                    self._news.set()
                case Close(reason, refused):
                    self.reason, self.refused = reason, refused
                    self._over.set()
                    self._news.set()
                case _:
                    objection = self._carrier.carry(self, effect, now)
                    if objection:
                        self.end(objection)
        self.was_up = self.was_up or self.session.is_up
        if len(self._outbox) > MAX_OUTBOX:
            self._lost(f"more than {MAX_OUTBOX:,} messages wait for it")


def _words(error: BaseException) -> str:
    """A failure of the stream for people."""
    if isinstance(error, grpc.aio.AioRpcError):
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return "it takes no peers: set region.owns there"
        # Of a dial that failed: how, after the address that was dialed, which whoever reads this knows.
        failed, _, how = (error.details() or "no details").partition("last error: ")
        return f"{error.code().name}: {how.rpartition(': ')[2] if how else failed}"
    return f"the stream broke: {error}"
