"""Long work in turns: whoever else has something to do on the event loop does it in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
F = TypeVar("F")
# Work that yields after each piece of it, a resource say, and answers in the end.
Steps = Generator[None, None, T]
# Pieces that are done in one go: of nodes they take half a millisecond.
IN_ONE_GO = 8


async def in_turns(steps: Steps[T]) -> T:
    """What steps come to, with pauses between them."""
    done = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
        done += 1
        if done % IN_ONE_GO == 0:
            await asyncio.sleep(0)


def each(work: Callable[[F], T], pieces: Iterable[F]) -> Steps[list[T]]:
    """Work on pieces, one after the other, as steps."""
    found: list[T] = []
    for piece in pieces:
        yield
        found.append(work(piece))
    return found


def at_once(steps: Steps[T]) -> T:
    """What steps come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
