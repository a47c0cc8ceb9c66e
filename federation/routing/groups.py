"""Groups: deployments of one zone, profile, price and health, which differ only in what moves.

Within a group the one with the least work of its own comes first, whoever asks and from wherever; so a decision looks
at the heads of a few groups instead of at every deployment.  Heads are kept sorted and follow each change of the state
by one insertion; when everything fades at once they are found anew, group by group, as decisions come to them.

    time at the node = work + factor × prefill      work = (pending · c · slow + wait + full) · suspicion
                                                    factor = slow · suspicion
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from federation.routing.state import IN_FLIGHT, PENDING, RUNNING, SUSPICION, WAIT, State
from policies.policy import Policy
from policies.pool import FloatArray, IntArray, Pool
from policies.prediction import fill, fill_least

# Heads kept of a group: as many as a few decisions look at between two times that everything fades; at most, where they
# did not do.
HEADS = 64
MOST_HEADS = 1_024
# Under so many members one by one is faster than columns.
FEW = 6
# Changes that are followed one by one, in all and of one group; after more, heads are found anew.
FOLLOWED = 1_024
CAUGHT_UP = 48
# With fewer members to a group than this (many learned profiles, say) there is little to share.
LEAST_SHARED = 3.0
# Up to so many groups a walk over them beats a pass over columns all the same.
SMALL = 256

# (key, row, slot, work, factor, slow, moving): the key is the time at the node for a prompt of the usual length, less
# what its speed is worth; `moving` is what the state said of it, in its order, which decisions keep.
Entry = tuple[float, int, int, float, float, float, Sequence[float]]


@dataclass(slots=True)
class Group:
    """Static figures of one group, and its heads: sorted, all that come before `floor`."""

    rows: IntArray
    slots: IntArray
    per_token: float
    least: float
    batch: float
    decode: float
    limit: float
    committed: float
    # Seconds that each request past the batch waits for a place in it.
    turn_seconds: float
    slowdown: float
    # Seconds that its speed is worth while nothing runs.
    speed: float
    # Prefill seconds of a prompt of the usual length: those near it find the heads in their own order.
    reference: float
    # The key of a member with nothing to do.
    idle: float
    # Row of a member's slot.
    row_of: dict[int, int]
    heads: list[Entry] = field(default_factory=list)
    known: dict[int, Entry] = field(default_factory=dict)
    floor: tuple[float, int] = (float("inf"), 0)
    # No member's factor is less, none more.
    low: float = 1.0
    high: float = 1.0
    filled: int = -1
    # Heads that are found at a time.
    most: int = HEADS
    # Members that changed since, one mention a change.
    stale: list[int] = field(default_factory=list)

    def entry(self, slot: int, state: State) -> Entry:
        """A member as the state has it now."""
        return self.entry_of(
            slot,
            (
                state.pending[slot],
                state.in_flight[slot],
                state.running[slot],
                state.wait[slot],
                state.suspicion[slot],
                state.turn[slot],
                state.trial[slot],
            ),
        )

    def entry_of(self, slot: int, moving: Sequence[float]) -> Entry:
        """A member of which the state said this."""
        pending, in_flight, running, wait, suspicion, _, _ = moving
        busy = in_flight if in_flight > running else running
        batch = self.batch
        slow = 1.0 + self.slowdown * (busy / batch if busy < batch else 1.0)
        work = pending * self.per_token * slow + wait
        if (queue := busy - batch + 1.0) > 0.0:
            work += queue * self.turn_seconds
        work *= suspicion
        factor = slow * suspicion
        return work + factor * self.reference - self.speed / slow, self.row_of[slot], slot, work, factor, slow, moving

    def least_for(self, key: float, more: float) -> float:
        """What nobody from this key on does better than, in seconds, for a prompt that takes so much more prefill than
        the usual one; less where it is negative.

        A shorter prompt is worth the most where the factor is highest; but the factor's share in a key is never more
        than the whole of it.
        """
        if more >= 0.0:
            return key + self.low * more
        factor = (key + self.speed) / self.reference
        return key + (factor if factor < self.high else self.high) * more

    def catch_up(self, state: State) -> None:
        """Puts members where they belong after changes."""
        stale, self.stale = self.stale, []
        if len(stale) > CAUGHT_UP:
            self.filled = -1
            return
        for slot in stale if len(stale) == 1 else set(stale):
            self._move(slot, state)

    def _move(self, slot: int, state: State) -> None:
        heads, old = self.heads, self.known.pop(slot, None)
        if old is not None:
            del heads[bisect_left(heads, old)]
        new = self.entry(slot, state)
        if new < self.floor:
            insort(heads, new)
            self.known[slot] = new
        elif not heads:
            self.filled = -1
        factor = new[4]
        if factor < self.low:
            self.low = factor
        if factor > self.high:
            self.high = factor

    def fill(self, state: State, filled: int) -> None:
        """Finds the heads anew."""
        self.filled = filled
        self.stale.clear()
        if len(self.slots) <= FEW:
            entries = [self.entry(slot, state) for slot in self.row_of]
            self.low, self.high = min(entry[4] for entry in entries), max(entry[4] for entry in entries)
            self.floor = (float("inf"), 0)
        else:
            entries = self._columns(state)
        entries.sort()
        self.heads = entries
        self.known = {entry[2]: entry for entry in entries}

    def deepen(self) -> bool:
        """Has more heads found; False where there are as many as there may be."""
        if self.most >= min(MOST_HEADS, len(self.rows)):
            return False
        self.most *= 4
        self.filled = -1
        return True

    def _columns(self, state: State) -> list[Entry]:
        """The same as `entry`, for all members at once; those that come before the floor."""
        moving = np.take(state.matrix, self.slots, axis=1)
        busy = np.maximum(moving[IN_FLIGHT], moving[RUNNING])
        slow = 1.0 + self.slowdown * np.minimum(busy / self.batch, 1.0)
        queue = np.maximum(busy - self.batch + 1.0, 0.0) * self.turn_seconds
        suspicion = moving[SUSPICION]
        work = (moving[PENDING] * self.per_token * slow + moving[WAIT] + queue) * suspicion
        factor = slow * suspicion
        key = work + factor * self.reference - self.speed / slow
        self.low, self.high = float(factor.min()), float(factor.max())
        self.floor = (float("inf"), 0)
        chosen = np.arange(len(key))
        most = self.most
        if len(key) > most:
            edge = np.partition(key, most)[most]
            # Of those that stand at the edge together, the first by row.
            tied = np.flatnonzero(key == edge)
            before = np.flatnonzero(key < edge)
            kept = tied[: most - len(before)]
            self.floor = (float(edge), int(self.rows[tied[len(kept)]]))
            chosen = np.concatenate([before, kept])
        columns = (key, self.rows, self.slots, work, factor, slow, moving.T)
        return list(zip(*(column[chosen].tolist() for column in columns), strict=True))


@dataclass(slots=True)
class Groups:
    """All groups of some rows of a table, shared by the rankings that let the same rows pass."""

    columns: GroupColumns
    slowdown: float
    # Seconds that a token per second more is worth.
    throughput_seconds: float
    # Tokens of a prompt of the usual length.
    usual_tokens: float
    # What each slot's group is; -1: none. As a column and for reading one by one.
    numbers: IntArray
    number_of: list[int]
    made: dict[int, Group] = field(default_factory=dict)
    filled: int = 0
    _epoch: int = -1
    _followed: int = 0

    def __len__(self) -> int:
        return len(self.columns.members)

    @property
    def worthwhile(self) -> bool:
        """Whether a walk over groups looks at less than a pass over columns."""
        return len(self) <= SMALL or len(self.columns.number) >= LEAST_SHARED * len(self)

    @property
    def reference(self) -> FloatArray:
        """Prefill seconds of a prompt of the usual length, by group."""
        return np.maximum(self.columns.per_token * self.usual_tokens, self.columns.least)

    def number(self, slot: int) -> int:
        """The group of a slot; -1: it is not among the rows."""
        return self.number_of[slot] if 0 <= slot < len(self.number_of) else -1

    def follow(self, state: State) -> None:
        """Takes in what changed in the state since the last time."""
        touched = state.touched
        if self._followed == len(touched) and self._epoch == state.epoch:
            return
        if state.epoch != self._epoch or len(touched) - self._followed > FOLLOWED:
            self._epoch = state.epoch
            self.filled += 1
        else:
            numbers, made, size, filled = self.number_of, self.made, len(self.number_of), self.filled
            for slot in touched[self._followed :]:
                group = made.get(numbers[slot]) if slot < size else None
                if group is not None and group.filled == filled:
                    group.stale.append(slot)
        self._followed = len(touched)

    def one(self, number: int) -> Group:
        """A group, whatever its heads are."""
        group = self.made.get(number)
        if group is None:
            group = self.made[number] = self._make(number)
        return group

    def at(self, number: int, state: State) -> Group:
        """A group with its heads as they are now, after `follow`."""
        group = self.one(number)
        if group.stale and group.filled == self.filled:
            group.catch_up(state)
        if group.filled != self.filled:
            if group.filled >= 0:
                # What was needed once is not needed for ever.
                group.most = max(HEADS, group.most // 2)
            group.fill(state, self.filled)
        return group

    def _make(self, number: int) -> Group:
        columns = self.columns
        begin, end = columns.first[number : number + 2].tolist()
        rows, slots = columns.rows[begin:end], columns.slots[begin:end]
        batch, decode = float(columns.batch[number]), float(columns.decode[number])
        per_token, least = float(columns.per_token[number]), float(columns.least[number])
        speed, reference = self.throughput_seconds * decode, max(per_token * self.usual_tokens, least)
        return Group(
            rows=rows,
            slots=slots,
            per_token=per_token,
            least=least,
            batch=batch,
            decode=decode,
            limit=float(columns.limit[number]),
            committed=float(columns.committed[number]),
            turn_seconds=columns.answer_tokens / decode / batch,
            slowdown=self.slowdown,
            speed=speed,
            reference=reference,
            idle=reference - speed,
            row_of=dict(zip(slots.tolist(), rows.tolist(), strict=True)),
        )


@dataclass(frozen=True)
class GroupColumns:
    """Rows by group, and each group's static figures as columns."""

    # The table's rows and their slots, group by group, in the order of rows within each.
    rows: IntArray
    slots: IntArray
    # The group of each of them, and where each group begins, and the last one ends.
    number: IntArray
    first: IntArray
    # One of each group's members, as places of the pool that was grouped.
    members: IntArray
    per_token: FloatArray
    least: FloatArray
    batch: FloatArray
    decode: FloatArray
    limit: FloatArray
    committed: FloatArray
    answer_tokens: int

    @cached_property
    def by_row(self) -> tuple[FloatArray, ...]:
        """Prefill, least, batch, decode, limit and committed of each row, for passes over all of them."""
        own = (self.per_token, self.least, self.batch, self.decode, self.limit, self.committed)
        return tuple(column[self.number] for column in own)


