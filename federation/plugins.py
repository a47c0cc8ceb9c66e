"""Scorers, filters and pickers of other installed packages, found by their entry points.

    [project.entry-points."fairway.scorers"]     an object of `policies.scorers.Scorer`
    [project.entry-points."fairway.filters"]     an object of `policies.filters.Filter`
    [project.entry-points."fairway.pickers"]     an object of `policies.pickers.Picker`, or one with the classic method
                                                 `route_request(endpoints, engine_stats, request_stats, request) -> url`

They are guarded: what a plug-in gets wrong costs its own say and never a decision.  A filter that fails refuses
everybody, since it may have been a hard rule; a scorer that fails gives everybody the poor point; a picker that fails
leaves the choice to `best`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from federation.logs import Log
from policies.classic import ClassicPicker
from policies.filters import Filter
from policies.pickers import Field, Picker, best
from policies.pool import BoolArray, FloatArray, Pool
from policies.prediction import Ask, Prediction
from policies.registry import BUILT_IN, Registry
from policies.scorers import Scorer

# Groups of entry points, with what each brings.
GROUPS = {"fairway.scorers": "scorer", "fairway.filters": "filter", "fairway.pickers": "picker"}


class PluginError(Exception):
    """A plug-in that cannot be loaded; the message names it and what to do."""


@dataclass(frozen=True, slots=True)
class GuardedScorer:
    name: str
    inner: Scorer
    fail: Callable[[str, str], None]

    def __call__(self, ask: Ask, pool: Pool, seen: Prediction) -> FloatArray:
        try:
            points = np.asarray(self.inner(ask, pool, seen), dtype=np.float64)
            if points.shape != (len(pool),):
                raise ValueError(f"it gave {points.shape} points for {len(pool)} candidates")
        except Exception as error:  # Foreign code: whatever it raises is its own fault, and told.
            self.fail(self.name, repr(error))
            return np.zeros(len(pool))
        return points


@dataclass(frozen=True, slots=True)
class GuardedFilter:
    name: str
    inner: Filter
    fail: Callable[[str, str], None]

    def __call__(self, ask: Ask, pool: Pool) -> BoolArray:
        try:
            refused = np.asarray(self.inner(ask, pool), dtype=np.bool_)
            if refused.shape != (len(pool),):
                raise ValueError(f"it gave {refused.shape} answers for {len(pool)} candidates")
        except Exception as error:  # Foreign code: whatever it raises is its own fault, and told.
            self.fail(self.name, repr(error))
            return np.ones(len(pool), dtype=np.bool_)
        return refused


@dataclass(frozen=True, slots=True)
class GuardedPicker:
    name: str
    inner: Picker
    fail: Callable[[str, str], None]

    def __call__(self, field: Field) -> int:
        try:
            place = int(self.inner(field))
            if not 0 <= place < len(field):
                raise ValueError(f"it picked place {place} of {len(field)}")
        except Exception as error:  # Foreign code: whatever it raises is its own fault, and told.
            self.fail(self.name, repr(error))
            return best(field)
        return place


class Failures:
    """Counts what plug-ins got wrong, and logs the first of each."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.counts: dict[str, int] = {}

    def __call__(self, name: str, error: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        if self.counts[name] == 1:
            self._log.error("plug-in failed; it has no say until it is mended", plugin=name, error=error)


def load_registry(fail: Callable[[str, str], None], found: Callable[[str], list[EntryPoint]] | None = None) -> Registry:
    """The built-in menu with that of all installed packages. Raises PluginError."""
    find = found or (lambda group: list(entry_points(group=group)))
    try:
        return BUILT_IN.extend(
            scorers={p.name: GuardedScorer(p.name, _load(p), fail) for p in find("fairway.scorers")},
            filters={p.name: GuardedFilter(p.name, _load(p), fail) for p in find("fairway.filters")},
            pickers={p.name: GuardedPicker(p.name, _picker(_load(p)), fail) for p in find("fairway.pickers")},
        )
    except ValueError as error:
        raise PluginError(str(error)) from error


def _load(point: EntryPoint) -> Any:
    try:
        loaded = point.load()
    except Exception as error:  # Importing foreign code may raise anything.
        package = point.dist.name if point.dist is not None else "?"
        raise PluginError(
            f"plug-in {point.name!r} ({point.value}) of package {package} cannot be loaded: {error!r};"
            " mend it, or uninstall the package"
        ) from error
    # A class stands for an object of it without arguments.
    return loaded() if isinstance(loaded, type) else loaded


def _picker(loaded: Any) -> Picker:
    return ClassicPicker(loaded) if hasattr(loaded, "route_request") else loaded
