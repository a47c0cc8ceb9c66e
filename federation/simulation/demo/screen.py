"""What the demonstration prints: scenes, events with their time, tables, decisions. 100 columns do, colour is spare."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from federation.cli.figures import duration, share
from federation.cli.output import print_lines
from federation.cli.table import Column, cell, console, heading, rows_of, show
from federation.cli.why import show_route
from federation.simulation.demo.load import Got

WIDTH = 100

GOT = (
    Column("NODE", lambda row: row.node),
    Column("REQUESTS", lambda row: str(row.requests), right=True),
    Column("SHARE", lambda row: share(row.share), right=True),
    Column("FIRST TOKEN PREDICTED", lambda row: duration(row.predicted_seconds), right=True),
    Column("MEASURED (MEDIAN)", lambda row: duration(row.first_token_seconds), right=True),
)


class Screen:
    """Prints to stdout as the story goes; `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        # Off a terminal tables are wide, for grep and awk; this is for reading.
        if not sys.stdout.isatty():
            os.environ.setdefault("COLUMNS", str(WIDTH))

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._started

    def title(self, text: str) -> None:
        show(heading(text))

    def scene(self, number: int, title: str, promise: str) -> None:
        """The head of a scene and what it is going to show."""
        self._rule(f"Scene {number}: {title}")
        show(cell(promise, "dim"))

    def command(self, title: str, command: str) -> None:
        """A command whose output comes next."""
        self._rule(title)
        self.line(f"$ {command}")
        show(cell(""))

    def _rule(self, title: str) -> None:
        show(cell(""), heading(f"── {title} ".ljust(min(console().width, WIDTH), "─")))

    def event(self, text: str, style: str = "none") -> None:
        """Something that happened now."""
        from rich.table import Table

        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=8, no_wrap=True, justify="right")
        grid.add_column(max_width=min(console().width, WIDTH) - 10)
        grid.add_row(cell(f"{self.seconds:.1f} s", "dim"), cell(text, style))
        show(grid)
        sys.stdout.flush()

    def shown(self, text: str) -> None:
        """What was to be shown has been seen."""
        self.event(f"ok: {text}", "green")

    def failed(self, text: str) -> None:
        self.event(text, "bold red")

    def text(self, text: str) -> None:
        show(cell(text))

    def line(self, text: str) -> None:
        """Text that is to be copied: never folded."""
        print_lines([text])

    def decision(self, decision: Any) -> None:
        """A decision as `fairway route` prints it."""
        show(cell(""))
        show_route(decision)
        show(cell(""))

    def table(self, columns: Sequence[Column], rows: Sequence[Any]) -> None:
        show(cell(""), rows_of(columns, rows), cell(""))

    def got(self, rows: Sequence[Got]) -> None:
        self.table(GOT, rows)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Says what is waited for; on a terminal with something that moves."""
        target = console()
        if target.is_terminal:
            with target.status(text):
                yield
        else:
            self.event(text, "dim")
            yield
