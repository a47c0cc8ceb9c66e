"""What is kept of decisions: the newest in memory, a sample as JSON lines on disk."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        self._records: deque[Record] = deque(maxlen=keep)
        # Of each run of decisions by one table the first number, oldest run first, and the last run's table.
        self._tables: deque[int] = deque()
        self._table: Table | None = None

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record) -> None:
        self._records.append(record)
        if record.frame.table is not self._table:
            self._begin(record)

    def _begin(self, record: Record) -> None:
        """A run of another table begins; old ones go."""
        records, tables = self._records, self._tables
        if not self.keep:
            return
        self._table = record.frame.table
        tables.append(record.number)
        while len(tables) > 1 and tables[1] <= records[0].number:
            tables.popleft()
        most = max(8, TABLES_BYTES // (TABLE_BYTES_PER_ROW * (len(self._table.pool) + 1)))
        while len(tables) > most:
            tables.popleft()
            while records[0].number < tables[0]:
                records.popleft()

    def get(self, number: int) -> Record | None:
        records = self._records
        if not records or not records[0].number <= number <= records[-1].number:
            return None
        # Numbers of refused requests are missing between them; mostly there are none.
        place = len(records) - 1 - (records[-1].number - number)
        if place < 0 or records[place].number != number:
            place = bisect_left(records, number, key=lambda record: record.number)
        found = records[place]
        return found if found.number == number else None

    def newest(self, count: int) -> list[Record]:
        """The newest records, oldest of them first."""
        records = list(self._records)
        return records[-count:] if count else []


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
