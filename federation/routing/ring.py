"""What is kept of decisions: the newest in memory, a sample as JSON lines on disk."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.routing.runs import Section
from federation.routing.table import Table

if TYPE_CHECKING:
    from federation.routing.decisions import Record

# A table takes about so many bytes a row beyond what it shares with the one before.
TABLE_BYTES_PER_ROW = 120
TABLES_BYTES = 64 << 20


class DecisionUnknown(LookupError):
    """No such decision is remembered here."""

    def __init__(self, decision_id: str, kept: int) -> None:
        super().__init__(
            f"decision {decision_id!r} is not remembered: the newest {kept} of this replica are kept in memory"
            " (routing.decisions_kept); older ones stand in routing.decision_log where one is written"
        )
        self.decision_id = decision_id


class DecisionRing:
    """The newest decisions of this replica, by number, which must rise.

    A decision keeps its table alive; so besides a count there is a bound on the memory of tables, and the decisions of
    the oldest table go first.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        # Alone, or several that were decided together.
        self._entries: deque[Record | Section] = deque()
        self._count = 0
        # Of each run of decisions by one table the first number, oldest run first, and the last run's table.
        self._tables: deque[int] = deque()
        self._table: Table | None = None

    def __len__(self) -> int:
        return min(self._count, self.keep)

    def add(self, entry: Record | Section) -> None:
        """Remembers a decision, or a section; of an old one none goes before all may."""
        entries = self._entries
        entries.append(entry)
        self._count += _size(entry)
        while self._count - (size := _size(entries[0])) >= self.keep:
            self._count -= size
            entries.popleft()
            if not entries:
                return
        if entry.table is not self._table:
            self._begin(entry)

    def _begin(self, entry: Record | Section) -> None:
        """A run of another table begins; old ones go."""
        entries, tables = self._entries, self._tables
        self._table = entry.table
        tables.append(entry.number)
        while len(tables) > 1 and tables[1] <= entries[0].number:
            tables.popleft()
        most = max(8, TABLES_BYTES // (TABLE_BYTES_PER_ROW * (len(self._table.pool) + 1)))
        while len(tables) > most:
            tables.popleft()
            while entries[0].number < tables[0]:
                self._count -= _size(entries.popleft())

    def get(self, number: int) -> Record | None:
        entries = self._entries
        if not entries or not entries[0].number <= number < _end(entries[-1]):
            return None
        # Numbers of refused requests are missing between them; mostly there are none, and each stands alone.
        place = len(entries) - (_end(entries[-1]) - number)
        if place < 0 or entries[place].number != number:
            place = bisect_right(entries, number, key=attrgetter("number")) - 1
        found = entries[place]
        return _record(found, number) if number < _end(found) else None

    def newest(self, count: int) -> list[Record]:
        """The newest records, oldest of them first."""
        found: list[Record] = []
        left = min(count, len(self))
        for entry in reversed(self._entries):
            if not left:
                break
            end = _end(entry)
            numbers = range(end - 1, max(entry.number, end - left) - 1, -1)
            found += [_record(entry, number) for number in numbers]
            left -= len(numbers)
        return found[::-1]


def _end(entry: Record | Section) -> int:
    return entry.end if isinstance(entry, Section) else entry.number + 1


def _size(entry: Record | Section) -> int:
    return entry.end - entry.number if isinstance(entry, Section) else 1


def _record(entry: Record | Section, number: int) -> Record:
    return entry.record(number) if isinstance(entry, Section) else entry


class DecisionLog:
    """Sampled decisions as JSON lines, rotated once at a size: `file` and `file.1`.

    Prompts, keys and tokens' texts are never part of a record.  Raises OSError where the file cannot be opened.
    """

    def __init__(self, path: Path, sample: float, max_bytes: int, draw: Callable[[], float]) -> None:
        self._path = path
        self._sample = sample
        self._max_bytes = max_bytes
        self._draw = draw
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def wants(self) -> bool:
        """Whether the next decision is in the sample."""
        return self._sample >= 1.0 or self._draw() < self._sample

    def write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        if self._file.tell() >= self._max_bytes:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("a", encoding="utf-8")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
