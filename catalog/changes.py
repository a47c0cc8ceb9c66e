"""What a write does to a catalog, as plain functions: both stores ask here and only carry it out.

A write becomes entries, one for each resource that changes, each under a revision of its own. Entries of one write
have consecutive revisions, models before the nodes that name them, so that whoever reads the log half way never
meets a node without its model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TypeVar, cast

from catalog.errors import Conflict, EtagMismatch, ModelInUse, NotFound, NotOwner
from catalog.records import seal
from catalog.turns import Steps, at_once
from catalog.types import (
    Change,
    Deployment,
    DeploymentStatus,
    Model,
    Node,
    PolicyRecord,
    Region,
    Replica,
    Resource,
    ResourceKind,
    Spend,
    kind_of,
    name_of,
)

R = TypeVar("R", bound=Resource)
Key = tuple[ResourceKind, str]

# How long a request id is remembered. Longer than any client retries; each costs a row with its answer.
REQUEST_ID_SECONDS = 86_400.0
# Spend is kept so that a month can be compared with that of a year before.
SPEND_DAYS = 400
# Replicas that did not beat for so long are forgotten. Longer than clocks of one region differ; who is dead is seen
# sooner, by beats that no longer grow.
REPLICA_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One change to be: what stands under a name before it and after it; None is nothing."""

    revision: int
    kind: ResourceKind
    name: str
    before: Resource | None
    after: Resource | None

    @property
    def change(self) -> Change:
        return Change(self.revision, self.kind, self.name, self.after)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who changed what: `actor` as the caller was authenticated, `time` in Unix seconds."""

    revision: int
    time: float
    actor: str
    kind: ResourceKind
    name: str
    before: Resource | None
    after: Resource | None


def key_of(resource: Resource) -> Key:
    return kind_of(resource), name_of(resource)


def keys_to_read(resources: Iterable[Resource]) -> frozenset[Key]:
    """The records that `plan_put` must know, wherever they exist: its `known`."""
    keys: set[Key] = set()
    for resource in resources:
        keys.add(key_of(resource))
        if isinstance(resource, Node):
            keys.add((ResourceKind.REGION, resource.region_id))
            keys.update((ResourceKind.MODEL, deployment.model_id) for deployment in resource.deployments)
    return frozenset(keys)


def served_models(node: Node) -> frozenset[str]:
    """The models that cannot be removed while the node is registered."""
    return frozenset(of.model_id for of in node.deployments if of.status is not DeploymentStatus.REMOVED)


def plan_put(
    resources: Sequence[R], known: Mapping[Key, Resource], *, owner: str, revision: int, now: float
) -> Steps[tuple[tuple[R, ...], tuple[Entry, ...]]]:
    """Comes to what a put answers, and what it writes after `revision`; no entry where all is stored already.

    `known` may hold regions and nodes of other owners, which are refused. `now` is in Unix seconds.
    ValueError where the resources contradict themselves or each other.
    """
    put = _checked(resources)
    writes: dict[Key, tuple[Resource | None, Resource]] = {}
    answers: dict[Key, Resource] = {}
    for key, resource in put.items():
        yield
        stored = known.get(key)
        _owned(resource, owner)
        if stored is not None:
            _owned(stored, owner)
        if isinstance(resource, Node):
            _region_exists(resource.region_id, put, known, owner)
        merged = _merged(resource, stored, now)
        if stored is not None and merged == stored:
            answers[key] = stored
            continue
        _replaceable(key, resource.etag, stored, merged)
        writes[key] = (stored, merged)
    writes = {**_minimal_models(writes.values(), put, known), **writes}
    entries = yield from _entries(writes, owner=owner, revision=revision)
    answers.update({(entry.kind, entry.name): entry.after for entry in entries if entry.after is not None})
    return cast(tuple[R, ...], tuple(answers[key] for key in put)), entries


def check_edit(stored: Resource, changed: Resource, now: float) -> Resource | None:
    """The change of an edit with the store's own fields put right; None where it changes nothing.

    ValueError where it is about another resource.
    """
    if key_of(changed) != key_of(stored):
        raise ValueError(
            f"an edit of {kind_of(stored).value} {name_of(stored)!r} answered "
            f"{kind_of(changed).value} {name_of(changed)!r}; an edit keeps kind and name"
        )
    changed = _kept(_checked([changed])[key_of(changed)], stored)
    if changed == stored:
        return None
    return _counted(changed, stored, now)


def plan_edit(
    stored: Resource, changed: Resource, known: Mapping[Key, Resource], *, owner: str, revision: int
) -> tuple[Entry, ...]:
    """What an edit writes after `revision`, its resource last; `changed` comes from `check_edit`."""
    key = key_of(stored)
    writes: dict[Key, tuple[Resource | None, Resource]] = {key: (stored, changed)}
    writes = {**_minimal_models(writes.values(), {}, known), **writes}
    return at_once(_entries(writes, owner=owner, revision=revision))


def plan_delete(
    key: Key, stored: Resource | None, served_by: str | None, *, etag: str, owner: str, revision: int
) -> Entry:
    """What a delete writes after `revision`; `served_by` names a node that serves the model."""
    kind, name = key
    if stored is None:
        raise NotFound(kind.value, name)
    _owned(stored, owner)
    if etag and etag != stored.etag:
        raise EtagMismatch(kind.value, name, etag, stored.etag)
    if served_by is not None:
        raise ModelInUse(name, served_by)
    return Entry(revision + 1, kind, name, stored, None)


def check_page(after_revision: int, limit: int) -> None:
    """ValueError unless both can be meant."""
    if after_revision < 0:
        raise ValueError(f"after_revision is {after_revision}; it must be 0 (everything) or more")
    if limit < 1:
        raise ValueError(f"limit is {limit}; it must be 1 or more")


def spend_horizon(now: float) -> str:
    """The month before which spend is forgotten; `now` in Unix seconds."""
    return datetime.fromtimestamp(now - SPEND_DAYS * 86_400, UTC).strftime("%Y-%m")


def check_spend(writer: str, spend: Sequence[Spend]) -> None:
    """ValueError for spend that cannot be stored."""
    check_words(writer=writer)
    for each in spend:
        check_words(tenant_id=each.tenant_id, period=each.period)


def check_replica(replica: Replica) -> None:
    """ValueError for a replica that cannot be stored."""
    check_words(replica_id=replica.replica_id, address=replica.address, incarnation=replica.incarnation)


def check_keep(keep: int) -> None:
    """ValueError unless so many changes can be kept."""
    if keep < 0:
        raise ValueError(f"keep is {keep}; it must be 0 (forget all changes) or more")


def check_words(**words: str) -> None:
    """ValueError where a text that comes with a write cannot be stored."""
    for name, word in words.items():
        if "\0" in word:
            raise ValueError(f"{name} holds a NUL character, which databases do not store; leave it out")


def _checked(resources: Sequence[Resource]) -> dict[Key, Resource]:
    """By key, in the given order; mappings as frozen copies and deployments in order of their models."""
    put: dict[Key, Resource] = {}
    for resource in resources:
        key = key_of(resource)
        kind, name = key
        if not name or name.startswith("/") or name.endswith("/"):
            raise ValueError(f"a {kind.value} has the name {name!r}: every one of its ids must be given")
        if "\0" in name:
            raise ValueError(f"{kind.value} {name!r}: an id cannot hold a NUL character")
        if key in put:
            raise ValueError(f"{kind.value} {name!r} is named twice in one write; send each resource once")
        put[key] = _frozen(resource)
    return put


def _frozen(resource: Resource) -> Resource:
    match resource:
        case Region():
            return replace(
                resource,
                egress_prices_usd_per_gb=MappingProxyType(dict(resource.egress_prices_usd_per_gb)),
                round_trip_seconds=MappingProxyType(dict(resource.round_trip_seconds)),
            )
        case Node():
            return replace(
                resource, labels=MappingProxyType(dict(resource.labels)), deployments=_deployments_of(resource)
            )
        case _:
            return resource


def _deployments_of(node: Node) -> tuple[Deployment, ...]:
    seen: set[str] = set()
    for deployment in node.deployments:
        if (deployment.region_id, deployment.node_id) != (node.region_id, node.node_id):
            raise ValueError(f"deployment {deployment.name!r} stands under node {node.name!r}; both must name one node")
        if deployment.model_id in seen:
            raise ValueError(f"node {node.name!r} names model {deployment.model_id!r} in two deployments; send one")
        if not deployment.model_id or "\0" in deployment.model_id:
            raise ValueError(f"node {node.name!r} has a deployment whose model_id is {deployment.model_id!r}")
        seen.add(deployment.model_id)
    return tuple(sorted(node.deployments, key=lambda of: of.model_id))


def _owned(resource: Resource, owner: str) -> None:
    if resource.owner not in ("", owner):
        raise NotOwner(name_of(resource), resource.owner)


def _region_exists(region_id: str, put: Mapping[Key, Resource], known: Mapping[Key, Resource], owner: str) -> None:
    key = (ResourceKind.REGION, region_id)
    region = put.get(key) or known.get(key)
    if region is None:
        raise NotFound("region", region_id)
    _owned(region, owner)


def _merged(resource: Resource, stored: Resource | None, now: float) -> Resource:
    """What is to be stored; equal to `stored` where the resource tells nothing new."""
    match resource, stored:
        case Node(), Node():
            kept = {of.model_id for of in stored.deployments if of.status is DeploymentStatus.DRAINING}
            resource = replace(
                resource,
                draining=resource.draining or stored.draining,
                deployments=tuple(
                    replace(of, status=DeploymentStatus.DRAINING) if of.model_id in kept else of
                    for of in resource.deployments
                ),
            )
    if isinstance(resource, Node):
        resource = replace(resource, expired=False, expire_time=0.0)
    if stored is None:
        return _counted(resource, None, now)
    resource = _kept(resource, stored)
    return resource if resource == stored else _counted(resource, stored, now)


def _kept(resource: Resource, stored: Resource) -> Resource:
    """The resource with what the store assigned to the one before it."""
    resource = replace(resource, owner=stored.owner, revision=stored.revision, etag=stored.etag)
    match resource, stored:
        case Node(), Node():
            return replace(resource, generation=stored.generation, create_time=stored.create_time)
        case PolicyRecord(), PolicyRecord():
            return replace(resource, create_time=stored.create_time)
        case _:
            return resource


def _counted(resource: Resource, stored: Resource | None, now: float) -> Resource:
    """The resource with its times and its generation, as it comes after the stored one."""
    match resource, stored:
        case Node(), Node():
            return replace(resource, generation=stored.generation + (_spec(resource) != _spec(stored)))
        case Node(), None:
            return replace(resource, generation=1, create_time=now)
        case PolicyRecord(), _:
            return replace(resource, create_time=now)
        case _:
            return resource


def _spec(node: Node) -> Node:
    """What was registered of a node, without what operators, leases and the engine's own state add."""
    return replace(
        node,
        deployments=tuple(replace(of, status=DeploymentStatus.READY) for of in node.deployments),
        draining=False,
        expired=False,
        expire_time=0.0,
        owner="",
        revision=0,
        etag="",
        generation=0,
        create_time=0.0,
    )


