"""A fleet as a file describes it: regions, the paths between them, gateways, and engines of several makes.

The file is TOML (README.md in `data` explains every field).  A fleet renders itself twice: as the catalog that routers
see, and as the engines that the world runs; what an engine does and what is declared of it may differ.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from catalog.types import Deployment, Engine, Model, Node, Region, ServingProfile, Snapshot
from federation.simulation.batching import BatchProfile
from policies.prediction import LOCAL_ROUND_TRIP_SECONDS, ROUND_TRIP_SECONDS_PER_KM, great_circle_km

SHIPPED = files("federation.simulation").joinpath("data")


class FleetInvalid(ValueError):
    """A fleet or trace that cannot be used; the message names the file, the field and the way out."""


@dataclass(frozen=True, slots=True)
class FleetNode:
    """One engine of the fleet. `price_usd_per_hour` is the whole machine's."""

    region_id: str
    node_id: str
    make: str
    zone: str
    accelerator: str
    accelerator_count: int
    price_usd_per_hour: float
    profile: BatchProfile

    @property
    def name(self) -> str:
        return f"{self.region_id}/{self.node_id}"

    @property
    def input_price(self) -> float:
        """US dollars that a prompt token costs: the share of the machine's hour that its prefill takes."""
        return self.price_usd_per_hour / 3600 * self.profile.prefill_seconds_per_token

    @property
    def output_price(self) -> float:
        """US dollars that an answer's token costs: its share of the machine's hour in a batch that is half full."""
        places = max(1.0, self.profile.max_batch_size / 2)
        return self.price_usd_per_hour / 3600 / (self.profile.decode_tokens_per_second * places)


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where requests enter, with a router beside it, and the share of the trace that enters there."""

    gateway_id: str
    region_id: str
    share: float


@dataclass(frozen=True, slots=True)
class Signals:
    """How often routers look at each node, and how irregularly (a share of the interval)."""

    every_seconds: float = 5.0
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that a run needs to know of the hardware and the paths."""

    name: str
    model_id: str
    context_window_tokens: int
    block_tokens: int
    regions: tuple[Region, ...]
    nodes: tuple[FleetNode, ...]
    gateways: tuple[Gateway, ...]
    signals: Signals
    # Seconds there and back, by (region, region); both orders.
    round_trip: Mapping[tuple[str, str], float]

    def snapshot(self, *, declared: bool = True, price_factor: Mapping[str, float] | None = None) -> Snapshot:
        """The catalog of this fleet. `declared`: with profiles and prices; `price_factor` multiplies by region."""
        factor = price_factor or {}
        regions = {region.region_id: region for region in self.regions}
        model = Model(
            self.model_id,
            context_window_tokens=self.context_window_tokens,
            capabilities=("generate",),
            owner="simulation",
        )
        nodes = {
            node.name: _node(node, self.model_id, declared, factor.get(node.region_id, 1.0)) for node in self.nodes
        }
        return Snapshot(1, regions, {self.model_id: model}, nodes, {})


def _node(node: FleetNode, model_id: str, declared: bool, factor: float) -> Node:
    profile = node.profile
    deployment = Deployment(
        node.region_id,
        node.node_id,
        model_id,
        capabilities=("generate",),
        price_usd_per_million_input_tokens=node.input_price * 1e6 * factor,
        price_usd_per_million_output_tokens=node.output_price * 1e6 * factor,
        profile=ServingProfile(
            prefill_seconds_per_token=profile.prefill_seconds_per_token,
            min_time_to_first_token_seconds=profile.min_time_to_first_token_seconds,
            decode_tokens_per_second=profile.decode_tokens_per_second,
            max_batch_size=profile.max_batch_size,
            kv_cache_tokens=profile.kv_cache_tokens,
        )
        if declared
        else ServingProfile(),
    )
    return Node(
        node.region_id,
        node.node_id,
        f"http://{node.node_id}.{node.region_id}:8000",
        Engine.VLLM,
        zone=node.zone,
        accelerator=node.accelerator,
        accelerator_count=node.accelerator_count,
        price_usd_per_hour=node.price_usd_per_hour * factor,
        lease_seconds=0.0,
        deployments=(deployment,),
        owner="simulation",
    )


def load_fleet(path: str) -> Fleet:
    """A fleet by file, or by the name of one that ships with the program. Raises FleetInvalid."""
    text, origin = read_shipped(path, "toml", "fleet")
    try:
        document = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FleetInvalid(f"{origin} is no TOML: {error}") from error
    return parse_fleet(document, origin)


