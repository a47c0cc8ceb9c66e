"""A small edge gateway: asks for decisions, sends requests over HTTP, streams answers, tries alternatives, reports.

It stands in every region at once: a request names its origin, and the way to a node takes the region's round trip, half
of it before the request is sent and half after each answer. So times at the caller are those of real distances.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import aiohttp

from federation.edge.client import Client, RouteError
from federation.simulation.demo.fleet import DemoFleet
from federation.simulation.stand_in import CHARACTERS_PER_TOKEN
from federation.v1 import routing_pb2, types_pb2

# Longer than a first token takes on a node ten times too slow, so that slow and dead are told apart.
FIRST_TOKEN_SECONDS = 4.0
# No token for so long in the middle of an answer: the stream is broken.
STALL_SECONDS = 2.5
CONNECT_SECONDS = 1.0
# What the engine's chat format puts around a prompt.
AROUND_PROMPT = len("user: \n")

OutcomeResult = routing_pb2.OutcomeResult
OK = routing_pb2.OUTCOME_RESULT_OK
CLIENT_ERROR = routing_pb2.OUTCOME_RESULT_CLIENT_ERROR
SERVER_ERROR = routing_pb2.OUTCOME_RESULT_SERVER_ERROR
TIMEOUT = routing_pb2.OUTCOME_RESULT_TIMEOUT
UNREACHABLE = routing_pb2.OUTCOME_RESULT_UNREACHABLE
OVERLOADED = routing_pb2.OUTCOME_RESULT_OVERLOADED
CANCELLED = routing_pb2.OUTCOME_RESULT_CANCELLED


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a caller."""

    origin: str
    prompt_tokens: int = 800
    answer_tokens: int = 32
    confidential: bool = False
    # `region/node` that must not serve it.
    exclude_nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one node, timed at the caller, in seconds from its start."""

    node: str
    result: int
    first_token_seconds: float | None = None
    latency_seconds: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(slots=True)
class Sent:
    """What became of a request. `asked_at` is monotonic seconds; exactly one of `decision` and `error` is set."""

    ask: Ask
    asked_at: float
    decision: routing_pb2.RouteDecision | None = None
    error: RouteError | None = None
    attempts: list[Attempt] = field(default_factory=list)
    first_token_seconds: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the caller got the whole answer."""
        return bool(self.attempts) and self.attempts[-1].result == OK

    @property
    def target(self) -> str:
        """The node that was decided for; empty without a decision."""
        return node_of(self.decision.target) if self.decision is not None else ""

    @property
    def story(self) -> str:
        """What became of it, for people."""
        if self.error is not None:
            return f"refused: {self.error}"
        tries = [f"{each.node} {OutcomeResult.Name(each.result)}" for each in self.attempts]
        return f"from {self.ask.origin}: " + (", then ".join(tries) or f"under way to {self.target}")

    @property
    def served_by(self) -> str:
        """The node that answered; empty where none did."""
        return self.attempts[-1].node if self.ok else ""


def node_of(target: routing_pb2.RouteTarget) -> str:
    return f"{target.region_id}/{target.node_id}"


