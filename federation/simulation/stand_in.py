"""The stand-in engine without its HTTP: requests in, tokens out at the times that `ContinuousBatch` gives.

Words are made up, times are modelled. One loop owns an engine; nothing here is safe from other threads.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from federation.simulation.batching import BatchEvent, BatchEventKind, BatchProfile, ContinuousBatch
from federation.simulation.engine_page import BLOCK_TOKENS, EnginePage, EngineState

# English text has about four characters a token with the tokenizers in use; good enough for modelled times.
CHARACTERS_PER_TOKEN = 4
# Streams wake at most this often and write what came since, so that a hundred of them leave a shared core some room.
MIN_STREAM_INTERVAL_SECONDS = 0.01


class Overloaded(Exception):
    """The queue is at its limit, or the request can never fit the KV cache."""


class Interrupted(Exception):
    """The engine was reset while the request ran."""


class ScaledClock:
    """Model time beside real time, at a factor that may change: at 2.0 an engine is twice as fast."""

    def __init__(self, clock: Callable[[], float], speed: float) -> None:
        self._clock = clock
        self._real = self._model = clock()
        self.speed = speed

    def now(self) -> float:
        """Real seconds."""
        return self._clock()

    def model(self, real: float) -> float:
        return self._model + (real - self._real) * self.speed

    def real(self, model: float) -> float:
        return self._real + (model - self._model) / self.speed

    def set_speed(self, speed: float) -> None:
        """Raises ValueError unless 0.001 <= speed <= 1000: slower looks dead, faster outruns timers."""
        if not 0.001 <= speed <= 1_000:
            raise ValueError(f"speed is {speed}; it must be between 0.001 and 1000")
        real = self._clock()
        self._real, self._model, self.speed = real, self.model(real), speed


class PrefixCache:
    """Which leading blocks of prompts were seen, least recently used first out; bounded by the KV cache's size."""

    def __init__(self, kv_cache_tokens: int) -> None:
        self._limit = max(1, kv_cache_tokens // BLOCK_TOKENS)
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def match(self, prompt: str) -> int:
        """Leading tokens of the prompt that are cached; the prompt's full blocks are cached from now on."""
        width = BLOCK_TOKENS * CHARACTERS_PER_TOKEN
        chain, cached, unbroken = 0, 0, True
        for start in range(0, len(prompt) - width + 1, width):
            chain = hash((chain, prompt[start : start + width]))
            unbroken = unbroken and chain in self._blocks
            cached += BLOCK_TOKENS if unbroken else 0
            self._blocks[chain] = None
            self._blocks.move_to_end(chain)
            if len(self._blocks) > self._limit:
                self._blocks.popitem(last=False)
        return cached


@dataclass(eq=False, slots=True)
class Ticket:
    """A request in the engine. Times are real seconds of the engine's clock."""

    request_id: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    # "stop" or "length": why the answer will end.
    finish_reason: str
    arrived: float
    first_token_at: float | None = None
    finished_at: float | None = None
    failure: Exception | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> bool:
        return self.finished_at is not None or self.failure is not None


class StandIn:
    """An engine of one model. `run` must run for anything to come out."""

    def __init__(
        self,
        profile: BatchProfile,
        model_name: str,
        *,
        clock: Callable[[], float],
        rng: Random,
        speed: float = 1.0,
        mean_output_tokens: float = 128.0,
    ) -> None:
        self.profile = profile
        self.clock = ScaledClock(clock, speed)
        self.adapters: dict[str, float] = {}
        self._model_name = model_name
        self._rng = rng
        self._mean_output_tokens = mean_output_tokens
        self._serial = 0
        self._tickets: dict[str, Ticket] = {}
        self._wake = asyncio.Event()
        self._start_over()

    def _start_over(self) -> None:
        self._batch = ContinuousBatch(self.profile, self.clock.model(self.clock.now()))
        self._prefixes = PrefixCache(self.profile.kv_cache_tokens)
        self._prefix_queries = self._prefix_hits = 0
        self._finished = {"stop": 0, "length": 0, "abort": 0}
        self.page = EnginePage(self._model_name, self._state)

    def reset(self) -> None:
        """As after a restart: nothing runs, nothing is cached, counters are zero. Running requests are interrupted."""
        for ticket in self._tickets.values():
            ticket.failure = Interrupted("the engine was reset")
            ticket.changed.set()
        self._tickets.clear()
        self._start_over()
        self._wake.set()

    def set_speed(self, speed: float) -> None:
        self.pump()
        self.clock.set_speed(speed)
        self._wake.set()

    def submit(self, prompt: str, prompt_tokens: int, max_tokens: int, min_tokens: int) -> Ticket:
        """Queues a request; how long its answer becomes is drawn here, `min_tokens` <= length <= `max_tokens`."""
        now = self.clock.now()
        cached = min(self._prefixes.match(prompt), max(0, prompt_tokens - 1))
        self._prefix_queries += prompt_tokens
        self._prefix_hits += cached
        drawn = math.ceil(self._rng.expovariate(1.0 / self._mean_output_tokens))
        output = max(1, min_tokens, min(drawn, max_tokens))
        self._serial += 1
        reason = "length" if output >= max_tokens else "stop"
        ticket = Ticket(str(self._serial), prompt_tokens, cached, output, reason, now)
        self._tickets[ticket.request_id] = ticket
        self._batch.submit(ticket.request_id, prompt_tokens, output, cached, self.clock.model(now))
        self.pump()
        self._wake.set()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """The caller went away. Nothing happens to a request that has ended."""
        if self._tickets.pop(ticket.request_id, None) is ticket:
            self._batch.cancel(ticket.request_id, self.clock.model(self.clock.now()))
            self._finished["abort"] += 1
            self._wake.set()

    async def completed(self, ticket: Ticket) -> None:
        """Returns with the last token. Raises Overloaded or Interrupted."""
        while not ticket.ended:
            ticket.changed.clear()
            await ticket.changed.wait()
        if ticket.failure is not None:
            raise ticket.failure

    async def tokens(self, ticket: Ticket) -> AsyncIterator[int]:
        """Yields how many tokens came since the last time. Raises Overloaded or Interrupted."""
        sent = 0
        while True:
            self.pump()
            if ticket.failure is not None:
                raise ticket.failure
            there = ticket.output_tokens if ticket.ended else self._batch.generated(ticket.request_id)
            if there > sent:
                yield there - sent
                sent = there
            elif not ticket.ended:
                await self._next_token(ticket)
            if ticket.ended and sent == ticket.output_tokens:
                return

    async def _next_token(self, ticket: Ticket) -> None:
        ticket.changed.clear()
        due = self._batch.next_token_at(ticket.request_id)
        wait = None
        if due is not None:
            wait = max(MIN_STREAM_INTERVAL_SECONDS, self.clock.real(due) - self.clock.now())
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await ticket.changed.wait()

    async def run(self) -> None:
        """Drives the model; ends when it is cancelled."""
        while True:
            self._wake.clear()
            self.pump()
            due = self._batch.next_event_at()
            wait = None if due is None else max(0.0, self.clock.real(due) - self.clock.now())
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def pump(self) -> None:
        """Brings the model up to now and wakes whoever waits for what happened."""
        for event in self._batch.advance(self.clock.model(self.clock.now())):
            ticket = self._tickets.get(event.request_id)
            if ticket is not None:
                self._apply(ticket, event)

    def _apply(self, ticket: Ticket, event: BatchEvent) -> None:
        at = self.clock.real(event.at)
        match event.kind:
            case BatchEventKind.FIRST_TOKEN:
                ticket.first_token_at = at
                self.page.time_to_first_token.observe(at - ticket.arrived)
            case BatchEventKind.FINISHED:
                ticket.finished_at = at
                del self._tickets[ticket.request_id]
                self._finished[ticket.finish_reason] += 1
                self.page.request_latency.observe(at - ticket.arrived)
                gaps = ticket.output_tokens - 1
                for _ in range(gaps):
                    self.page.inter_token_latency.observe((at - (ticket.first_token_at or at)) / gaps)
            case BatchEventKind.REJECTED:
                del self._tickets[ticket.request_id]
                ticket.failure = Overloaded(
                    f"{self._batch.waiting} requests wait (at most {self.profile.max_waiting} may), or the request's "
                    f"{ticket.prompt_tokens + ticket.output_tokens} tokens exceed the KV cache of "
                    f"{self.profile.kv_cache_tokens}; try again later or elsewhere"
                )
        ticket.changed.set()

    def _state(self) -> EngineState:
        self.pump()
        return EngineState(
            running=self._batch.running,
            waiting=self._batch.waiting,
            kv_used=self._batch.kv_used,
            kv_cache_tokens=self.profile.kv_cache_tokens,
            prompt_tokens=self._batch.prefilled_tokens,
            generated_tokens=math.floor(self._batch.generated_tokens + 1e-6),
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
            finished=self._finished,
            adapters=tuple(sorted(self.adapters)),
            adapters_time=max(self.adapters.values(), default=0.0),
        )

    @property
    def load(self) -> tuple[int, int, float]:
        """Requests that run, requests that wait, and the used share of the KV cache."""
        self.pump()
        return self._batch.running, self._batch.waiting, self._batch.kv_used / self.profile.kv_cache_tokens
