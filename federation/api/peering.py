"""PeeringService: the streams that peers and sibling replicas open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from federation.api.calls import Context, Requests
from federation.api.errors import MalformedMessage, NotOffered
from federation.peering import wire
from federation.peering.messages import Goodbye, Message
from federation.peering.peers import Peering, value_of
from federation.peering.session import SILENCE_SECONDS
from federation.siblings import wire as sibling_wire
from federation.siblings.exchange import Siblings
from federation.siblings.messages import Message as SiblingMessage
from federation.v1 import peering_pb2_grpc

M = TypeVar("M")


class PeeringService(peering_pb2_grpc.PeeringServiceServicer):
    """The first message tells who speaks. None: there is no peering, or there are no replicas."""

    def __init__(self, peering: Peering | None, siblings: Siblings | None) -> None:
        self._peering = peering
        self._siblings = siblings

    async def Exchange(self, requests: Requests, context: Context) -> None:
        parsed = _parsed(requests)
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                first = await anext(parsed)
        except (StopAsyncIteration, TimeoutError):
            return
        except ValueError as e:
            await context.write(wire.response_to(Goodbye(f"it sent {e}")))
            return
        if first.WhichOneof("message") == "sibling_hello":
            if self._siblings is None:
                await context.write(wire.response_to(Goodbye("it has no replicas: its database serves one process")))
                return
            said = _values(first, parsed, sibling_wire.message_from)

            async def answer(message: SiblingMessage) -> None:
                await context.write(sibling_wire.response_to(message))

            await self._siblings.accept(said, answer, context.peer())
            return
        if self._peering is None:
            raise NotOffered("it takes no peers: set region.owns there")

        async def write(message: Message) -> None:
            await context.write(wire.response_to(message))

        await self._peering.accept(_values(first, parsed, value_of), write, context.peer())


async def _values(first: Any, parsed: AsyncIterator[Any], value: Callable[[Any], M]) -> AsyncIterator[M]:
    yield value(first)
    async for message in parsed:
        yield value(message)


async def _parsed(requests: Requests) -> AsyncIterator[Any]:
    """Bytes that are no message end the session with a goodbye, as everything else does that a peer says wrongly."""
    try:
        async for request in requests:
            yield request
    except MalformedMessage as e:
        raise ValueError(str(e)) from None
