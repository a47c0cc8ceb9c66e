"""Outcomes on their way to the control plane: a bounded queue and what to do when a batch is refused. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Any

import grpc

from federation.edge.errors import RouteError
from federation.v1 import routing_pb2

MAX_BATCH = 500
FLUSH_SECONDS = 0.05
# Ten seconds of a busy gateway (1,000 outcomes a second); what is older than that no longer helps anyone.
MAX_QUEUED = 10_000
# Deadline of one batch: it is taken in milliseconds, and while it waits for a lost replica, free room looks taken. One
# that arrived all the same and is sent again is harmless.
BATCH_SECONDS = 2.0
FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 2.0

PERMANENT: frozenset[Any] = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
    }
)


class Verdict(Enum):
    """What a failed batch calls for."""

    RETRY = "retry"
    # One bad outcome must not take hundreds of good ones with it: send the halves.
    SPLIT = "split"
    DISCARD = "discard"


def verdict(error: RouteError, size: int) -> Verdict:
    if error.code is grpc.StatusCode.INVALID_ARGUMENT:
        return Verdict.SPLIT if size > 1 else Verdict.DISCARD
    return Verdict.DISCARD if error.code in PERMANENT else Verdict.RETRY


class OutcomeQueue:
    """Waiting outcomes, oldest dropped first when full. The counters are for whoever watches the gateway."""

    def __init__(self, limit: int = MAX_QUEUED) -> None:
        self._limit = limit
        self._batches: deque[list[routing_pb2.Outcome]] = deque()
        self._fresh: deque[routing_pb2.Outcome] = deque()
        self._in_batches = 0
        # Never sent: the queue was full while the control plane was away, or the client closed first.
        self.dropped = 0
        # Sent, and refused for good.
        self.refused = 0
        self.delivered = 0

    def __len__(self) -> int:
        return self._in_batches + len(self._fresh)

    def add(self, outcome: routing_pb2.Outcome) -> None:
        self._fresh.append(outcome)
        while len(self) > self._limit:
            self._drop_oldest()

    def take(self) -> list[routing_pb2.Outcome]:
        """The next batch to send: one that came back, else the oldest outcomes; empty if there is none."""
        if self._batches:
            batch = self._batches.popleft()
            self._in_batches -= len(batch)
            return batch
        return [self._fresh.popleft() for _ in range(min(MAX_BATCH, len(self._fresh)))]

    def failed(self, batch: Sequence[routing_pb2.Outcome], error: RouteError) -> Verdict:
        """Books a batch that was taken and not delivered."""
        what = verdict(error, len(batch))
        match what:
            case Verdict.RETRY:
                self._give_back(list(batch))
            case Verdict.SPLIT:
                half = len(batch) // 2
                self._give_back(list(batch[half:]))
                self._give_back(list(batch[:half]))
            case Verdict.DISCARD:
                self.refused += len(batch)
        return what

    def drop_all(self) -> None:
        """The client closes; what is left is lost."""
        self.dropped += len(self)
        self._batches.clear()
        self._fresh.clear()
        self._in_batches = 0

    def _give_back(self, batch: list[routing_pb2.Outcome]) -> None:
        self._batches.appendleft(batch)
        self._in_batches += len(batch)
        while len(self) > self._limit:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self.dropped += 1
        if not self._batches:
            self._fresh.popleft()
            return
        oldest = self._batches[0]
        oldest.pop(0)
        self._in_batches -= 1
        if not oldest:
            self._batches.popleft()
