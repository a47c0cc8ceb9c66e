"""What moves between two tables: reservations, suspicion, waits, turns, trials, sessions, prefixes.

One writer: the event loop that decides.  A deployment has a slot for as long as it lives, whatever row of whatever
table it stands in.  Numbers live in one matrix, a row a kind, so that a decision over columns gathers them in one step
and a walk reads single ones through memory views.

Fading happens in steps (`advance`), not at each read: a decision reads plain numbers, twice the same.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from federation.routing.siblings import SUM_SECONDS, Sums, added, is_remembered, sums_of
from federation.routing.spread import Spread
from policies.pool import FloatArray, IntArray, Load

# PENDING and IN_FLIGHT hold what siblings told of theirs too.
PENDING, IN_FLIGHT, RUNNING, WAIT, SUSPICION, TURN, TRIAL = range(7)
KINDS = 7

SUSPICION_HALF_LIFE_SECONDS = 15.0
MAX_SUSPICION = 50.0
# Queues turn over within a second or two: what was said of them longer ago says nothing.
QUEUE_HALF_LIFE_SECONDS = 1.0
# What nobody told of lately is taken to have so much of the wait that all meet now: were it taken to have none, the
# node that was silent for longest would look best, and every router would send there. The whole of it predicts better
# (at 70 % load an error of 37 % in place of 40 %), but takes waits that are over for want of room: with it the preset
# `interactive` refuses too many.
USUAL_SHARE = 0.6
# It follows answers, some a second; where none come it fades, slower than a lull between two of them lasts.
USUAL_HALF_LIFE_SECONDS = 30.0
# Waits spread about as widely as they are long, so that twice the usual one is no sign of a fault.
USUAL_WAITS = 2.0
# What an engine said of its running batch; refreshed by each probe or heartbeat.
RUNNING_HALF_LIFE_SECONDS = 5.0
# Small enough that a queue fades by under 4 % in a step.
STEP_SECONDS = 0.05
# Changes that are listed one by one, until the next time that everything fades.
MAX_TOUCHED = 8_192
# A slot is given away only when no outcome of its last owner can still be under way.
SLOT_REST_SECONDS = 900.0
# From one tenancy of a slot to the next: a tenancy is a slot and how many had it before.
TENANCY = 1 << 32


@dataclass(frozen=True, slots=True)
class Session:
    home: int  # A tenancy.
    since: float
    until: float


class State:
    """Moving numbers by slot. Only `advance` and the verbs below change them; deciding only reads."""

    def __init__(self, *, max_sessions: int = 1_000_000, max_prefixes: int = 1_000_000) -> None:
        self.slots: dict[str, int] = {}
        self._resting: list[tuple[float, int]] = []
        # A slot is given to one deployment after another; a tenancy is one deployment's time in it, and what is
        # remembered of it ends with it.
        self._tenancy = array("q")
        # When it last let fade what fades.
        self.advanced = float("-inf")
        self.turns = 0.0
        self.spread = Spread()
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self._max_sessions = max_sessions
        # Hash of a prompt's prefix -> tenancies that were sent it, newest last.
        self.prefixes: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._max_prefixes = max_prefixes
        # Prompt tokens of a request, over all that were routed; what one of others' waiting requests is taken to hold.
        self.mean_tokens = 512.0
        # Seconds that first tokens have lately come later than our own requests explain, over all deployments.
        self.usual_wait = 0.0
        # Seconds that our own requests alone explain of them.
        self.usual_work = 0.0
        # What changed, for those who keep an order by it: slots one by one, or everything (another epoch).
        self.touched: list[int] = []
        self.epoch = 0
        # What other replicas told, by their ids; all of it that is fresh, which PENDING and IN_FLIGHT hold beside ours;
        # and when some of it is no longer fresh.
        self._siblings: dict[str, Sums] = {}
        self._added = np.zeros((2, 0))
        self._bind(np.zeros((KINDS, 64)))

    def _bind(self, matrix: FloatArray) -> None:
        self.matrix = matrix
        views = [cast("MutableSequence[float]", memoryview(row)) for row in matrix]
        self.pending, self.in_flight, self.running, self.wait, self.suspicion, self.turn, self.trial = views
        self.moved()

    def moved(self) -> None:
        """Everything may have changed."""
        self.epoch += 1
        self.touched.clear()

    def touch(self, slot: int) -> None:
        """One slot changed."""
        self.touched.append(slot)
        if len(self.touched) > MAX_TOUCHED:
            self.moved()

    def slots_for(self, names: Sequence[str], now: float) -> IntArray:
        """Slots of a table's rows; deployments that are gone give theirs back after a rest."""
        self.give_back(sorted(self.slots.keys() - set(names)), now)
        return np.fromiter((self.take(name, now) for name in names), dtype=np.int64, count=len(names))

    def give_back(self, gone: Sequence[str], now: float) -> None:
        """Slots of deployments that are gone, after a rest."""
        for name in gone:
            slot = self.slots.pop(name)
            self._tenancy[slot] += TENANCY
            self._resting.append((now + SLOT_REST_SECONDS, slot))

    def take(self, name: str, now: float) -> int:
        """The slot of a deployment; a new one where it has none."""
        slot = self.slots.get(name)
        if slot is None:
            slot = self.slots[name] = self._take_slot(now)
        return slot

    def _take_slot(self, now: float) -> int:
        if self._resting and self._resting[0][0] <= now:
            slot = self._resting.pop(0)[1]
        else:
            slot = len(self.slots) + len(self._resting)
        if slot >= self.matrix.shape[1]:
            wider = np.zeros((KINDS, 2 * self.matrix.shape[1]))
            wider[:, : self.matrix.shape[1]] = self.matrix
            self._bind(wider)
        if slot == len(self._tenancy):
            self._tenancy.append(slot)
        self.matrix[:, slot] = 0.0
        self.touch(slot)
        self._added[:, slot : slot + 1] = 0.0
        self.spread.forget(slot)
        self.suspicion[slot] = 1.0
        self.trial[slot] = 1.0
        # A newcomer stands at the end of the row: it gets its share, not a burst.
        self.turn[slot] = self.turns
        return slot

    def moving(self, slots: IntArray, now: float) -> FloatArray:
        """Copies of what moves, for the given slots in their order, as it will have faded by `now`."""
        found = self.matrix[:, slots]
        if self._due(now):
            fade(found, now - self.advanced, USUAL_SHARE * self.usual_wait)
        return found

    def load(self, slots: IntArray, cached: FloatArray | None = None) -> Load:
        """What moves, for the given slots in their order."""
        return load_of(self.matrix[:, slots], cached)

    def advance(self, now: float) -> None:
        """Lets what fades fade up to `now`, in steps of STEP_SECONDS at least, and old sums of siblings go."""
        if self._due(now):
            fade(self.matrix, now - self.advanced, USUAL_SHARE * self.usual_wait)
            if self._siblings:
                self._add_siblings(now)
            self.usual_wait *= 0.5 ** ((now - self.advanced) / USUAL_HALF_LIFE_SECONDS)
            self.moved()
        if now - self.advanced >= STEP_SECONDS:
            self.advanced = now

    def _due(self, now: float) -> bool:
        return STEP_SECONDS <= now - self.advanced < float("inf")

    def usual(self, expected: float) -> float:
        """Seconds within which first tokens come as things are: as expected, and twice the wait that all meet now."""
        return expected + USUAL_WAITS * self.usual_wait

    def suspect(self, slot: int, level: float) -> None:
        """Raises suspicion to a level, at once; it falls by fading, and with `trust`."""
        self.suspicion[slot] = min(MAX_SUSPICION, max(self.suspicion[slot], level))
        self.touch(slot)

    def reassure(self, slot: int, share: float) -> None:
        """Leaves a share of what is above no suspicion."""
        above = self.suspicion[slot] - 1.0
        if above > 0.0:
            self.suspicion[slot] = 1.0 + share * above
            self.touch(slot)

    def trust(self, slot: int) -> None:
        """Ends suspicion."""
        self.suspicion[slot] = 1.0
        self.touch(slot)

    def await_others(self, slot: int, seconds: float) -> None:
        """Sets what others have waiting at a slot."""
        self.wait[slot] = seconds
        self.touch(slot)

    def release(self, slot: int, tokens: float, requests: float) -> None:
        """Takes tokens and requests off a slot again. Sums of floats: never below zero by rounding."""
        self.pending[slot] = max(0.0, self.pending[slot] - tokens)
        self.in_flight[slot] = max(0.0, self.in_flight[slot] - requests)
        self.touch(slot)

    def choose(self, slot: int, tokens: float) -> None:
        """Counts a request that was routed to a slot."""
        self.pending[slot] += tokens
        self.in_flight[slot] += 1.0
        self.touch(slot)
        self.turns += 1.0
        self.turn[slot] = self.turns

    def heed_siblings(
        self, sibling: str, told: Mapping[int, tuple[float, float]], age_seconds: float, now: float
    ) -> bool:
        """Adds a replica's pending tokens and requests in flight, by slot, in place of what it told before.

        Nothing told: it has nothing. False, and nothing is taken: it was so too long ago.
        """
        if not age_seconds <= SUM_SECONDS:
            return False
        self.add_siblings({sibling: (told, now - max(0.0, age_seconds))}, now)
        return True

    def add_siblings(self, told: Mapping[str, tuple[Mapping[int, tuple[float, float]], float]], now: float) -> None:
        """The same of several replicas at once: by their ids, what each told and when that was true."""
        for sibling, (sums, at) in told.items():
            self._siblings[sibling] = sums_of(sums, at)
        self._add_siblings(now)
        self.moved()

    def _add_siblings(self, now: float) -> None:
        self._siblings = {name: sums for name, sums in self._siblings.items() if is_remembered(sums, now)}
        before, self._added = self._added, added(self._siblings, self.matrix.shape[1], now)
        both = self.matrix[[PENDING, IN_FLIGHT]]
        both[:, : before.shape[1]] -= before
        # Sums of floats: never below zero by rounding.
        self.matrix[[PENDING, IN_FLIGHT]] = np.maximum(both, 0.0) + self._added

    def own(self) -> FloatArray:
        """Pending tokens and requests in flight by slot, two rows, without those of siblings."""
        both = self.matrix[[PENDING, IN_FLIGHT]]
        both[:, : self._added.shape[1]] -= self._added
        return np.maximum(both, 0.0)

    def own_at(self, slot: int) -> tuple[float, float]:
        """The same of one slot."""
        theirs = self._added[:, slot] if slot < self._added.shape[1] else (0.0, 0.0)
        return max(0.0, self.pending[slot] - theirs[0]), max(0.0, self.in_flight[slot] - theirs[1])

    def bind_session(self, key: str, slot: int, now: float, ttl_seconds: float) -> None:
        """Keeps a session where it went; the end is fixed from its first use there."""
        known, home = self.sessions.get(key), self._tenancy[slot]
        if known is not None and known.home == home and known.until > now:
            return
        self.sessions[key] = Session(home, now, now + ttl_seconds)
        self.sessions.move_to_end(key)
        while len(self.sessions) > self._max_sessions:
            self.sessions.popitem(last=False)

    def session_slot(self, key: str, now: float) -> int:
        """Where a session belongs; -1: nowhere, or no longer."""
        known = self.sessions.get(key)
        return self._slot_at(known.home) if known is not None and known.until > now else -1

    def _slot_at(self, home: int) -> int:
        """The slot of a tenancy; -1 where it has ended."""
        slot = home % TENANCY
        return slot if self._tenancy[slot] == home else -1

    def saw_prefixes(self, hashes: Sequence[int], slot: int) -> None:
        """Remembers that a slot was sent a prompt with these prefixes."""
        prefixes, home = self.prefixes, self._tenancy[slot]
        for value in hashes:
            owners = prefixes.get(value, ())
            if not owners or owners[-1] != home:
                prefixes[value] = (*[o for o in owners if o != home][1 - MAX_OWNERS :], home)
            prefixes.move_to_end(value)
        while len(prefixes) > self._max_prefixes:
            prefixes.popitem(last=False)

    def cached_tokens(self, hashes: Sequence[int], block: int, tokens: int) -> dict[int, float]:
        """Prompt tokens believed to be cached, by slot: the longest run of prefixes that each was sent.

        The last token is always computed, so that a whole prompt is never free.
        """
        found: dict[int, float] = {}
        for number in range(len(hashes), 0, -1):
            for home in self.prefixes.get(hashes[number - 1], ()):
                slot = self._slot_at(home)
                if slot >= 0 and slot not in found:
                    found[slot] = float(min(number * block, max(0, tokens - 1)))
            if len(found) >= MAX_PREFIX_CANDIDATES:
                break
        return found