def read_shipped(name: str, suffix: str, kind: str) -> tuple[bytes, str]:
    """The bytes of a file, or of the data that ships under a name, and what to call it."""
    path = Path(name)
    if path.is_file():
        return path.read_bytes(), str(path)
    for shipped in SHIPPED.iterdir():
        if shipped.name in (name, f"{name}.{suffix}"):
            return shipped.read_bytes(), shipped.name
    alike = (".toml",) if suffix == "toml" else (".csv", ".gz")
    known = ", ".join(sorted(each.name for each in SHIPPED.iterdir() if each.name.endswith(alike)))
    raise FleetInvalid(f"{kind} {name!r} is neither a file nor one that ships with the program; these do: {known}")


def parse_fleet(document: Mapping[str, Any], origin: str = "fleet") -> Fleet:
    """A fleet from the values of its file. Raises FleetInvalid naming the field."""
    reader = _Reader(origin)
    reader.keys(document, "", _TOP)
    regions = [_region(reader, table, number) for number, table in enumerate(reader.tables(document, "regions"))]
    known = {region.region_id for region in regions}
    round_trip = _round_trips(reader, document.get("round_trips_ms", {}), regions)
    measured = {
        region.region_id: {a: seconds for (a, b), seconds in round_trip.items() if b == region.region_id != a}
        for region in regions
    }
    regions = [replace(region, round_trip_seconds=measured[region.region_id]) for region in regions]
    makes = reader.table(document, "makes")
    nodes = _nodes(reader, document, makes, known)
    gateways = _gateways(reader, document, known)
    signals = reader.table(document, "signals", {})
    reader.keys(signals, "signals", {"every_seconds", "jitter"})
    return Fleet(
        name=reader.text(document, "name"),
        model_id=reader.text(document, "model"),
        context_window_tokens=int(reader.number(document, "context_window_tokens", 1, default=131_072)),
        block_tokens=int(reader.number(document, "block_tokens", 1, default=512)),
        regions=tuple(sorted(regions, key=lambda region: region.region_id)),
        nodes=tuple(nodes),
        gateways=tuple(gateways),
        signals=Signals(
            reader.number(signals, "every_seconds", 0.1, default=5.0, path="signals"),
            reader.number(signals, "jitter", 0.0, default=0.1, path="signals"),
        ),
        round_trip=round_trip,
    )


_TOP = {
    "name",
    "model",
    "context_window_tokens",
    "block_tokens",
    "signals",
    "regions",
    "round_trips_ms",
    "makes",
    "nodes",
    "gateways",
}
_SPEEDS = {field.name for field in fields(BatchProfile)}


def _region(reader: _Reader, table: Mapping[str, Any], number: int) -> Region:
    path = f"regions[{number}]"
    allowed = {"id", "latitude", "longitude", "jurisdictions", "egress_price_usd_per_gb"}
    reader.keys(table, path, allowed)
    return Region(
        reader.text(table, "id", path),
        jurisdictions=tuple(table.get("jurisdictions", ())),
        latitude=reader.number(table, "latitude", -90.0, path=path),
        longitude=reader.number(table, "longitude", -180.0, path=path),
        egress_price_usd_per_gb=reader.number(table, "egress_price_usd_per_gb", 0.0, default=0.09, path=path),
        owner="simulation",
    )


def _round_trips(reader: _Reader, table: Mapping[str, Any], regions: list[Region]) -> Mapping[tuple[str, str], float]:
    """Measured where the file says so (`"a b" = 68.5`), else estimated from coordinates as routers do."""
    found: dict[tuple[str, str], float] = {}
    known = {region.region_id: region for region in regions}
    for key in table:
        pair = key.split()
        if len(pair) != 2 or any(name not in known for name in pair):
            reader.fail(f"round_trips_ms.{key!r}", 'must be two region ids with a space between them, as in "a b"')
        seconds = reader.number(table, key, 0.0, path="round_trips_ms") / 1000
        found[pair[0], pair[1]] = found[pair[1], pair[0]] = seconds
    for a in known.values():
        for b in known.values():
            if a is b:
                found[a.region_id, b.region_id] = LOCAL_ROUND_TRIP_SECONDS
            elif (a.region_id, b.region_id) not in found:
                assert a.latitude is not None
                assert a.longitude is not None
                assert b.latitude is not None
                assert b.longitude is not None
                kilometres = great_circle_km(a.latitude, a.longitude, b.latitude, b.longitude)
                seconds = LOCAL_ROUND_TRIP_SECONDS + kilometres * ROUND_TRIP_SECONDS_PER_KM
                found[a.region_id, b.region_id] = seconds
    return found


