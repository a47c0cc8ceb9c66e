"""Durations and timestamps; a message that is absent is None."""

from __future__ import annotations

import math

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

# The longest that a Duration may say (10,000 years); an infinite wait is told as this.
MAX_SECONDS = 315_576_000_000
# The first and the last second that a Timestamp may say: of the years 1 and 9999.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799


def duration(seconds: float) -> Duration:
    """A Duration; not a number is zero."""
    if not -MAX_SECONDS < seconds < MAX_SECONDS:
        return Duration(seconds=0 if math.isnan(seconds) else int(math.copysign(MAX_SECONDS, seconds)))
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def optional_duration(seconds: float | None) -> Duration | None:
    return None if seconds is None else duration(seconds)


def seconds_of(message: Duration) -> float:
    return message.seconds + message.nanos * 1e-9


def timestamp(unix_seconds: float) -> Timestamp:
    """A Timestamp; what lies outside the years that it can tell is their first or last second."""
    if not FIRST_SECOND <= unix_seconds <= LAST_SECOND:
        return Timestamp(seconds=FIRST_SECOND if unix_seconds < FIRST_SECOND else LAST_SECOND)
    whole = math.floor(unix_seconds)
    return Timestamp(seconds=whole, nanos=int((unix_seconds - whole) * 1e9))


def unix_seconds_of(message: Timestamp) -> float:
    return message.seconds + message.nanos * 1e-9
