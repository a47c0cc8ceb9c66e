"""What `--stay` does once all was shown: says what can be tried, and waits."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

from federation.simulation.demo.screen import Screen


async def stay_until_ended(screen: Screen, title: str, commands: Iterable[str]) -> None:
    """Returns when somebody ends it."""
    screen.text("")
    screen.title(title)
    for command in commands:
        screen.line(f"  {command}")
    sys.stdout.flush()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        screen.text("Ending all processes.")