def _nodes(
    reader: _Reader, document: Mapping[str, Any], makes: Mapping[str, Any], regions: set[str]
) -> list[FleetNode]:
    profiles: dict[str, BatchProfile] = {}
    for make, table in makes.items():
        path = f"makes.{make}"
        reader.keys(table, path, _SPEEDS | {"accelerator", "accelerator_count", "price_usd_per_hour"})
        try:
            profiles[make] = BatchProfile(**{key: value for key, value in table.items() if key in _SPEEDS})
        except (TypeError, ValueError) as error:
            reader.fail(path, str(error))
    nodes: list[FleetNode] = []
    numbers: dict[tuple[str, str], int] = {}
    for number, table in enumerate(reader.tables(document, "nodes")):
        path = f"nodes[{number}]"
        reader.keys(table, path, {"region", "make", "count", "zone", "price_usd_per_hour"})
        region, make = reader.text(table, "region", path), reader.text(table, "make", path)
        if region not in regions:
            reader.fail(f"{path}.region", f"names {region!r}, which is no region of this file")
        if make not in profiles:
            reader.fail(f"{path}.make", f"names {make!r}; `makes` has {', '.join(sorted(profiles)) or 'none'}")
        kind = makes[make]
        standard = reader.number(kind, "price_usd_per_hour", 0.0, default=0.0, path=f"makes.{make}")
        price = reader.number(table, "price_usd_per_hour", 0.0, default=standard, path=path)
        for _ in range(int(reader.number(table, "count", 1, default=1, path=path))):
            count = numbers[region, make] = numbers.get((region, make), 0) + 1
            nodes.append(
                FleetNode(
                    region,
                    f"{make}-{count}",
                    make,
                    str(table.get("zone", "")),
                    str(kind.get("accelerator", "")),
                    int(kind.get("accelerator_count", 1)),
                    price,
                    profiles[make],
                )
            )
    return nodes


def _gateways(reader: _Reader, document: Mapping[str, Any], regions: set[str]) -> list[Gateway]:
    gateways: list[Gateway] = []
    for number, table in enumerate(reader.tables(document, "gateways")):
        path = f"gateways[{number}]"
        reader.keys(table, path, {"id", "region", "share"})
        region = reader.text(table, "region", path)
        if region not in regions:
            reader.fail(f"{path}.region", f"names {region!r}, which is no region of this file")
        name = str(table.get("id", f"gateway-{number + 1}"))
        gateways.append(Gateway(name, region, reader.number(table, "share", 0.0, default=1.0, path=path)))
    total = sum(gateway.share for gateway in gateways)
    if total <= 0:
        reader.fail("gateways", "have shares that add up to 0; give at least one a share above it")
    return [replace(gateway, share=gateway.share / total) for gateway in gateways]


class _Reader:
    """Takes values of the right kind out of a document, or says where the wrong one stands."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def fail(self, path: str, message: str) -> None:
        raise FleetInvalid(f"{self._origin}: {path} {message}")

    def keys(self, table: Mapping[str, Any], path: str, allowed: set[str]) -> None:
        unknown = sorted(table.keys() - allowed)
        if unknown:
            self.fail(f"{path}.{unknown[0]}".lstrip("."), f"is no field; there are {', '.join(sorted(allowed))}")

    def tables(self, document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        found = document.get(key)
        if not isinstance(found, list) or not found:
            self.fail(key, f"is missing; give at least one [[{key}]]")
        assert isinstance(found, list)
        return found

    def table(
        self, document: Mapping[str, Any], key: str, default: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        found = document.get(key, default)
        if not isinstance(found, Mapping):
            self.fail(key, f"is missing; give a table [{key}]")
        assert isinstance(found, Mapping)
        return found

    def text(self, table: Mapping[str, Any], key: str, path: str = "") -> str:
        found = table.get(key)
        if not isinstance(found, str) or not found:
            self.fail(f"{path}.{key}".lstrip("."), "is missing; it must be a text")
        return str(found)

    def number(
        self, table: Mapping[str, Any], key: str, least: float, *, default: float | None = None, path: str = ""
    ) -> float:
        found = table.get(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found) or found < least:
            self.fail(f"{path}.{key}".lstrip("."), f"is {found!r}; it must be a number of at least {least:g}")
        assert isinstance(found, int | float)
        return float(found)
