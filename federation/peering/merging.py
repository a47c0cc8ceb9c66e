"""How the own catalog and what peers told become one: each merging follows what changed since the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from catalog.rolls import Roll, changed
from catalog.types import Model, Node, Region, Snapshot
from federation.peering.imported import PeerImport, other_name

R = TypeVar("R")
NO_NODES: Roll[Node] = Roll()


class Merging:
    """Keeps what it merged last, so that values that are still the same stay the same objects."""

    def __init__(self) -> None:
        self._regions: Roll[Region] = Roll()
        self._models: Roll[Model] = Roll()
        self._nodes: Roll[Node] = Roll()
        # What the nodes were merged from: the own ones, and those of each peer.
        self._own: Mapping[str, Node] = {}
        self._joined: Mapping[str, Roll[Node]] = {}

    def merged(self, own: Snapshot, home_region: str, peers: Mapping[str, PeerImport]) -> Snapshot:
        """The own catalog with that of the peers beside it; see `Imports.merged`."""
        regions, models = dict(own.regions), dict(own.models)
        joined: dict[str, Roll[Node]] = {}
        for region_id in sorted(peers):
            peer = peers[region_id]
            others = frozenset(
                name
                for name, model in peer.view.models.items()
                if (known := models.get(name)) is not None and known.identity != model.identity
            )
            for name, region in peer.view.regions.items():
                regions.setdefault(name, replace(region, owner=region.owner or region_id))
            for name, model in peer.view.models.items():
                if name in others:
                    name = other_name(name, region_id)
                    model = replace(model, model_id=name, aliases=())
                models.setdefault(name, model)
            joined[region_id] = peer.joined(others)
            _measure(regions, home_region, region_id, peer.round_trip_seconds)
        self._regions, self._models = _settled(self._regions, regions), _settled(self._models, models)
        self._nodes = self._merged_nodes(own.nodes, joined)
        return replace(
            own,
            regions=self._regions,
            models=self._models,
            nodes=self._nodes,
            imported=frozenset(regions.keys() - own.regions.keys()),
        )

    def _merged_nodes(self, own: Mapping[str, Node], joined: Mapping[str, Roll[Node]]) -> Roll[Node]:
        names = set(changed(self._own, own))
        for peer in joined.keys() | self._joined.keys():
            names |= changed(self._joined.get(peer, NO_NODES), joined.get(peer, NO_NODES))
        self._own, self._joined = own, joined
        # The own record goes first, then that of the peer whose name comes first.
        sources = (own, *joined.values())
        found = {name: next((of[name] for of in sources if name in of), None) for name in sorted(names)}
        news = {name: node for name, node in found.items() if node is not None and self._nodes.get(name) is not node}
        return self._nodes.after(news, [name for name, node in found.items() if node is None])


def _settled(before: Roll[R], values: Mapping[str, R]) -> Roll[R]:
    """The values; those that are as before are the same objects as before."""
    news = {name: value for name, value in values.items() if name not in before or before[name] != value}
    return before.after(news, [name for name in before if name not in values])


def _measure(regions: dict[str, Region], home: str, peer: str, seconds: float | None) -> None:
    """What was measured between two control planes goes before what either region declares."""
    if seconds is None:
        return
    for here, there in ((home, peer), (peer, home)):
        region = regions.get(here)
        if region is not None:
            trips = MappingProxyType({**region.round_trip_seconds, there: seconds})
            regions[here] = replace(region, round_trip_seconds=trips)
