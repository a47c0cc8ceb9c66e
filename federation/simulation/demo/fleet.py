"""The demonstration's fleet as `data/demo.toml` describes it, and the command lines of its processes. Pure."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from catalog.types import ServingProfile
from policies.prediction import LOCAL_ROUND_TRIP_SECONDS

# Heartbeats come every third of it. A node whose agent is killed leaves routing after so long.
LEASE_SECONDS = 10
# Files of the control plane in the demonstration's directory.
CATALOG, DECISIONS = "catalog.db", "decisions.jsonl"


@dataclass(frozen=True, slots=True)
class DemoRegion:
    """`place` is the name that people know it by."""

    region_id: str
    place: str
    jurisdictions: tuple[str, ...]
    latitude: float
    longitude: float
    egress_price_usd_per_gb: float


@dataclass(frozen=True, slots=True)
class DemoNode:
    """One engine, and what is declared of it."""

    region_id: str
    node_id: str
    zone: str
    price_usd_per_hour: float
    privacy_level: str
    accelerator: str
    accelerator_count: int
    profile: ServingProfile

    @property
    def name(self) -> str:
        return f"{self.region_id}/{self.node_id}"


@dataclass(frozen=True, slots=True)
class DemoModel:
    model_id: str
    family: str
    version: str
    quantization: str
    context_window_tokens: int
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DemoFleet:
    model: DemoModel
    regions: tuple[DemoRegion, ...]
    nodes: tuple[DemoNode, ...]
    # Seconds there and back, by both directions of a pair.
    round_trips: Mapping[tuple[str, str], float]

    def round_trip(self, origin: str, region: str) -> float:
        """Seconds from a gateway in `origin` to a node in `region`, and back."""
        return LOCAL_ROUND_TRIP_SECONDS if origin == region else self.round_trips[origin, region]

    def place(self, region: str) -> str:
        """What people call a region."""
        return next(each.place for each in self.regions if each.region_id == region)

    def nodes_of(self, region: str) -> tuple[DemoNode, ...]:
        return tuple(node for node in self.nodes if node.region_id == region)

    def node(self, name: str) -> DemoNode:
        return next(node for node in self.nodes if node.name == name)

    @property
    def confidential(self) -> DemoNode:
        """The one node that may serve confidential prompts."""
        (found,) = (node for node in self.nodes if node.privacy_level == "confidential")
        return found


def load_fleet() -> DemoFleet:
    """The fleet that ships with the package."""
    text = files("federation.simulation").joinpath("data", "demo.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    model = document["model"]
    makes = document["makes"]
    paths = {frozenset(path["between"]): path["round_trip_ms"] / 1000 for path in document["paths"]}
    return DemoFleet(
        model=DemoModel(**{**model, "capabilities": tuple(model["capabilities"])}),
        regions=tuple(
            DemoRegion(**{**region, "jurisdictions": tuple(region["jurisdictions"])}) for region in document["regions"]
        ),
        nodes=tuple(_node(node, makes[node["make"]]) for node in document["nodes"]),
        round_trips={
            (one, other): seconds for pair, seconds in paths.items() for one in pair for other in pair if one != other
        },
    )


def _node(node: Mapping[str, object], make: Mapping[str, object]) -> DemoNode:
    values = {**node, **make}
    taken = {name: values[name] for name in ("region_id", "node_id", "zone", "accelerator", "accelerator_count")}
    speeds = {name: values[name] for name in ServingProfile.__dataclass_fields__}
    return DemoNode(
        **taken,  # type: ignore[arg-type]
        price_usd_per_hour=float(str(node["price_usd_per_hour"])),
        privacy_level=str(node.get("privacy_level", "internal")),
        profile=ServingProfile(**speeds),  # type: ignore[arg-type]
    )


def server_settings(fleet: DemoFleet, directory: Path) -> str:
    """The control plane's configuration file: quicker than the defaults, so that minutes fit into seconds."""
    owned = [region.region_id for region in fleet.regions]
    return f"""\
[region]
id = "{owned[0]}"
owns = {json.dumps(owned)}
[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
drain_seconds = 1.0
[store]
url = {json.dumps(f"sqlite:///{directory / CATALOG}")}
[health]
probe_interval_seconds = {PACE.probe_interval_seconds}
probe_timeout_seconds = {PACE.probe_timeout_seconds}
recheck_interval_seconds = {PACE.recheck_interval_seconds}
slow_start_seconds = {PACE.slow_start_seconds}
[circuit]
open_seconds = {PACE.open_seconds}
max_open_seconds = {PACE.max_open_seconds}
[routing]
decision_log = {json.dumps(str(directory / DECISIONS))}
[telemetry]
log_format = "json"
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """What the demonstration sets shorter than the defaults."""

    probe_interval_seconds: float = 1.0
    probe_timeout_seconds: float = 1.0
    recheck_interval_seconds: float = 0.25
    slow_start_seconds: float = 3.0
    open_seconds: float = 2.0
    max_open_seconds: float = 4.0


PACE = Pace()


def server_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "federation", "serve", "--config", str(config)]


def engine_command(fleet: DemoFleet, node: DemoNode, ready: Path, *, seed: int, port: int = 0) -> list[str]:
    """A stand-in engine with the node's speeds. It writes the line with its address to `ready`."""
    profile = node.profile
    return [
        *(sys.executable, "-m", "federation.simulation.engine"),
        *("--model", fleet.model.model_id),
        *("--listen", f"127.0.0.1:{port}"),
        *("--prefill-seconds-per-token", str(profile.prefill_seconds_per_token)),
        *("--min-ttft", str(profile.min_time_to_first_token_seconds)),
        *("--decode-tokens-per-second", str(profile.decode_tokens_per_second)),
        *("--max-batch", str(profile.max_batch_size)),
        *("--kv-cache-tokens", str(profile.kv_cache_tokens)),
        *("--max-model-len", str(fleet.model.context_window_tokens)),
        *("--seed", str(seed)),
        *("--ready-file", str(ready)),
    ]


def agent_command(node: DemoNode, *, engine: str, server: str) -> list[str]:
    """The agent beside an engine: it registers the node with the same speeds, and takes it back when it is ended."""
    profile = node.profile
    least = profile.min_time_to_first_token_seconds or 0.0
    return [
        *(sys.executable, "-m", "federation", "agent"),
        *("--engine-url", engine),
        *("--control-plane", server),
        *("--region", node.region_id),
        *("--node", node.node_id),
        *("--zone", node.zone),
        *("--accelerator", node.accelerator),
        *("--accelerator-count", str(node.accelerator_count)),
        *("--price-per-hour", str(node.price_usd_per_hour)),
        *("--privacy-level", node.privacy_level),
        *("--prefill-seconds-per-token", str(profile.prefill_seconds_per_token)),
        *("--min-ttft", f"{least * 1000:g}ms"),
        *("--decode-tokens-per-second", str(profile.decode_tokens_per_second)),
        *("--max-batch", str(profile.max_batch_size)),
        *("--kv-cache-tokens", str(profile.kv_cache_tokens)),
        *("--lease", f"{LEASE_SECONDS}s"),
        *("--on-exit", "deregister"),
    ]
