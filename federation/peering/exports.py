"""What a control plane tells another: which regions, nodes and models, and how that becomes messages. Pure.

Only what this control plane owns: what was imported never stands in a view, so that nobody passes it on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TypeVar

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
    owned = frozenset(me.owned_regions)
    allowed = {model_id: may_export(model_id, rules, peer) for model_id in snapshot.models}
    unruled = all(allowed.values())
    nodes: dict[str, Node] = {}
    served: set[str] = set()
    for name, node in snapshot.nodes.items():
        if node.region_id not in owned or node.owner not in ("", me.region_id):
            continue
        told = node if unruled else _told(node, allowed)
        if told.deployments:
            nodes[name] = told
            served.update(deployment.model_id for deployment in told.deployments)
    return View(
        snapshot.revision,
        MappingProxyType({name: region for name, region in snapshot.regions.items() if name in owned}),
        MappingProxyType({name: model for name, model in snapshot.models.items() if name in served}),
        MappingProxyType(nodes),
    )


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
    return tuple(value for name, value in after.items() if (known := before.get(name)) is not value and known != value)


def _removed(before: Mapping[str, R], after: Mapping[str, R]) -> tuple[str, ...]:
    return tuple(name for name in before if name not in after)


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
