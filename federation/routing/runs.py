"""Runs: many decisions of one moment as columns, of which records are made when somebody asks for one.

Each is the record that it would be if it had been decided alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from federation.routing.decisions import Record
from federation.routing.frame import MAX_ALTERNATIVES, Frame, Visit, draw_two
from federation.routing.pairs import Pairs, drawn
from federation.routing.state import TURN, State
from federation.routing.table import Table
from policies import chance
from policies.errors import NoCandidate
from policies.pool import BoolArray, FloatArray, IntArray
from policies.types import Explain, Kind, RouteRequest

# Fewer requests in a row are decided faster one by one than by columns.
LEAST_RUN = 12


@dataclass(slots=True, eq=False)
class Run:
    """Requests that were decided by pairs, one after the other. Lists and columns go by the place in it."""

    # The first one's number, and its place among the requests that came together; the others' follow.
    number: int
    begin: int
    requests: Sequence[RouteRequest]
    frames: Sequence[Frame]
    tokens: Sequence[int]
    answers: Sequence[int]
    wanted: Sequence[int]
    # The seeds, and the first two draws of each.
    seeds: Sequence[int]
    ones: Sequence[int]
    twos: Sequence[int]
    # Whether the prompt and the answer fit into every context window that passes.
    fits: Sequence[bool]
    wall_time: float
    now: float
    pairs: Pairs
    # Who was looked at anew, since somebody had moved: as it was then.
    anew: dict[int, list[Visit]] = field(default_factory=dict)
    # What moved of all rows of small frames.
    whole: dict[int, FloatArray] = field(default_factory=dict)
    # What was told of how far measured times are off, of targets: the least and the greatest share of the predicted.
    intervals: dict[int, tuple[float, float]] = field(default_factory=dict)
    # Targets, the seconds at their nodes, and which of the two they are.
    rows: IntArray = field(init=False)
    at_node: FloatArray = field(init=False)
    second: BoolArray = field(init=False)
    _records: dict[int, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pairs = self.pairs
        self.second = pairs.second
        self.rows = np.where(pairs.second, pairs.rows[1], pairs.rows[0])
        self.at_node = np.where(pairs.second, pairs.at_node[1], pairs.at_node[0])

    @property
    def table(self) -> Table:
        return self.frames[0].table

    def again(self, place: int, state: State) -> int:
        """Draws for one of them as things are now; its target's slot, or -1 where no pair settles it."""
        frame = self.frames[place]
        if not self.fits[place]:
            return -1
        tokens, answer, wanted = self.tokens[place], self.answers[place], self.wanted[place]
        found = draw_two(frame, state, tokens, answer, self.ones[place], self.twos[place], wanted)
        if found is None:
            return -1
        if frame.small:
            self.whole[place] = state.matrix.take(frame.slots, axis=1)
        visits, row, self.at_node[place] = found
        self.rows[place] = row
        self.second[place] = row != visits[0][0]
        self.anew[place] = visits
        return frame.scalars.slot[row]

    def visits(self, place: int) -> list[Visit]:
        """Whom one decision looked at, as they were then."""
        found = self.anew.get(place)
        if found is None:
            rows = self.pairs.rows[:, place].tolist()
            moving = self.pairs.moving[: TURN + 1, :, place].T.tolist()
            found = [(row, *values) for row, values in zip(rows, moving, strict=True) if row >= 0]
        return found

    def record(self, place: int) -> Record:
        """One decision; the same object whenever it is asked for."""
        found = self._records.get(place)
        if found is None:
            found = Record(
                number=self.number + place,
                frame=self.frames[place],
                request=self.requests[place],
                tokens=self.tokens[place],
                answer=self.answers[place],
                seed=self.seeds[place],
                wanted=self.wanted[place],
                wall_time=self.wall_time,
                now=self.now,
                drawn=self.visits(place),
                entries=None,
                whole=self.whole.get(place),
                row=int(self.rows[place]),
                at_node=float(self.at_node[place]),
                by="picker",
                near=0,
                swept=False,
            )
            if place in self.intervals:
                found.told.intervals[found.target] = self.intervals[place]
            self._records[place] = found
        return found


@dataclass(frozen=True, slots=True)
class Section:
    """Decisions of a run that follow each other, from one number to before another."""

    run: Run
    number: int
    end: int

    @property
    def table(self) -> Table:
        return self.run.table

    def record(self, number: int) -> Record:
        return self.run.record(number - self.run.number)


def begun(
    known: Mapping[tuple[Kind, int, int], Frame],
    state: State,
    requests: Sequence[RouteRequest],
    begin: int,
    numbered: tuple[int, int],
    wall: float,
    now: float,
) -> tuple[Run | None, int]:
    """Pairs for requests from one place on, as far as pairs may decide them by frames that are there.

    `numbered` are the seed of all decisions and the first one's number.  Answers with how many these are, too; no run
    where they are too few.
    """
    frames: list[Frame] = []
    tokens: list[int] = []
    answers: list[int] = []
    wanted: list[int] = []
    fits: list[bool] = []
    full = Explain.FULL
    for place in range(begin, len(requests)):
        request = requests[place]
        prompt, answer, most = request.input_tokens, request.max_output_tokens, request.max_alternatives
        frame = known.get(
            (
                request.kind,
                -1 if prompt is None else prompt.bit_length(),
                -1 if answer is None else answer.bit_length(),
            )
        )
        # What has no frame yet may be made for what was decided before it.
        if frame is None or not frame.paired or frame.policy.shadow_policy:
            break
        if request.session_id or request.prefix_hashes or request.explain is full:
            break
        frames.append(frame)
        fits.append((prompt or 0) + (answer or 0) <= frame.ranking.window)
        tokens.append(frame.policy.assume.input_tokens if prompt is None else prompt)
        answers.append(frame.policy.assume.output_tokens if answer is None else answer)
        wanted.append(frame.policy.max_alternatives if most is None else min(most, MAX_ALTERNATIVES))
    length = len(frames)
    if length < LEAST_RUN:
        return None, length
    seeds, ones, twos = chance.columns(*numbered, length)
    pairs = drawn(
        frames,
        state,
        np.array(tokens, dtype=np.float64),
        np.array(answers, dtype=np.float64),
        np.array(wanted),
        np.array(fits),
        (ones, twos),
    )
    return Run(
        number=numbered[1],
        begin=begin,
        requests=requests[begin : begin + length],
        frames=frames,
        tokens=tokens,
        answers=answers,
        wanted=wanted,
        fits=fits,
        seeds=seeds.tolist(),
        ones=ones.tolist(),
        twos=twos.tolist(),
        wall_time=wall,
        now=now,
        pairs=pairs,
    ), length


class Placed(Sequence[Record | NoCandidate]):
    """What became of requests, in their order: a record, or why nobody may serve it.

    `parts` holds for each of them the run that decided it, or what stands here for it.
    """

    def __init__(self, parts: Sequence[Record | NoCandidate | Run]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    @overload
    def __getitem__(self, index: int) -> Record | NoCandidate: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record | NoCandidate]: ...

    def __getitem__(self, index: int | slice) -> Record | NoCandidate | list[Record | NoCandidate]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        part = self.parts[index]
        return part.record(index % len(self) - part.begin) if isinstance(part, Run) else part

    def runs(self) -> list[tuple[Run, list[int]]]:
        """The runs among them, and which places of each it decided."""
        found: dict[int, tuple[Run, list[int]]] = {}
        for place, part in enumerate(self.parts):
            if isinstance(part, Run):
                found.setdefault(part.begin, (part, []))[1].append(place - part.begin)
        return list(found.values())