def _replaceable(key: Key, etag: str, stored: Resource | None, merged: Resource) -> None:
    kind, name = key
    if stored is None:
        if etag:
            raise EtagMismatch(kind.value, name, etag, "")
        return
    # An expired node that comes back as it was replaces nothing that anybody wrote.
    match stored, merged:
        case Node(expired=True), Node() if replace(stored, expired=False, expire_time=0.0) == merged:
            return
    if not etag:
        raise Conflict(kind.value, name, stored.etag)
    if etag != stored.etag:
        raise EtagMismatch(kind.value, name, etag, stored.etag)


def _minimal_models(
    writes: Iterable[tuple[Resource | None, Resource]], put: Mapping[Key, Resource], known: Mapping[Key, Resource]
) -> dict[Key, tuple[None, Model]]:
    """Records for models that nodes name and nobody described."""
    capabilities: dict[str, set[str]] = {}
    for _, resource in writes:
        if isinstance(resource, Node):
            for deployment in resource.deployments:
                key = (ResourceKind.MODEL, deployment.model_id)
                if key not in put and key not in known:
                    capabilities.setdefault(deployment.model_id, set()).update(deployment.capabilities)
    return {
        (ResourceKind.MODEL, model_id): (None, Model(model_id, capabilities=tuple(sorted(capabilities[model_id]))))
        for model_id in sorted(capabilities)
    }


# The order in which the kinds of one write stand in the log.
LOG_ORDER = (ResourceKind.REGION, ResourceKind.MODEL, ResourceKind.NODE, ResourceKind.POLICY)


def _entries(
    writes: Mapping[Key, tuple[Resource | None, Resource]], *, owner: str, revision: int
) -> Steps[tuple[Entry, ...]]:
    ordered = sorted(writes.items(), key=lambda write: LOG_ORDER.index(write[0][0]))
    entries: list[Entry] = []
    for at, ((kind, name), (before, after)) in enumerate(ordered, start=revision + 1):
        yield
        entries.append(Entry(at, kind, name, before, seal(after, owner=owner, revision=at)))
    return tuple(entries)
