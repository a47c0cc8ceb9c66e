"""One stream to a peer with its session: what is read goes in, effects are carried out. The I/O of peering.

             ┌─ reader ─► session ─► effects ─┬─► outbox ─► writer
    stream ──┤               ▲                └─► imports
             └─ EOF          └─ pulse: time, newest exports

Nothing waits for a slow peer: the outbox holds at most one telling at a time, and a write that does not end closes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

import grpc

from federation.peering.messages import (
    Apply,
    Close,
    Effect,
    Heard,
    Identity,
    Measured,
    Message,
    Met,
    NodeReport,
    Send,
    Told,
    View,
)
from federation.peering.session import Session, Stage

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


class Carrier(Protocol):
    """What a link needs of the control plane around it."""

    def admit(self, link: Link, identity: Identity, lease_seconds: float, now: float) -> str:
        """Takes a link on as the one to its peer; "" or why not."""
        ...

    def apply(self, link: Link, effect: Apply | Heard | Told | Measured, now: float) -> None: ...

    def exports(self, peer: Identity) -> View: ...

    def reports(self, now: float) -> Mapping[str, NodeReport]: ...


class Link:
    """A connection now; `reason` tells why it ended."""

    def __init__(
        self,
        session: Session,
        carrier: Carrier,
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
        self._outbox: deque[Message] = deque()
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._writing_since: float | None = None

    async def run(self, messages: AsyncIterator[Message], write: Callable[[Message], Awaitable[None]]) -> None:
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
        self.session.stage = Stage.CLOSED
        self.reason = self.reason or reason
        self._over.set()
        self._news.set()

    async def _read(self, messages: AsyncIterator[Message]) -> None:
        try:
            async for message in messages:
                self._carry(self.session.receive(message, self._monotonic()))
        except ValueError as e:
            self.end(f"it sent {e}")
        except BROKEN as e:
            self._lost(_words(e))
        else:
            self._lost("the stream ended without a goodbye")

    async def _write(self, write: Callable[[Message], Awaitable[None]]) -> None:
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
            if self.session.peer is not None and not self._outbox and not self.session.closed:
                view, reports = self._carrier.exports(self.session.peer), self._carrier.reports(now)
                self._carry(self.session.offer(view, reports, now))
            await self._sleep(PULSE_SECONDS)

    def _carry(self, effects: tuple[Effect, ...]) -> None:
        now = self._monotonic()
        for effect in effects:
            match effect:
                case Send(message):
                    self._outbox.append(message)
                    self._news.set()
                case Met(identity, lease_seconds):
                    objection = self._carrier.admit(self, identity, lease_seconds, now)
                    if objection:
                        self.end(objection)
                case Close(reason, refused):
                    self.reason, self.refused = reason, refused
                    self._over.set()
                    self._news.set()
                case _:
                    self._carrier.apply(self, effect, now)
        self.was_up = self.was_up or self.session.stage is Stage.UP
        if len(self._outbox) > MAX_OUTBOX:
            self._lost(f"more than {MAX_OUTBOX:,} messages wait for it")


def _words(error: BaseException) -> str:
    """A failure of the stream for people."""
    if isinstance(error, grpc.aio.AioRpcError):
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return "it takes no peers: set region.owns there"
        return f"{error.code().name}: {error.details() or 'no details'}"
    return f"the stream broke: {error}"
