"""The menu: every scorer and picker by name, on one screen.

Those of other packages join by the entry points `fairway.scorers`, `fairway.filters` and `fairway.pickers`, in one
place, when the control plane starts (`federation/app.py` hands them to `extend`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from policies import pickers, scorers
from policies.filters import Filter
from policies.pickers import Picker
from policies.scorers import Scorer


@dataclass(frozen=True, slots=True)
class Registry:
    """What policies may name."""

    scorers: Mapping[str, Scorer]
    filters: Mapping[str, Filter]
    pickers: Mapping[str, Picker]

    def extend(
        self, scorers: Mapping[str, Scorer], filters: Mapping[str, Filter], pickers: Mapping[str, Picker]
    ) -> Registry:
        """The menu with more on it. ValueError where a name is taken."""
        for ours, theirs in ((self.scorers, scorers), (self.filters, filters), (self.pickers, pickers)):
            taken = sorted(ours.keys() & theirs.keys())
            if taken:
                raise ValueError(f"{taken[0]!r} is already registered; give the plug-in another name")
        return Registry(
            MappingProxyType({**self.scorers, **scorers}),
            MappingProxyType({**self.filters, **filters}),
            MappingProxyType({**self.pickers, **pickers}),
        )


BUILT_IN = Registry(
    scorers=MappingProxyType(
        {
            "latency": scorers.Latency(),
            "throughput": scorers.Throughput(),
            "cost": scorers.Cost(),
            "locality": scorers.Locality(),
            "health": scorers.Health(),
        }
    ),
    filters=MappingProxyType({}),
    pickers=MappingProxyType(
        {
            "predicted": pickers.predicted,
            "best": pickers.best,
            "least_latency": pickers.least_latency,
            "least_connections": pickers.least_connections,
            "round_robin": pickers.round_robin,
            "weighted_random": pickers.weighted_random,
            "consistent_hash": pickers.consistent_hash,
            "power_of_two": pickers.power_of_two,
            "peak_ewma": pickers.peak_ewma,
            "hot_cold": pickers.hot_cold,
        }
    ),
)
