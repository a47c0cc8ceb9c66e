"""What a deployment's speed is, learned slowly from what happens to its requests.

Time to first token is modelled as  least + seconds_per_token × (prompt tokens that were not cached).

A request that met a queue took longer than that, never shorter, so the line sought is the lower edge of the cloud,
not its middle: a least-squares fit in which a point above the line counts a tenth of one below it (an expectile).
It needs five sums, no list of samples; each sample makes the older ones count 1 % less. A ridge pulls the slope to
that of a middling GPU, as strongly as ten samples 200 tokens apart: where all prompts are alike the data cannot tell
slope from intercept, and without the ridge a chat node's overhead would be charged to every token of a book.
"""

from __future__ import annotations

import math

# 5,000 prompt tokens/s: between a 70B model on four A100 and an 8B model on one.
PRIOR_SECONDS_PER_TOKEN = 2e-4
# (200 tokens)² × 10 samples.
RIDGE = 4e5
LATE_WEIGHT = 0.1
# What came later than this many times the line met a jam; a minute in it must not weigh like hundreds of answers.
LATEST = 4.0
LATEST_SECONDS = 0.05
MEMORY = 0.99
# Before this many answers the line says more about chance than about the node.
MIN_SAMPLES = 10
# Fewer output tokens than this measure the network, not the decoder.
MIN_DECODED_TOKENS = 8


class SpeedLearner:
    """The line and the decode rate of one deployment."""

    __slots__ = ("_decode", "_decoded", "_n", "_sw", "_swx", "_swxx", "_swxy", "_swy", "intercept", "slope")

    def __init__(self) -> None:
        self._n = 0
        self._sw = self._swx = self._swxx = self._swy = self._swxy = 0.0
        self.slope = PRIOR_SECONDS_PER_TOKEN
        self.intercept = 0.0
        self._decode: float | None = None
        self._decoded = 0

    def observe_first_token(self, tokens: float, seconds: float) -> None:
        """One answer's uncached prompt tokens and its seconds to the first token."""
        weight = 1.0
        expected = self.intercept + self.slope * tokens
        if self._n > 0 and seconds > expected:
            weight = LATE_WEIGHT
            seconds = min(seconds, LATEST * expected + LATEST_SECONDS)
        self._sw = self._sw * MEMORY + weight
        self._swx = self._swx * MEMORY + weight * tokens
        self._swxx = self._swxx * MEMORY + weight * tokens * tokens
        self._swy = self._swy * MEMORY + weight * seconds
        self._swxy = self._swxy * MEMORY + weight * tokens * seconds
        self._n += 1
        x, y = self._swx / self._sw, self._swy / self._sw
        spread = max(0.0, self._swxx - self._swx * x)
        slope = (self._swxy - self._swx * y + RIDGE * PRIOR_SECONDS_PER_TOKEN) / (spread + RIDGE)
        # Neither a token nor a request takes negative time: then the line goes through the mean and the origin.
        self.slope = min(max(slope, 0.0), y / x) if x > 0.0 else max(slope, 0.0)
        self.intercept = max(0.0, y - self.slope * x)

    def observe_decode(self, tokens: float, seconds: float) -> None:
        """Output tokens after the first one, and the seconds that they took."""
        if tokens < MIN_DECODED_TOKENS or seconds <= 0.0:
            return
        self.observe_decode_rate(tokens / seconds)

    def observe_decode_rate(self, tokens_per_second: float) -> None:
        if not math.isfinite(tokens_per_second) or tokens_per_second <= 0.0:
            return
        self._decoded += 1
        share = max(0.05, 1.0 / self._decoded)
        before = tokens_per_second if self._decode is None else self._decode
        self._decode = before + share * (tokens_per_second - before)

    @property
    def prefill_seconds_per_token(self) -> float | None:
        return self.slope if self._n >= MIN_SAMPLES else None

    @property
    def min_time_to_first_token_seconds(self) -> float | None:
        return self.intercept if self._n >= MIN_SAMPLES else None

    @property
    def decode_tokens_per_second(self) -> float | None:
        return self._decode
