"""The outermost layer of every call: parsing, rules, deadline, span, duration, and errors turned into statuses.

Why not OpenTelemetry's own server interceptor: with grpc.aio it breaks the health service's Watch, tells of a missed
deadline, a cancel and an uncaught exception as status 0, and has no metrics.

    bytes ─ parse ─ deadline ─ rules ─ handler ─ status ─ span and duration
              └─────────┴────────┴────────┴─ errors.status_of ─ abort
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode

from federation.api import errors, validation
from federation.api.calls import Context
from federation.logs import Log, RateLimited
from federation.telemetry import Telemetry, finish

Handler = Any

ROUTE_MAX_BYTES = 256 * 1024
# Decisions are asked for one by one by gateways that forward what their callers sent.
MAX_BYTES: Mapping[str, int] = {"federation.v1.RoutingService/Route": ROUTE_MAX_BYTES}
# They check the rules themselves: a Route as it reads, each request of a batch fails alone, and a mask excuses what it
# does not name.
SELF_CHECKING = frozenset(
    {
        "federation.v1.RoutingService/Route",
        "federation.v1.RoutingService/RouteBatch",
        "federation.v1.CatalogService/RegisterNode",
        "federation.v1.CatalogService/RegisterNodes",
    }
)
# Lines a second about malformed messages and internal errors; a fuzzer sends thousands.
LOGGED_PER_SECOND = 5


class Malformed:
    """Stands for a message that could not be parsed, until there is a call to answer."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class Edge(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc.aio has no types
    """Wraps every handler once. `draining`, once set by `drain`, ends streams with a word on how to go on."""

    def __init__(
        self, telemetry: Telemetry, *, monotonic: Callable[[], float], log: Log, error_id: Callable[[], str]
    ) -> None:
        self._telemetry = telemetry
        self._monotonic = monotonic
        self._log = log
        self._error_id = error_id
        self._wrapped: dict[str, Handler] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._refusals = RateLimited(LOGGED_PER_SECOND, monotonic)
        self._faults = RateLimited(LOGGED_PER_SECOND, monotonic)
        self.draining = False
        self.malformed_total = 0
        self.internal_errors_total = 0
        self.open_streams = 0

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            handler = await continuation(details)
            if handler is None:
                # Unknown names are the caller's choice; keeping them would let anyone fill memory.
                return None
            wrapped = self._wrapped[details.method] = self._wrap(details.method.removeprefix("/"), handler)
        return wrapped

    def drain(self) -> None:
        """Ends every stream that is open, and every later one: UNAVAILABLE / SHUTTING_DOWN."""
        self.draining = True
        for task in self._streams:
            task.cancel()

    def _wrap(self, method: str, handler: Handler) -> Handler:
        parse = self._parser(method, handler.request_deserializer)
        write = _writer(handler.response_serializer)
        if not handler.request_streaming and not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), parse, write)
        if not handler.request_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream), parse, write)
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(self._stream(method, handler.stream_unary), parse, write)
        return grpc.stream_stream_rpc_method_handler(self._stream(method, handler.stream_stream), parse, write)

    def _parser(self, method: str, parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
        limit = MAX_BYTES.get(method, 0)

        def parsed(data: bytes) -> Any:
            # An exception here would reach the caller as UNKNOWN with its text: a value carries it to the handler.
            if limit and len(data) > limit:
                return Malformed(
                    errors.MessageTooLarge(
                        f"the request has {len(data):,} bytes, and {method} takes {limit:,} at most; "
                        "send fewer labels or prefix hashes"
                    )
                )
            if parse is None:
                return data
            try:
                return parse(data)
            except DecodeError:
                return Malformed(errors.MalformedMessage(f"these bytes are not a request of {method}"))

        return parsed

    def _unary(self, method: str, behavior: Callable[[Any, Context], Awaitable[Any]]) -> Handler:
        check = validation.check if method not in SELF_CHECKING else None

        async def call(request: Any, context: Context) -> Any:
            started = self._monotonic()
            span = self._telemetry.span(method, context.invocation_metadata()) if self._telemetry.tracing else None
            status = "OK"
            failure: BaseException | None = None
            try:
                if type(request) is Malformed:
                    raise request.error
                left = context.time_remaining()
                if left is not None and left <= 0.0:
                    raise errors.DeadlineExpired("the deadline was over when the call came; nothing was done")
                if check is not None:
                    check(request)
                return await behavior(request, context)
            except BaseException as e:
                answer, status = self._translated(method, context, e)
                failure = e
                if answer is None:
                    raise
                await errors.abort(context, answer)
            finally:
                self._telemetry.observe_call(method, status, self._monotonic() - started)
                if span is not None:
                    finish(span, status, failure)

        return call

    def _stream(self, method: str, behavior: Callable[[Any, Context], Any]) -> Handler:
        generates = inspect.isasyncgenfunction(behavior)

        async def call(requests: Any, context: Context) -> Any:
            started = self._monotonic()
            task = asyncio.current_task()
            assert task is not None
            span = self._telemetry.span(method, context.invocation_metadata()) if self._telemetry.tracing else None
            status = "OK"
            failure: BaseException | None = None
            self._streams.add(task)
            self.open_streams += 1
            try:
                if self.draining:
                    raise _ended()
                if isinstance(requests, Message):
                    validation.check(requests)
                elif type(requests) is Malformed:
                    raise requests.error
                else:
                    requests = _whole(requests)
                if not generates:
                    return await behavior(requests, context)
                async for response in behavior(requests, context):
                    await context.write(response)
            except BaseException as e:
                failure = e
                if self.draining and isinstance(e, asyncio.CancelledError) and not context.cancelled():
                    task.uncancel()
                    failure = _ended()
                answer, status = self._translated(method, context, failure)
                if answer is None:
                    raise
                await errors.abort(context, answer)
            finally:
                self.open_streams -= 1
                self._streams.discard(task)
                self._telemetry.observe_call(method, status, self._monotonic() - started)
                if span is not None:
                    finish(span, status, failure)

        return call

    def _translated(self, method: str, context: Context, error: BaseException) -> tuple[errors.Status | None, str]:
        """What to abort the call with, None where it has ended already; and the status for our own records."""
        if isinstance(error, grpc.aio.AbortError):
            return None, _name(context.code())
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            left = context.time_remaining()
            return None, "DEADLINE_EXCEEDED" if left is not None and left <= 0.0 else "CANCELLED"
        status = errors.status_of(error)
        if status is None:
            status = self._unexpected(method, error)
        elif isinstance(error, (errors.MalformedMessage, errors.MessageTooLarge)):
            self.malformed_total += 1
            if self._refusals.admit():
                suppressed = self._refusals.taken()
                self._log.warning("message refused", method=method, peer=context.peer(), suppressed=suppressed)
        return status, _name(status.code)

    def _unexpected(self, method: str, error: BaseException) -> errors.Status:
        self.internal_errors_total += 1
        error_id = self._error_id()
        if self._faults.admit():
            trace = "".join(traceback.format_exception(error))
            suppressed = self._faults.taken()
            self._log.error("internal error", method=method, error_id=error_id, exception=trace, suppressed=suppressed)
        status = errors.status_of(errors.Internal(error_id))
        assert status is not None
        return status


def _writer(serialise: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    """Passes answers on that their handler encoded itself."""
    if serialise is None:
        return None
    return lambda answer: answer if type(answer) is bytes else serialise(answer)


def _ended() -> errors.ShuttingDown:
    return errors.ShuttingDown(
        "this server shuts down; connect again and go on after the last revision that you applied"
    )


async def _whole(requests: Any) -> Any:
    """The stream's messages; a malformed one ends it with its error."""
    async for request in requests:
        if type(request) is Malformed:
            raise request.error
        yield request


def _name(code: Any) -> str:
    """A status code's name, from whatever the context remembers it as."""
    if isinstance(code, StatusCode):
        return str(code.name)
    return next((str(known.name) for known in StatusCode if known.value[0] == code), "UNKNOWN")