class Gateway:
    """Use it as `async with`. `in_flight` counts what is under way at each node now."""

    def __init__(self, fleet: DemoFleet, client: Client, *, clock: Callable[[], float], rng: Random) -> None:
        self._fleet, self._client, self._clock, self._rng = fleet, client, clock, rng
        self.in_flight: Counter[str] = Counter()

    async def __aenter__(self) -> Gateway:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    def request(self, ask: Ask) -> routing_pb2.RouteRequest:
        """What the control plane is asked: the shape of the request, never the prompt."""
        request = routing_pb2.RouteRequest(model_id=self._fleet.model.model_id)
        request.origin.region_id = ask.origin
        request.prompt.input_tokens = ask.prompt_tokens
        request.prompt.max_output_tokens = ask.answer_tokens
        request.placement.exclude_nodes.extend(ask.exclude_nodes)
        if ask.confidential:
            request.qos.privacy_level = types_pb2.PRIVACY_LEVEL_CONFIDENTIAL
        return request

    async def decide(self, ask: Ask) -> routing_pb2.RouteDecision:
        """A decision with all of its reasons that nothing is sent for; its room is given back. Raises RouteError."""
        request = self.request(ask)
        request.explain = routing_pb2.EXPLAIN_FULL
        decision = (await self._client.route(request)).decision
        self._report(decision, 0, Attempt(node_of(decision.target), CANCELLED))
        return decision

    async def send(self, sent: Sent, *, explain: bool = False) -> Sent:
        """Has a request answered: by the target, else by the alternatives in their order. Fills `sent`."""
        request = self.request(sent.ask)
        if explain:
            request.explain = routing_pb2.EXPLAIN_FULL
        try:
            sent.decision = (await self._client.route(request)).decision
        except RouteError as error:
            sent.error = error
            return sent
        for number, target in enumerate([sent.decision.target, *sent.decision.alternatives]):
            if number:
                self._client.report(
                    routing_pb2.Outcome(
                        decision_id=sent.decision.decision_id,
                        attempt=number,
                        phase=routing_pb2.OUTCOME_PHASE_STARTED,
                    )
                )
            node = node_of(target)
            self.in_flight[node] += 1
            try:
                attempt = await self._attempt(sent, number, target)
            finally:
                self.in_flight[node] -= 1
            sent.attempts.append(attempt)
            self._report(sent.decision, number, attempt)
            if attempt.result in (OK, CLIENT_ERROR):
                break
        return sent

    async def _attempt(self, sent: Sent, number: int, target: routing_pb2.RouteTarget) -> Attempt:
        reading = _Reading(Attempt(node_of(target), SERVER_ERROR), self._clock())
        try:
            result = await self._stream(sent, number, target, reading)
        except TimeoutError:
            result = TIMEOUT
        except aiohttp.ClientPayloadError:
            result = SERVER_ERROR
        except (aiohttp.ClientError, OSError):
            # Before the first token nobody was there; after it a stream broke.
            result = UNREACHABLE if reading.seen.first_token_seconds is None else SERVER_ERROR
        return replace(reading.seen, result=result, latency_seconds=self._clock() - reading.started)

    async def _stream(self, sent: Sent, number: int, target: routing_pb2.RouteTarget, reading: _Reading) -> int:
        half = self._fleet.round_trip(sent.ask.origin, target.region_id) / 2
        await asyncio.sleep(half)
        done = False
        async with (
            asyncio.timeout(FIRST_TOKEN_SECONDS) as limit,
            self._http.post(f"{target.endpoint}/v1/chat/completions", json=self._body(sent.ask, target)) as response,
        ):
            if response.status != 200:
                return result_of(response.status)
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                if reading.seen.first_token_seconds is None:
                    await asyncio.sleep(half)
                    self._first_token(sent, number, reading)
                limit.reschedule(asyncio.get_running_loop().time() + STALL_SECONDS)
                if line.startswith(b"data: [DONE]"):
                    done = True
                elif b'"usage"' in line:
                    reading.count(json.loads(line.removeprefix(b"data: "))["usage"])
        await asyncio.sleep(half)
        return OK if done else SERVER_ERROR

    def _first_token(self, sent: Sent, number: int, reading: _Reading) -> None:
        now = self._clock()
        reading.seen = replace(reading.seen, first_token_seconds=now - reading.started)
        sent.first_token_seconds = now - sent.asked_at
        assert sent.decision is not None
        outcome = routing_pb2.Outcome(
            decision_id=sent.decision.decision_id,
            attempt=number,
            phase=routing_pb2.OUTCOME_PHASE_FIRST_TOKEN,
            input_tokens=sent.ask.prompt_tokens,
        )
        outcome.time_to_first_token.FromNanoseconds(round((now - reading.started) * 1e9))
        self._client.report(outcome)

    def _report(self, decision: routing_pb2.RouteDecision, number: int, attempt: Attempt) -> None:
        outcome = routing_pb2.Outcome(
            decision_id=decision.decision_id,
            attempt=number,
            phase=routing_pb2.OUTCOME_PHASE_FINISHED,
            result=attempt.result,  # type: ignore[arg-type]
            input_tokens=attempt.input_tokens,
            cached_tokens=attempt.cached_tokens,
            output_tokens=attempt.output_tokens,
        )
        for name, seconds in (
            ("time_to_first_token", attempt.first_token_seconds),
            ("latency", attempt.latency_seconds),
        ):
            if seconds is not None:
                getattr(outcome, name).FromNanoseconds(round(seconds * 1e9))
        self._client.report(outcome)

    def _body(self, ask: Ask, target: routing_pb2.RouteTarget) -> dict[str, Any]:
        # The first words differ from prompt to prompt, so that no engine has one cached.
        letters = ask.prompt_tokens * CHARACTERS_PER_TOKEN - AROUND_PROMPT
        text = (f"{self._rng.getrandbits(256):064x} " + "tell me more " * (letters // 13 + 1))[:letters]
        return {
            "model": target.served_model_name or target.model_id,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": ask.answer_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


class _Reading:
    """What is known of an attempt while it goes on."""

    def __init__(self, seen: Attempt, started: float) -> None:
        self.seen, self.started = seen, started

    def count(self, usage: dict[str, Any]) -> None:
        """Takes the tokens as the engine counted them."""
        self.seen = replace(
            self.seen,
            input_tokens=usage["prompt_tokens"],
            cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
            output_tokens=usage["completion_tokens"],
        )


def result_of(status: int) -> int:
    """What an HTTP status that is no success means."""
    if status in (429, 503):
        return OVERLOADED
    return SERVER_ERROR if status >= 500 else CLIENT_ERROR
