"""Requests from their messages, by the shortest way: what gateways say again and again is checked and read once.

Requests of one gateway differ in their ids and prompts; the rest of the message, encoded, is the key to a request that
was read before, and whose values are copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, make_dataclass
from operator import attrgetter
from typing import Any

from federation.api import validation
from federation.api.convert.decisions import DEFAULT_BLOCK_TOKENS, request_from
from federation.v1 import routing_pb2
from policies.types import RouteRequest

# Shapes that are remembered, a KB each, and the bytes of a message's rest: what one caller says once must not fill
# memory.
MOST_SHAPES = 4_096
MOST_BYTES = 512
NAMES = tuple(field.name for field in fields(RouteRequest))
# A request before it is one: a frozen object of 26 fields is made in 5 µs, one that is frozen afterwards in 1 µs.
Draft: Any = make_dataclass("Draft", NAMES, slots=True)
values_of: Callable[[RouteRequest], tuple[Any, ...]] = attrgetter(*NAMES)


class RequestReader:
    """Checks and reads messages."""

    def __init__(self) -> None:
        self._shapes: dict[bytes, tuple[Any, ...]] = {}

    def read(self, message: routing_pb2.RouteRequest) -> RouteRequest:
        """A message as a request. InvalidFields; the message keeps what is not its ids and prompt."""
        request_id, session_id = message.request_id, message.session_id
        prompt = message.prompt if message.HasField("prompt") else None
        if not validation.sound_own(request_id, session_id, prompt) or message.labels:
            validation.check(message)
            return request_from(message)
        message.ClearField("request_id")
        message.ClearField("session_id")
        message.ClearField("prompt")
        rest = message.SerializeToString()
        values = self._shapes.get(rest)
        if values is None:
            return self._first(message, rest, request_id, session_id, prompt)
        draft = Draft(*values)
        draft.request_id = request_id
        draft.session_id = session_id
        if prompt is not None:
            if prompt.HasField("input_tokens"):
                draft.input_tokens = prompt.input_tokens
            if prompt.HasField("max_output_tokens"):
                draft.max_output_tokens = prompt.max_output_tokens
            if prompt.prefix_hashes:
                draft.prefix_hashes = tuple(prompt.prefix_hashes)
                draft.prefix_block_tokens = prompt.prefix_block_tokens or DEFAULT_BLOCK_TOKENS
        draft.__class__ = RouteRequest
        request: RouteRequest = draft
        return request

    def _first(
        self,
        message: routing_pb2.RouteRequest,
        rest: bytes,
        request_id: str,
        session_id: str,
        prompt: routing_pb2.PromptShape | None,
    ) -> RouteRequest:
        """Reads the first message of its shape, and remembers it."""
        message.request_id, message.session_id = request_id, session_id
        if prompt is not None:
            message.prompt.CopyFrom(prompt)
        validation.check(message)
        if len(rest) <= MOST_BYTES:
            if len(self._shapes) >= MOST_SHAPES:
                self._shapes.clear()
            request = request_from(routing_pb2.RouteRequest.FromString(rest))
            # Worked out once, and copied with the values.
            _ = request.shape
            self._shapes[rest] = values_of(request)
        return request_from(message)
