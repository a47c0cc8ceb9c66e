"""Snapshots from changes: the next one shares with the last whatever did not change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from catalog.types import Change, Deployment, Resource, ResourceKind, Snapshot

FIELD_OF: Mapping[ResourceKind, str] = {
    ResourceKind.REGION: "regions",
    ResourceKind.MODEL: "models",
    ResourceKind.NODE: "nodes",
    ResourceKind.POLICY: "policies",
}

EMPTY_SNAPSHOT = Snapshot(0, MappingProxyType({}), MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))


def apply(snapshot: Snapshot, changes: Iterable[Change]) -> Snapshot:
    """The snapshot after the changes, which come in the order of their revisions; repeats of old ones are harmless.

    Copies a kind's mapping once a call, however many of its resources changed, and no mapping that did not change.
    """
    revision = snapshot.revision
    updated: dict[str, dict[str, Resource]] = {}
    for change in changes:
        if change.revision <= revision:
            continue
        revision = change.revision
        of = FIELD_OF[change.kind]
        resources = updated.get(of)
        if resources is None:
            resources = updated[of] = _copy(getattr(snapshot, of))
        if change.resource is None:
            resources.pop(change.name, None)
        else:
            resources[change.name] = change.resource
    if revision == snapshot.revision:
        return snapshot
    mappings: dict[str, Any] = {of: MappingProxyType(resources) for of, resources in updated.items()}
    return replace(snapshot, revision=revision, **mappings)


def deployments(snapshot: Snapshot) -> Iterator[Deployment]:
    """All deployments in the order of their names."""
    # Not the order of the nodes' names: `a-1/...` stands before `a/...`, though `a` stands before `a-1`.
    for name in sorted(snapshot.nodes, key=lambda name: f"{name}/"):
        yield from sorted(snapshot.nodes[name].deployments, key=lambda deployment: deployment.model_id)


def _copy(resources: Mapping[str, Resource]) -> dict[str, Resource]:
    # dict() of a proxy walks it key by key, 35 times slower at 50,000 nodes than the proxy's own copy.
    return resources.copy() if isinstance(resources, MappingProxyType) else dict(resources)