def grouped(passed: Pool, policy: Policy, throughput_seconds: float, usual_tokens: float) -> Groups:
    """Groups of the rows of a pool, for prompts that are mostly about so long."""
    assume = policy.assume
    number, members = _alike(passed)
    order = np.argsort(number, kind="stable")
    ordered = number[order]
    first = np.searchsorted(ordered, np.arange(len(members) + 1))
    one = passed.take(members)
    columns = GroupColumns(
        rows=passed.row[order],
        slots=passed.slot[order],
        number=ordered,
        first=first,
        members=members,
        per_token=fill(one.prefill, assume.prefill_seconds_per_token),
        least=fill_least(one, assume),
        batch=fill(one.batch, assume.max_batch_size),
        decode=fill(one.decode, assume.decode_tokens_per_second),
        limit=one.limit,
        committed=one.committed,
        answer_tokens=assume.output_tokens,
    )
    numbers = np.full(int(passed.slot.max(initial=-1)) + 1, -1, dtype=np.int64)
    numbers[passed.slot] = number
    return Groups(columns, policy.batch_slowdown, throughput_seconds, usual_tokens, numbers, numbers.tolist())


# All of a row that scores read, beside what moves.
ALIKE = (
    "place",
    "zone",
    "model",
    "health",
    "prefill",
    "least",
    "latency",
    "decode",
    "batch",
    "limit",
    "committed",
    "input_price",
    "output_price",
    "cached_price",
)
ODD = np.uint64(0x9E37_79B9_7F4A_7C15)


def _alike(pool: Pool) -> tuple[IntArray, IntArray]:
    """Numbers of rows that agree in all that matters, from 0, and the first place of each number."""
    size = len(pool)
    columns = [getattr(pool, name) for name in ALIKE]
    # A latency stands in for a least time that is not known, and matters only there.
    columns[ALIKE.index("latency")] = np.where(np.isnan(pool.least), pool.latency, 0.0)
    bits = [np.ascontiguousarray(column).view(np.uint64) for column in columns]
    hashed = np.zeros(size, dtype=np.uint64)
    for column in bits:
        hashed = (hashed ^ column) * ODD
        hashed ^= hashed >> np.uint64(29)
    _, members, number = np.unique(hashed, return_index=True, return_inverse=True)
    number = number.reshape(size).astype(np.int64)
    same = np.ones(size, dtype=np.bool_)
    for column in bits:
        same &= column == column[members[number]]
    # Two kinds of one hash, if that ever happens: those who differ from their first go alone.
    lone = np.flatnonzero(~same)
    number[lone] = len(members) + np.arange(len(lone))
    return number, np.concatenate([members, lone]).astype(np.int64)
