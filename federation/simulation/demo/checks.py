"""How scenes check what they show, and wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

POLL_SECONDS = 0.05
# Nothing that is waited for takes a fifth of it on an idle machine.
PATIENCE_SECONDS = 60.0

# Whether what is waited for is there, and what is there instead.
Look = Callable[[], Awaitable[tuple[bool, object]]]


class NotShown(Exception):
    """A scene did not show what it says."""

    def __init__(self, expected: str, seen: object) -> None:
        super().__init__(f"expected {expected}; seen: {seen}")
        self.expected, self.seen = expected, str(seen)


def expect(holds: bool, expected: str, seen: object) -> None:
    """NotShown unless it holds."""
    if not holds:
        raise NotShown(expected, seen)


async def until(expected: str, look: Look, seconds: float = PATIENCE_SECONDS) -> None:
    """Returns once `look` says True; NotShown with what it said last where that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        holds, seen = await look()
        if holds:
            return
        if time.monotonic() > deadline:
            raise NotShown(f"{expected} within {seconds:g} s", seen)
        await asyncio.sleep(POLL_SECONDS)
