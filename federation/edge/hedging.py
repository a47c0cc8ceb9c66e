"""Which replica to ask, and when to ask a second one as well. Pure bookkeeping; the client does the asking."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

# A hedge comes after this many times the median answer: late enough to be rare, early enough to hide a lost replica.
DELAY_FACTOR = 3.0
FIRST_DELAY_SECONDS = 0.05
# Below this a pause of the interpreter would look like a lost replica.
MIN_DELAY_SECONDS = 0.01
# Attempts that one call may make, hedges and failovers included.
MAX_ATTEMPTS = 3
# Hedges in reserve, and what each call adds: at most one in ten calls is hedged for long.
MAX_TOKENS, TOKENS_A_CALL = 100.0, 0.1
# How long a replica that was late or away is asked last; doubles while it stays so.
FIRST_SUSPECT_SECONDS, MAX_SUSPECT_SECONDS = 5.0, 30.0


@dataclass(slots=True)
class _Lane:
    until: float = 0.0
    span: float = FIRST_SUSPECT_SECONDS


@dataclass(slots=True)
class Hedging:
    """One per client. `lanes` are replicas, by index; `now` is monotonic seconds."""

    lanes: int
    _state: list[_Lane] = field(default_factory=list)
    _turn: int = 0
    _tokens: float = MAX_TOKENS
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=101))
    _median: float | None = None
    _since_median: int = 0

    def __post_init__(self) -> None:
        self._state = [_Lane() for _ in range(self.lanes)]

    def order(self, now: float) -> list[int]:
        """Replicas for the next call: by turns, those under suspicion last. One alone is hedged by itself."""
        self._tokens = min(MAX_TOKENS, self._tokens + TOKENS_A_CALL)
        return self._turns(now)

    def lane(self, now: float) -> int:
        """The replica for a call that is not hedged: by turns, one under suspicion only where all are."""
        return self._turns(now)[0]

    def _turns(self, now: float) -> list[int]:
        self._turn = (self._turn + 1) % self.lanes
        turns = [(self._turn + offset) % self.lanes for offset in range(self.lanes)]
        if self.lanes == 1:
            turns *= 2
        return sorted(turns, key=lambda lane: self._state[lane].until > now)[:MAX_ATTEMPTS]

    def delay(self) -> float:
        """Seconds to wait for an answer before a second replica is asked."""
        if self._median is None:
            return FIRST_DELAY_SECONDS
        return max(MIN_DELAY_SECONDS, DELAY_FACTOR * self._median)

    def take_token(self) -> bool:
        """Whether the budget allows one more hedge."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def answered(self, lane: int, seconds: float) -> None:
        """The replica answered, with a decision or a refusal."""
        self._state[lane] = _Lane()
        self._latencies.append(seconds)
        self._since_median += 1
        # The median of a hundred moves slowly; sorting them for every call would not be free.
        if (self._median is None and len(self._latencies) >= 10) or self._since_median >= 16:
            self._median, self._since_median = statistics.median(self._latencies), 0

    def suspect(self, lane: int, now: float) -> None:
        """The replica did not answer, or later than another that was asked after it."""
        state = self._state[lane]
        if state.until > now:
            return
        state.until = now + state.span
        state.span = min(MAX_SUSPECT_SECONDS, 2 * state.span)
