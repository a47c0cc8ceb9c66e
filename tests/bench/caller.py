"""A gRPC caller that costs less than what it measures: HTTP/2 frames over plain sockets, written and counted in bulk.

It knows as much of HTTP/2 as unary calls of one method with small messages need: fixed headers that are the same bytes
each time, no flow control beyond a wide window, and the status of a call by whether its answer holds a message.
A `grpc` client costs some 200 µs a call, several times the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WIDE = (1 << 31) - 1
_U32 = Struct(">I")


class CallFailed(Exception):
    """The server refused a call or closed the connection; the benchmark would measure something else."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + _U32.pack(stream) + payload


def header_block(method: str, authority: str) -> bytes:
    """Headers of a call, without Huffman coding and without a dynamic table."""

    def text(value: str) -> bytes:
        raw = value.encode()
        assert len(raw) < 127
        return bytes((len(raw),)) + raw

    post, http = b"\x83", b"\x86"
    path, host, content = b"\x04" + text(method), b"\x01" + text(authority), b"\x0f\x10" + text("application/grpc")
    return post + http + path + host + content + b"\x00" + text("te") + text("trailers")


@dataclass
class Calls(asyncio.Protocol):
    """One connection that keeps `concurrency` calls of one method under way until `count` were answered."""

    method: str
    message: Callable[[int], bytes]
    concurrency: int
    count: int
    # Seconds that each call took, in the order of the answers, and what was answered.
    took: list[float] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = b""
        self._stream = 1
        self._sent = 0
        self._started: dict[int, float] = {}
        self._parts: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        host, port = transport.get_extra_info("peername")[:2]
        self._headers = header_block(self.method, f"{host}:{port}")
        wide = b"\x00\x04" + _U32.pack(WIDE)
        hello = frame(SETTINGS, 0, 0, wide) + frame(WINDOW_UPDATE, 0, 0, _U32.pack(WIDE - 65_535))
        transport.write(PREFACE + hello + self._next(self.concurrency))

    def _next(self, wanted: int) -> bytes:
        now = time.perf_counter()
        parts = []
        for _ in range(min(wanted, self.count - self._sent)):
            stream, self._stream = self._stream, self._stream + 2
            message = self.message(self._sent)
            body = b"\x00" + _U32.pack(len(message)) + message
            parts.append(frame(HEADERS, END_HEADERS, stream, self._headers) + frame(DATA, END_STREAM, stream, body))
            self._started[stream] = now
            self._sent += 1
        return b"".join(parts)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at, end, finished, answer = 0, len(buffer), 0, b""
        while end - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if end - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = _U32.unpack_from(buffer, at + 5)[0]
            payload = buffer[at + 9 : at + 9 + length]
            at += 9 + length
            if kind == DATA:
                self._parts[stream] = self._parts.get(stream, b"") + payload
            elif kind == HEADERS and flags & END_STREAM:
                self._finish(stream)
                finished += 1
            elif kind == SETTINGS and not flags & ACK:
                answer += frame(SETTINGS, ACK, 0, b"")
            elif kind == PING and not flags & ACK:
                answer += frame(PING, ACK, 0, payload)
            elif kind in (GOAWAY, RST_STREAM):
                self._fail(f"the server sent frame {kind}: {payload!r}")
        self._buffer = buffer[at:]
        if finished:
            answer += self._next(finished)
        if answer:
            self._transport.write(answer)
        if len(self.took) >= self.count and not self.done.done():
            self.done.set_result(None)

    def _finish(self, stream: int) -> None:
        self.took.append(time.perf_counter() - self._started.pop(stream))
        body = self._parts.pop(stream, None)
        if body is None:
            self._fail("a call was answered without a message")
        else:
            self.answers.append(body[5:])

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(CallFailed(why))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection ended: {error}")


@dataclass(frozen=True, slots=True)
class Load:
    """What a load of unary calls met: answered calls a second, and seconds that single calls took, in order."""

    per_second: float
    took: tuple[float, ...]
    answers: tuple[bytes, ...]

    def quantile(self, share: float) -> float:
        return self.took[min(len(self.took) - 1, int(share * len(self.took)))]


async def load(
    port: int,
    method: str,
    message: Callable[[int], bytes],
    count: int,
    *,
    concurrency: int = 32,
    connections: int = 4,
) -> Load:
    """Makes so many calls of `method` ("/package.Service/Method"), some at once; CallFailed where one fails."""
    loop = asyncio.get_running_loop()
    connections = min(connections, count)
    each = [count // connections + (number < count % connections) for number in range(connections)]
    started = time.perf_counter()
    made = [
        await loop.create_connection(
            lambda calls=calls: Calls(method, message, max(1, concurrency // connections), calls), "127.0.0.1", port
        )
        for calls in each
    ]
    try:
        await asyncio.gather(*(calls.done for _, calls in made))
        passed = time.perf_counter() - started
    finally:
        for transport, _ in made:
            transport.abort()
    took = sorted(seconds for _, calls in made for seconds in calls.took)
    return Load(count / passed, tuple(took), tuple(a for _, calls in made for a in calls.answers))
