"""Values by name, as they stand at one moment, that know how they came about.

Who follows them asks what differs between two of them, and need not look at all of either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import compress
from operator import is_not
from typing import Any, Generic, NoReturn, TypeVar

V = TypeVar("V")

# Steps that a roll remembers. Whoever follows ten times a second is a few behind; who is further behind compares.
KEPT_STEPS = 64
NOTHING: frozenset[str] = frozenset()


class Roll(dict[str, V], Generic[V]):
    """A mapping that nobody changes: the next one is made by `after`, and shares with this one all that stays."""

    __slots__ = ("_mark", "_past")

    def __init__(self, values: Mapping[str, V] | Iterable[tuple[str, V]] = ()) -> None:
        super().__init__(values)
        self._mark = object()
        # Newest first: what stood before a step, and the names that the step changed.
        self._past: tuple[tuple[object, frozenset[str]], ...] = ()

    def after(self, changed: Mapping[str, V], gone: Iterable[str] = ()) -> Roll[V]:
        """This one with other values at some names, and without others; itself where that changes nothing."""
        absent = [name for name in gone if name in self]
        if not changed and not absent:
            return self
        made: Roll[V] = Roll(self)
        for name in absent:
            dict.__delitem__(made, name)
        dict.update(made, changed)
        made._past = ((self._mark, frozenset(changed).union(absent)), *self._past[: KEPT_STEPS - 1])
        return made

    def _frozen(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a Roll is never changed; make the next one with after()")

    __setitem__ = __delitem__ = __ior__ = _frozen
    clear = pop = popitem = setdefault = update = _frozen


def roll(values: Mapping[str, V]) -> Roll[V]:
    """The values as a roll; itself where they are one."""
    return values if isinstance(values, Roll) else Roll(values)


def changed(before: Mapping[str, V], after: Mapping[str, V]) -> frozenset[str]:
    """Names at which the two may hold other values, or which stand in one of them only.

    At all other names they hold the same objects.
    """
    if before is after:
        return NOTHING
    if isinstance(before, Roll) and isinstance(after, Roll):
        found = _stepped(before, after)
        if found is not None:
            return found
    names = set(compress(after, map(is_not, map(before.get, after), after.values())))
    names.update(before.keys() - after.keys())
    return frozenset(names)


def _stepped(before: Roll[V], after: Roll[V]) -> frozenset[str] | None:
    """The names that changed on the way between two rolls, by the last one that both came from; None: none is known."""
    back: dict[object, int] = {before._mark: 0}
    for number, (mark, _) in enumerate(before._past, start=1):
        back[mark] = number
    mark, steps = after._mark, 0
    while mark not in back:
        if steps == len(after._past):
            return None
        mark = after._past[steps][0]
        steps += 1
    names = [step for _, step in after._past[:steps]] + [step for _, step in before._past[: back[mark]]]
    return NOTHING.union(*names)
