"""Resources as JSON: what the tables, the log and the audit keep, and what an etag is a mark of.

A document names only the fields that differ from their defaults, in sorted order, so that equal resources have
equal documents and a table of 100,000 stays small. A field that this program does not know is passed over: while
replicas are upgraded one by one, an older one reads what a newer one wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, replace
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from sys import intern
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from catalog.types import (
    Deployment,
    DeploymentStatus,
    Engine,
    Model,
    Node,
    PolicyRecord,
    PriceBand,
    PrivacyLevel,
    Reach,
    Region,
    RegionStatus,
    Resource,
    ResourceKind,
    ServingProfile,
    kind_of,
    name_of,
)

Codec = tuple[Callable[[Any], object], Callable[[Any], object]]
R = TypeVar("R", bound=Resource)

# What the store itself assigns: an etag marks everything else.
ASSIGNED = ("owner", "revision", "etag", "generation", "create_time")
# What else no registration sets: a repeat of a request may find it moved.
OBSERVED = ("draining", "expired", "expire_time")


class _Row(NamedTuple):
    """One field of a class: its default, and how JSON has it; None where JSON has it as it is."""

    name: str
    default: object
    plain: Callable[[Any], object] | None
    value: Callable[[Any], object] | None


def _strings(value: list[str]) -> tuple[str, ...]:
    return _shared_strings(*map(intern, value))


# Readers of what many deployments have in common give all of them one object: of 100,000 most say the same.
@lru_cache(4_096)
def _shared_strings(*strings: str) -> tuple[str, ...]:
    return strings


@lru_cache(4_096, typed=True)
def _shared_profile(*values: float | None) -> ServingProfile:
    return ServingProfile(*values)  # type: ignore[arg-type]  # in the order of its fields


def _profile(document: Mapping[str, Any]) -> ServingProfile:
    return _shared_profile(*(document.get(name, default) for name, default in _PROFILE_FIELDS))


_PROFILE_FIELDS = tuple((of.name, of.default) for of in fields(ServingProfile))


def _of_enum(cls: type[Enum]) -> Codec:
    members = {member.value: member for member in cls}
    return lambda member: member.value, members.__getitem__


def _row(of: Field[Any], codecs: Mapping[str, Codec]) -> _Row:
    default = of.default_factory() if of.default_factory is not MISSING else of.default
    return _Row(of.name, default, *codecs.get(of.name, (None, None)))


def _document(of: Resource | Deployment | ServingProfile | PriceBand) -> dict[str, object]:
    document: dict[str, object] = {}
    for name, default, plain, _ in ROWS[type(of)]:
        value = getattr(of, name)
        if value != default:
            document[name] = plain(value) if plain else value
    return document


def _values(cls: type, document: Mapping[str, Any]) -> dict[str, Any]:
    readers = READERS[cls]
    return {
        name: reader(value) if (reader := readers[name]) else value
        for name, value in document.items()
        if name in readers
    }


def _deployments(of: tuple[Deployment, ...]) -> list[dict[str, object]]:
    documents = [_document(deployment) for deployment in of]
    for document in documents:
        # Both are the node's, under which it stands.
        del document["region_id"], document["node_id"]
    return documents


_STRINGS: Codec = (list, _strings)
_MAPPING: Codec = (dict, MappingProxyType)
_LEVEL: Codec = (lambda level: level.name.lower(), {level.name.lower(): level for level in PrivacyLevel}.__getitem__)
_PROFILE: Codec = (_document, _profile)
_BANDS: Codec = (
    lambda bands: [_document(band) for band in bands],
    lambda documents: tuple(PriceBand(**_values(PriceBand, document)) for document in documents),
)

# How a field that is no plain number or text is written and read back.
CODECS: Mapping[type, Mapping[str, Codec]] = {
    Region: {
        "jurisdictions": _STRINGS,
        "reach": _of_enum(Reach),
        "status": _of_enum(RegionStatus),
        "round_trip_seconds": _MAPPING,
        "egress_prices_usd_per_gb": _MAPPING,
        "owner": (str, intern),
    },
    Model: {"capabilities": _STRINGS, "aliases": _STRINGS, "owner": (str, intern)},
    Node: {
        # The readers of ids share one string among all that name it: 100,000 deployments name few regions and models.
        "region_id": (str, intern),
        "engine": _of_enum(Engine),
        "zone": (str, intern),
        "accelerator": (str, intern),
        "privacy_level": _LEVEL,
        "labels": _MAPPING,
        # The reader is in `_node`, which knows the node's ids.
        "deployments": (_deployments, list),
        "owner": (str, intern),
    },
    PolicyRecord: {"owner": (str, intern)},
    Deployment: {
        "model_id": (str, intern),
        "capabilities": _STRINGS,
        "adapters": _STRINGS,
        "tenant_ids": _STRINGS,
        "profile": _PROFILE,
        "price_bands": _BANDS,
        "status": _of_enum(DeploymentStatus),
    },
    ServingProfile: {},
    PriceBand: {"weekdays": (list, tuple)},
}

ROWS = {cls: tuple(_row(of, codecs) for of in fields(cls) if of.init) for cls, codecs in CODECS.items()}
READERS = {cls: {row.name: row.value for row in rows} for cls, rows in ROWS.items()}


def _dumps(resource: Resource, document: Mapping[str, object]) -> str:
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise ValueError(
            f"{kind_of(resource).value} {name_of(resource)!r} holds a number that is not finite (NaN or infinity); "
            "leave the field out where its value is unknown"
        ) from None


def encode(resource: Resource) -> str:
    """The resource as canonical JSON. ValueError where a number is not finite."""
    return _dumps(resource, _document(resource))


def decode(kind: ResourceKind, text: str) -> Resource:
    """The resource that `encode` made the text of."""
    document = json.loads(text)
    match kind:
        case ResourceKind.REGION:
            return Region(**_values(Region, document))
        case ResourceKind.MODEL:
            return Model(**_values(Model, document))
        case ResourceKind.POLICY:
            return PolicyRecord(**_values(PolicyRecord, document))
        case ResourceKind.NODE:
            return _node(document)


def _node(document: Mapping[str, Any]) -> Node:
    values = _values(Node, document)
    region_id, node_id = values["region_id"], values["node_id"]
    values["deployments"] = tuple(
        Deployment(region_id=region_id, node_id=node_id, **_values(Deployment, deployment))
        for deployment in values.get("deployments", ())
    )
    return Node(**values)


def seal(resource: R, *, owner: str, revision: int) -> R:
    """The resource as an owner stores it at a revision, with the etag of its content."""
    document = _document(resource)
    for name in ASSIGNED:
        document.pop(name, None)
    mark = blake2b(_dumps(resource, document).encode(), digest_size=8).hexdigest()
    return replace(resource, owner=owner, revision=revision, etag=mark)


def digest(resources: Sequence[Resource]) -> str:
    """A mark of what a request wants stored, whatever versions it wants replaced."""
    mark = blake2b(digest_size=16)
    for resource in resources:
        document = _document(resource)
        for name in ASSIGNED + OBSERVED:
            document.pop(name, None)
        mark.update(f"{kind_of(resource).value} {_dumps(resource, document)}\n".encode())
    return mark.hexdigest()


def encode_answer(resources: Sequence[Resource]) -> str:
    """What a request was answered, to answer it again."""
    return json.dumps([[kind_of(resource).value, encode(resource)] for resource in resources])


def decode_answer(text: str) -> tuple[Resource, ...]:
    """The resources that `encode_answer` made the text of."""
    return tuple(decode(ResourceKind(kind), body) for kind, body in json.loads(text))
