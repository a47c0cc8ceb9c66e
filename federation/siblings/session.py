"""One session between two replicas of a region: a message or the time goes in, effects come out. No I/O, no clock.

                 hello of the sibling
    GREETING ───────────────────────────► UP
        │                                  │
        └─── refusal, gap, silence, goodbye ┴──► CLOSED

Both sides say who they are and prove it by the other's incarnation, which stands in their database alone. News are
numbered: a repeat is passed over, a gap closes, and the next session begins with everything that is a state. Events on
the way are lost then; each replica has learned its own ones, and a circuit that one of them opened is a state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from federation.peering.messages import Close, Goodbye, Send
from federation.siblings.messages import Effect, Heard, Hello, Life, Message, Met, News

# Thirty news. A shorter pause may be one of a busy machine; a longer one leaves a dead replica's nodes unprobed.
SILENCE_SECONDS = 3.0
# How long the least way counts by which others are found to be late; clocks of two machines part slowly.
WAY_SECONDS = 30.0


class Stage(Enum):
    GREETING = "greeting"
    UP = "up"
    CLOSED = "closed"


class Session:
    """`open` once on the side that dialed, then `receive`, `tell` and `tick`; nothing but a Close comes after one."""

    def __init__(
        self, me: Life, *, now: float, incarnation_of: Callable[[str], str], expected: Life | None = None
    ) -> None:
        """`incarnation_of` answers a replica's life as the database has it, "" where it is not there; `expected` is
        who was dialed."""
        self.me = me
        self.stage = Stage.GREETING
        self.sibling: Life | None = None
        self.heard_at = now
        # Numbers of the last news that were said and heard, and the last of ours that the sibling had heard.
        self.told = 0
        self.heard = 0
        self.echoed = 0
        self._incarnation_of = incarnation_of
        self._expected = expected
        # The least difference of the clocks that a way took, of this while and of the one before.
        self._ways = (float("inf"), float("inf"))
        self._ways_since = now

    @property
    def closed(self) -> bool:
        return self.stage is Stage.CLOSED

    @property
    def is_up(self) -> bool:
        return self.stage is Stage.UP

    def open(self) -> tuple[Effect, ...]:
        """The hello of the side that opened the stream."""
        assert self._expected is not None, "who dials knows whom"
        return (Send(Hello(self.me, self._expected.incarnation)),)

    def receive(self, message: Message, now: float) -> tuple[Effect, ...]:
        """What follows from a message of the sibling."""
        if self.closed:
            return ()
        self.heard_at = now
        match message:
            case Hello(life, to_incarnation):
                return self._hello(life, to_incarnation)
            case Goodbye(reason, refused):
                self.stage = Stage.CLOSED
                return (Close(f"the sibling ended it: {reason}", refused),)
            case News() if self.is_up:
                return self._news(message, now)
            case _:
                return self._close(f"its first message is {type(message).__name__}, not a hello")

    def tell(self, news: News, now: float) -> tuple[Effect, ...]:
        """Says the next news."""
        if not self.is_up:
            return ()
        self.told += 1
        return (Send(replace(news, sequence=self.told, echo=self.heard, sent_at=now)),)

    def tick(self, now: float) -> tuple[Effect, ...]:
        """The end of a session in which nothing is heard."""
        if self.closed or now - self.heard_at < SILENCE_SECONDS:
            return ()
        return self._close(f"nothing heard for {now - self.heard_at:.1f} s")

    def end(self, reason: str) -> tuple[Effect, ...]:
        """Ends the session on purpose."""
        return () if self.closed else self._close(reason)

    def _hello(self, life: Life, to_incarnation: str) -> tuple[Effect, ...]:
        if self.sibling is not None:
            # A repeat; a sibling that became another one would have opened another stream.
            return () if life == self.sibling else self._close("it said hello twice, as two replicas")
        expected = self._expected
        known = self._incarnation_of(life.replica_id) if expected is None else expected.incarnation
        if life.replica_id == self.me.replica_id or (expected is not None and life.replica_id != expected.replica_id):
            return self._close(f"{life.replica_id} is not the replica that was meant")
        if not known or to_incarnation != self.me.incarnation or life.incarnation != known:
            # One that started a moment ago is not read yet, and dials again.
            return self._close(f"{life.replica_id} is no replica in this life, by the database")
        self.sibling = life
        self.stage = Stage.UP
        greeting = (Send(Hello(self.me, life.incarnation)),) if expected is None else ()
        return (*greeting, Met(life))

    def _news(self, news: News, now: float) -> tuple[Effect, ...]:
        if news.sequence <= self.heard:
            return ()
        if news.sequence > self.heard + 1:
            return self._close(f"a gap: news {news.sequence} after {self.heard}")
        self.heard = news.sequence
        self.echoed = max(self.echoed, min(news.echo, self.told))
        if now - self._ways_since >= WAY_SECONDS:
            self._ways, self._ways_since = (float("inf"), self._ways[0]), now
        way = now - news.sent_at
        self._ways = (min(self._ways[0], way), self._ways[1])
        return (Heard(news, way - min(self._ways)),)

    def _close(self, reason: str) -> tuple[Effect, ...]:
        self.stage = Stage.CLOSED
        return (Send(Goodbye(reason)), Close(reason))
