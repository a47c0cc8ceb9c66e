"""Which slot of the state each row of the table has, followed from table to table."""

from __future__ import annotations

import numpy as np

from federation.routing.state import State
from federation.routing.table import Table
from policies.pool import IntArray


class Seats:
    """`names` tells whose a slot is, `of_node` which slots a node's deployments have."""

    def __init__(self, state: State) -> None:
        self.names: dict[int, str] = {}
        self.of_node: dict[str, list[int]] = {}
        self._state = state
        self._table: Table | None = None
        self._slots: IntArray = np.zeros(0, dtype=np.int64)

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
        self.names.clear()
        self.of_node.clear()
        for slot, name, node in zip(self._slots.tolist(), names, table.compiled.node_names, strict=True):
            self.names[slot] = name
            self.of_node.setdefault(node, []).append(slot)
        return self._slots

    def _moved(self, before: Table, table: Table, source: IntArray) -> IntArray:
        """The same where the rows came from those before."""
        stays = np.zeros(len(before.pool.names), dtype=np.bool_)
        stays[source[source >= 0]] = True
        gone = np.flatnonzero(~stays).tolist()
        new = np.flatnonzero(source < 0)
        self._state.give_back([before.pool.names[row] for row in gone], table.built_at)
        for row in gone:
            slot = int(self._slots[row])
            del self.names[slot]
            node = before.compiled.node_names[row]
            self.of_node[node].remove(slot)
            if not self.of_node[node]:
                del self.of_node[node]
        slots: IntArray = self._slots[source] if len(self._slots) else np.zeros(len(source), dtype=np.int64)
        for row in new.tolist():
            name, node = table.pool.names[row], table.compiled.node_names[row]
            slots[row] = slot = self._state.take(name, table.built_at)
            self.names[slot] = name
            self.of_node.setdefault(node, []).append(slot)
        return slots
