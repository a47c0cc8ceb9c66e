"""Which slot of the state each row of the table has, followed from table to table."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from federation.routing.state import State
from federation.routing.table import Table
from policies.pool import IntArray


class Seats:
    """Whose a slot is, and which slots a node's deployments have."""

    def __init__(self, state: State) -> None:
        self._state = state
        # By slot; "" where nobody has it.
        self._names: list[str] = []
        self._table: Table | None = None
        self._slots: IntArray = np.zeros(0, dtype=np.int64)

    def name(self, slot: int) -> str:
        """Whose a slot is; "" where nobody has it."""
        return self._names[slot] if 0 <= slot < len(self._names) else ""

    def of_node(self, node: str) -> list[tuple[int, int]]:
        """Row in the table, and slot, of each of a node's deployments; none of a node that is not in the table."""
        if self._table is None:
            return []
        names = self._table.pool.names
        # "0" is what comes after "/".
        first, end = bisect_left(names, f"{node}/"), bisect_left(names, f"{node}0")
        return list(enumerate(self._slots[first:end].tolist(), first))

    def _sit(self, slot: int, name: str) -> None:
        if slot >= len(self._names):
            self._names.extend([""] * (slot + 1 - len(self._names)))
        self._names[slot] = name

    def follow(self, table: Table) -> IntArray:
        """The slots of a table's rows. Who is new takes one, in the order of names; who is gone gives its own back."""
        before, self._table = self._table, table
        names, (came_from, source) = table.pool.names, table.compiled.step
        if before is not None and before.pool.names is names:
            return self._slots
        if before is not None and before.pool.names is came_from and source is not None:
            self._slots = self._moved(before, table, source)
            return self._slots
        self._slots = self._state.slots_for(names, table.built_at)
        self._names.clear()
        for slot, name in zip(self._slots.tolist(), names, strict=True):
            self._sit(slot, name)
        return self._slots

    def _moved(self, before: Table, table: Table, source: IntArray) -> IntArray:
        """The same where the rows came from those before."""
        stays = np.zeros(len(before.pool.names), dtype=np.bool_)
        stays[source[source >= 0]] = True
        gone = np.flatnonzero(~stays).tolist()
        new = np.flatnonzero(source < 0)
        self._state.give_back([before.pool.names[row] for row in gone], table.built_at)
        for row in gone:
            self._sit(int(self._slots[row]), "")
        slots: IntArray = self._slots[source] if len(self._slots) else np.zeros(len(source), dtype=np.int64)
        for row in new.tolist():
            name = table.pool.names[row]
            slots[row] = slot = self._state.take(name, table.built_at)
            self._sit(slot, name)
        return slots