def load_of(matrix: FloatArray, cached: FloatArray | None = None) -> Load:
    """A matrix of moving numbers, and cached tokens, as columns."""
    pending, in_flight, running, wait, suspicion, turn, trial = matrix
    tokens = np.zeros(len(pending)) if cached is None else cached
    return Load(pending, in_flight, running, wait, suspicion, tokens, turn, trial)


def cached_column(cached: Mapping[int, float], slots: IntArray) -> FloatArray | None:
    """Cached tokens by slot as a column; None where nothing is cached."""
    return np.array([cached.get(slot, 0.0) for slot in slots.tolist()]) if cached else None


def fade(matrix: FloatArray, passed: float, usual_wait: float) -> None:
    """What is left of a matrix of moving numbers after some seconds, in place; a wait fades toward the usual one."""
    wait = matrix[WAIT]
    wait -= usual_wait
    wait *= 0.5 ** (passed / QUEUE_HALF_LIFE_SECONDS)
    wait += usual_wait
    matrix[RUNNING] *= 0.5 ** (passed / RUNNING_HALF_LIFE_SECONDS)
    above = matrix[SUSPICION]
    above -= 1.0
    above *= 0.5 ** (passed / SUSPICION_HALF_LIFE_SECONDS)
    above[above < 0.01] = 0.0
    above += 1.0


# Deployments remembered per prefix, and considered per request: a prefix that everybody shares is on all of them
# anyway, and the walk finds the idle ones by itself.
MAX_OWNERS = 8
MAX_PREFIX_CANDIDATES = 8
