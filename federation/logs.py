"""Logging: one line an event, on stderr only; JSON for machines, colours for a terminal.

stdout belongs to the answers of the command line. Prompts, keys and tokens are never logged.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog

from federation.config import TelemetrySettings

Log = structlog.typing.FilteringBoundLogger

# Longer values are cut: an endpoint of 2,048 characters in a line is a nuisance, one of a megabyte an outage.
MAX_VALUE_CHARACTERS = 2_000


def configure(settings: TelemetrySettings, stream: TextIO | None = None) -> None:
    """Sets up structlog and the standard library's loggers for this process; again replaces what was set."""
    out = stream if stream is not None else sys.stderr
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        _cut_long_values,
    ]
    if pretty:
        rendering: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer(colors=out.isatty())]
    else:
        rendering = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    # grpc, aiohttp and SQLAlchemy speak through the standard library; what they warn of goes the same way.
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))


def get(**values: object) -> Log:
    """A logger that puts `values` on every line."""
    log: Log = structlog.get_logger(**values)
    return log


def _cut_long_values(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_VALUE_CHARACTERS and key != "exception":
            event[key] = f"{value[:MAX_VALUE_CHARACTERS]}… ({len(value)} characters)"
    return event


class RateLimited:
    """Lets the first few events of a second through and counts the rest: a flood of one kind is one line a second."""

    def __init__(self, per_second: int, now: Callable[[], float]) -> None:
        self._per_second = per_second
        self._now = now
        self._second = -1
        self._passed = 0
        self.suppressed = 0

    def admit(self) -> bool:
        """Whether this event may be logged; `suppressed` tells how many were not since the last that was."""
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._passed = 0
        if self._passed >= self._per_second:
            self.suppressed += 1
            return False
        self._passed += 1
        return True

    def taken(self) -> int:
        """How many were suppressed since this was last asked."""
        count, self.suppressed = self.suppressed, 0
        return count
