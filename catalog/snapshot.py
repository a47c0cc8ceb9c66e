"""Snapshots from changes: the next one shares with the last whatever did not change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from catalog.rolls import Roll, roll
from catalog.types import Change, Deployment, Resource, ResourceKind, Snapshot

FIELD_OF: Mapping[ResourceKind, str] = {
    ResourceKind.REGION: "regions",
    ResourceKind.MODEL: "models",
    ResourceKind.NODE: "nodes",
    ResourceKind.POLICY: "policies",
}

EMPTY_SNAPSHOT = Snapshot(0, Roll(), Roll(), Roll(), Roll())


def apply(snapshot: Snapshot, changes: Iterable[Change]) -> Snapshot:
    """The snapshot after the changes, which come in the order of their revisions; repeats of old ones are harmless.

    Copies a kind's mapping once a call, however many of its resources changed, and no mapping that did not change.
    """
    revision = snapshot.revision
    updated: dict[str, dict[str, Resource | None]] = {}
    for change in changes:
        if change.revision <= revision:
            continue
        revision = change.revision
        updated.setdefault(FIELD_OF[change.kind], {})[change.name] = change.resource
    if revision == snapshot.revision:
        return snapshot
    mappings: dict[str, Any] = {of: _after(getattr(snapshot, of), named) for of, named in updated.items()}
    return replace(snapshot, revision=revision, **mappings)


def _after(resources: Mapping[str, Resource], named: Mapping[str, Resource | None]) -> Roll[Resource]:
    stays = {name: resource for name, resource in named.items() if resource is not None}
    return roll(resources).after(stays, (name for name, resource in named.items() if resource is None))


def rolled(snapshot: Snapshot) -> Snapshot:
    """The same snapshot, so that what follows it is found by what changed."""
    mappings: dict[str, Any] = {of: roll(getattr(snapshot, of)) for of in FIELD_OF.values()}
    return replace(snapshot, **mappings)


def deployments(snapshot: Snapshot) -> Iterator[Deployment]:
    """All deployments in the order of their names."""
    # Not the order of the nodes' names: `a-1/...` stands before `a/...`, though `a` stands before `a-1`.
    for name in sorted(snapshot.nodes, key=lambda name: f"{name}/"):
        yield from sorted(snapshot.nodes[name].deployments, key=lambda deployment: deployment.model_id)
