"""PeeringService: the streams that peers open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from federation.api.calls import Context, Requests
from federation.api.errors import MalformedMessage
from federation.peering import wire
from federation.peering.messages import Message
from federation.peering.peers import Peering, values
from federation.v1 import peering_pb2_grpc


class PeeringService(peering_pb2_grpc.PeeringServiceServicer):
    def __init__(self, peering: Peering) -> None:
        self._peering = peering

    async def Exchange(self, requests: Requests, context: Context) -> None:
        async def write(message: Message) -> None:
            await context.write(wire.response_to(message))

        await self._peering.accept(values(_parsed(requests)), write, context.peer())


async def _parsed(requests: Requests) -> AsyncIterator[Any]:
    """Bytes that are no message end the session with a goodbye, as everything else does that a peer says wrongly."""
    try:
        async for request in requests:
            yield request
    except MalformedMessage as e:
        raise ValueError(str(e)) from None
