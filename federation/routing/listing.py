"""All candidates of a request, ranked at once, and told one by one when somebody reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from federation.routing.telling import ages_of
from policies.pipeline import candidate
from policies.types import Candidate, Code

if TYPE_CHECKING:
    from federation.routing.decisions import Record


class Candidates(Sequence[Candidate]):
    """Those of a record that the caller may know of: the eligible by score, then the rejected by name."""

    def __init__(self, record: Record) -> None:
        found, names, rows = record.evaluation, record.table.pool.names, record.rows.tolist()
        rejected = np.flatnonzero((found.code != 0) & (found.code != Code.TENANT.value)).tolist()
        self._record = record
        self._places = [*map(int, found.order), *sorted(rejected, key=lambda place: names[rows[place]])]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Candidate, ...]: ...

    def __getitem__(self, index: int | slice) -> Candidate | tuple[Candidate, ...]:
        places = self._places[index]
        return self._told(places) if isinstance(places, int) else tuple([self._told(place) for place in places])

    def _told(self, place: int) -> Candidate:
        record = self._record
        return candidate(record.evaluation, place, record.choice(place), ages_of(record, place))
