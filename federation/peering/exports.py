"""What a control plane tells another: which regions, nodes and models, and how that becomes messages. Pure.

Only what this control plane owns: what was imported never stands in a view, so that nobody passes it on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TypeVar

from catalog.rolls import Roll, changed, roll
from catalog.snapshot import EMPTY_SNAPSHOT
from catalog.types import Deployment, Node, Snapshot
from federation.peering.messages import Identity, Update, View

# Deployments in one message: reading it takes some 3 ms in which nobody is routed, and under 100 KB of the 4 MiB that a
# message may have.
PART_WEIGHT = 100
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ExportRules:
    """What may be told. `models` are globs, empty is all; each of `withheld` is a glob and a jurisdiction."""

    models: tuple[str, ...] = ()
    withheld: tuple[tuple[str, str], ...] = ()


def export_rules(models: Iterable[str], withhold: Iterable[str]) -> ExportRules:
    """From the settings, where `withhold` is written GLOB@JURISDICTION."""
    return ExportRules(tuple(models), tuple((rule.rpartition("@")[0], rule.rpartition("@")[2]) for rule in withhold))


def may_export(model_id: str, rules: ExportRules, peer: Identity) -> bool:
    """Whether a peer may be told that a model is served here. A peer of unknown law is withheld whatever has a rule."""
    if rules.models and not any(fnmatchcase(model_id, glob) for glob in rules.models):
        return False
    return not any(
        fnmatchcase(model_id, glob) and (not peer.jurisdictions or jurisdiction in peer.jurisdictions)
        for glob, jurisdiction in rules.withheld
    )


def export_view(snapshot: Snapshot, me: Identity, peer: Identity, rules: ExportRules) -> View:
    """What `peer` is told of the catalog: the regions that are owned here, their nodes as far as they may be told."""
    return Exports(me, peer, rules).view(snapshot)


class Exports:
    """The views of one peer, each made from the last and what changed since."""

    def __init__(self, me: Identity, peer: Identity, rules: ExportRules) -> None:
        self.peer = peer
        self._me = me
        self._rules = rules
        self._of: Snapshot = EMPTY_SNAPSHOT
        self._view = View(0, Roll(), Roll(), Roll())
        self._allowed: dict[str, bool] = {}
        # Whether all of them are.
        self._unruled = True
        # Told deployments by model.
        self._served: Counter[str] = Counter()

    def view(self, snapshot: Snapshot) -> View:
        """What the peer is told of a snapshot."""
        before, self._of = self._of, snapshot
        if before is snapshot:
            return self._view
        names = changed(before.nodes, snapshot.nodes)
        models = changed(before.models, snapshot.models)
        if models:
            self._allowed = {model_id: may_export(model_id, self._rules, self.peer) for model_id in snapshot.models}
            was_unruled, self._unruled = self._unruled, all(self._allowed.values())
            if before.models.keys() != snapshot.models.keys() and not (was_unruled and self._unruled):
                # Nodes may be told of otherwise without having changed.
                names = frozenset(before.nodes.keys() | snapshot.nodes.keys())
        nodes = roll(self._view.nodes)
        news: dict[str, Node] = {}
        gone: list[str] = []
        for name in sorted(names):
            known, told = nodes.get(name), self._told(snapshot.nodes.get(name))
            if known is not None:
                self._served.subtract(deployment.model_id for deployment in known.deployments)
            if told is not None:
                self._served.update(deployment.model_id for deployment in told.deployments)
                news[name] = told
            elif known is not None:
                gone.append(name)
        owned = frozenset(self._me.owned_regions)
        served, regions = self._served, self._view.regions
        if changed(before.regions, snapshot.regions):
            regions = Roll({name: region for name, region in snapshot.regions.items() if name in owned})
        self._view = View(
            snapshot.revision,
            regions,
            Roll({name: model for name, model in snapshot.models.items() if served[name] > 0}),
            nodes.after(news, gone),
        )
        return self._view

    def _told(self, node: Node | None) -> Node | None:
        """A node as the peer is told of it; None: it is not."""
        me = self._me
        if node is None or node.region_id not in me.owned_regions or node.owner not in ("", me.region_id):
            return None
        told = node if self._unruled else _told(node, self._allowed)
        return told if told.deployments else None


def _told(node: Node, allowed: Mapping[str, bool]) -> Node:
    deployments = tuple(each for each in node.deployments if allowed.get(each.model_id, False))
    return node if len(deployments) == len(node.deployments) else replace(node, deployments=deployments)


def snapshot_of(view: View) -> tuple[Update, ...]:
    """A view as the parts of a snapshot."""
    whole = Update(
        None,
        view.revision,
        regions=tuple(view.regions.values()),
        models=tuple(view.models.values()),
        nodes=tuple(view.nodes.values()),
    )
    return _parts(whole)


def difference(before: View, after: View) -> tuple[Update, ...]:
    """What leads from one view to a later one, as the parts of a delta; one empty part where they show the same."""
    return _parts(
        Update(
            before.revision,
            after.revision,
            regions=_changed(before.regions, after.regions),
            models=_changed(before.models, after.models),
            nodes=_changed(before.nodes, after.nodes),
            removed_regions=_removed(before.regions, after.regions),
            removed_models=_removed(before.models, after.models),
            removed_nodes=_removed(before.nodes, after.nodes),
        )
    )


def _changed(before: Mapping[str, R], after: Mapping[str, R]) -> tuple[R, ...]:
    found = ((name, after[name]) for name in sorted(changed(before, after)) if name in after)
    return tuple(value for name, value in found if before.get(name) != value)


def _removed(before: Mapping[str, R], after: Mapping[str, R]) -> tuple[str, ...]:
    return tuple(name for name in sorted(changed(before, after)) if name not in after)


def _parts(update: Update) -> tuple[Update, ...]:
    """Splits an update's nodes by weight; regions, models and names of what is gone stand in the first part."""
    if len(update.nodes) <= 1:
        return (update,)
    pieces = list(_by_weight(update.nodes))
    last = len(pieces) - 1
    first = replace(update, nodes=pieces[0], complete=last == 0)
    further = (
        Update(update.from_revision, update.to_revision, part=part, complete=part == last, nodes=pieces[part])
        for part in range(1, last + 1)
    )
    return (first, *further)


def _by_weight(nodes: Sequence[Node]) -> Iterator[tuple[Node, ...]]:
    piece: list[Node] = []
    total = 0
    for node in nodes:
        weight = sum(_weight(deployment) for deployment in node.deployments)
        if piece and total + weight > PART_WEIGHT:
            yield tuple(piece)
            piece, total = [], 0
        piece.append(node)
        total += weight
    yield tuple(piece)


def _weight(deployment: Deployment) -> int:
    # Long lists of adapters and tenants outweigh all other fields.
    return 1 + (len(deployment.adapters) + len(deployment.tenant_ids)) // 10
