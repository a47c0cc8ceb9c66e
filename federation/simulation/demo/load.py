"""Requests as they come, from every origin at its rate, and who got them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from statistics import median

from federation.simulation.demo.gateway import Ask, Gateway, Sent

# Short, so that a trial of a recovering node takes under a second.
ANSWER_TOKENS = 16


class Load:
    """Arrivals without memory. `sent` holds every request in the order of its arrival, those under way too."""

    def __init__(self, gateway: Gateway, *, clock: Callable[[], float], rng: Random) -> None:
        self._gateway, self._clock, self._rng = gateway, clock, rng
        self._under_way: set[asyncio.Task[None]] = set()
        self._broken: list[BaseException] = []
        self.sent: list[Sent] = []
        # Of requests that come from now on.
        self.answer_tokens = ANSWER_TOKENS

    @asynccontextmanager
    async def coming(self, rates: Mapping[str, float], *, answer_tokens: int = ANSWER_TOKENS) -> AsyncIterator[None]:
        """Requests come at `rates` (a second, by origin) while the block runs; those under way are waited for."""
        self.answer_tokens = answer_tokens
        arrivals = [
            asyncio.create_task(self._arrive(origin, rate, Random(self._rng.getrandbits(64))))
            for origin, rate in rates.items()
        ]
        try:
            yield
            for task in arrivals:
                task.cancel()
            await asyncio.gather(*self._under_way)
        finally:
            left = [*arrivals, *self._under_way]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        if self._broken:
            raise self._broken[0]

    async def _arrive(self, origin: str, rate: float, rng: Random) -> None:
        due = self._clock()
        while True:
            # Due times add up, so that a slow machine gets the same requests and not fewer.
            due += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - self._clock()))
            sent = Sent(Ask(origin, rng.randint(700, 900), self.answer_tokens), self._clock())
            self.sent.append(sent)
            task = asyncio.create_task(self._send(sent))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    async def _send(self, sent: Sent) -> None:
        await self._gateway.send(sent)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken.append(error)


@dataclass(frozen=True, slots=True)
class Got:
    """What one node got of some requests. Times are medians at the caller, None where nothing was answered."""

    node: str
    requests: int
    share: float
    predicted_seconds: float | None
    first_token_seconds: float | None


def decided(sent: Iterable[Sent], origin: str = "") -> list[Sent]:
    """Those with a decision, of one origin or of all."""
    return [each for each in sent if each.decision is not None and origin in ("", each.ask.origin)]


def shares(sent: Iterable[Sent]) -> dict[str, float]:
    """The share of decisions by node; nothing where there are none."""
    counts = Counter(each.target for each in sent if each.decision is not None)
    return {node: count / counts.total() for node, count in counts.items()}


def got(sent: Iterable[Sent]) -> list[Got]:
    """What each node got, the largest share first."""
    all_decided = decided(sent)
    share = shares(all_decided)
    rows = []
    for node in sorted(share, key=lambda node: (-share[node], node)):
        own = [each for each in all_decided if each.target == node]
        told = [
            each.decision.target.estimated_time_to_first_token.ToNanoseconds() / 1e9 for each in own if each.decision
        ]
        first = [
            each.attempts[0].first_token_seconds
            for each in own
            if each.attempts and each.attempts[0].first_token_seconds is not None
        ]
        rows.append(Got(node, len(own), share[node], median(told) if told else None, median(first) if first else None))
    return rows
