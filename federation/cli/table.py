"""Tables and prose for people: aligned, quiet, coloured only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

# Off a terminal a row is never folded, so that grep and awk see whole lines; prose is wrapped all the same.
UNFOLDED_WIDTH = 1000
PROSE_WIDTH = 100
BAR_WIDTH = 8
GAP = 2
# Narrower, and a sentence stands in single words.
LEAST_FOLDED = 20

STYLES = {
    "healthy": "green",
    "active": "green",
    "ready": "green",
    "closed": "green",
    "up": "green",
    "ok": "green",
    "degraded": "yellow",
    "half_open": "yellow",
    "half-open": "yellow",
    "syncing": "yellow",
    "draining": "yellow",
    "loading": "cyan",
    "warn": "yellow",
    "unhealthy": "bold red",
    "open": "bold red",
    "down": "bold red",
    "refused": "bold red",
    "offline": "bold red",
    "expired": "bold red",
    "ejected": "bold red",
    "PANIC": "bold red",
    "fail": "bold red",
    "unknown": "dim",
    "-": "dim",
}


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column. Where the terminal is too narrow, spare columns go, the highest number first."""

    title: str
    right: bool = False
    # May be folded when the terminal is narrow; all others keep their width.
    folds: bool = False
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a list: its head, and how a row's cell reads and looks; `wide` ones show with -o wide only."""

    title: str
    cell: Callable[[Any], str]
    right: bool = False
    wide: bool = False
    folds: bool = False
    spare: int = 0
    style: Callable[[Any], str] | None = None


def style_of(text: str) -> str:
    """The colour of a word that tells a state; none for any other text."""
    return STYLES.get(text.split(" ", 1)[0], "")


def table_of(heads: Sequence[Head], rows: Sequence[Sequence[str | Text]], *, wide: bool = False) -> Table:
    """The rows as a table without lines, with as many columns as the width holds; `wide`: all of them."""
    from rich.table import Table

    widths = [
        max([len(head.title), *(cell_length(row[index]) for row in rows if index < len(row))])
        for index, head in enumerate(heads)
    ]
    # A folded column needs some width all the same.
    needed = [min(width, LEAST_FOLDED) if head.folds else width for head, width in zip(heads, widths, strict=True)]
    kept = list(range(len(heads)))
    room = console(wide=wide).width
    while sum(needed[index] + GAP for index in kept) - GAP > room:
        spare = max(kept, key=lambda index: heads[index].spare)
        if not heads[spare].spare:
            break
        kept.remove(spare)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_edge=False)
    for head in (heads[index] for index in kept):
        justify: Any = "right" if head.right else "left"
        table.add_column(head.title, justify=justify, no_wrap=not head.folds, overflow="fold")
    for row in rows:
        table.add_row(*(row[index] for index in kept if index < len(row)))
    return table


def cell_length(text: str | Text) -> int:
    """Columns that a text takes on a terminal."""
    from rich.cells import cell_len

    return cell_len(text) if isinstance(text, str) else text.cell_len


def rows_of(columns: Sequence[Column], rows: Iterable[Any], *, wide: bool = False) -> Table:
    """The rows of a list as a table."""
    shown = [column for column in columns if wide or not column.wide]
    heads = [Head(column.title, column.right, column.folds, column.spare) for column in shown]
    made = [
        [cell(column.cell(row), column.style(row) if column.style is not None else "") for column in shown]
        for row in rows
    ]
    return table_of(heads, made, wide=wide)


def cell(text: str, style: str = "") -> Text:
    """A cell; a word of state has its colour by itself. Never markup: names may hold brackets."""
    from rich.text import Text

    return Text(text, style=style or style_of(text))


def heading(text: str) -> Text:
    """A line over a part of the answer."""
    return cell(text, "bold")


def bar(value: float) -> str:
    """A share as a bar of fixed width; what lies beyond 0..1 is cut."""
    eighths = round(min(max(value, 0.0), 1.0) * BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(BAR_WIDTH)


def score_style(value: float) -> str:
    """Green, yellow or red by a place on 0..1."""
    if value >= 0.75:
        return "green"
    return "yellow" if value >= 0.4 else "red"


def console(*, wide: bool = False) -> Console:
    """Where answers go. Its width is the terminal's, or COLUMNS, or else, and when `wide`, none that folds."""
    from rich.console import Console

    width = None
    if wide or (not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdigit()):
        width = UNFOLDED_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def show(*parts: RenderableType, wide: bool = False) -> None:
    """Prints to stdout; off a terminal no line ends in blanks. `wide`: no line is folded, the terminal may."""
    from rich.text import Text

    target = console(wide=wide)
    with target.capture() as captured:
        for part in parts:
            # Prose is for reading, also in a file.
            prose = isinstance(part, (str, Text)) and len(part) > PROSE_WIDTH
            target.print(part, width=min(target.width, PROSE_WIDTH) if prose and not target.is_terminal else None)
    text = captured.get()
    if not target.is_terminal or wide:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    sys.stdout.write(text)
