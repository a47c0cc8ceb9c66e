"""Builders for tests: they supply what does not matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from catalog.types import Deployment, Engine, Model, Node, Region, ServingProfile, Snapshot
from federation.config import RoutingSettings
from federation.routing.router import Router
from federation.routing.table import Table, build_table
from policies.health import CircuitState, CircuitView, DeploymentHealth, Grade
from policies.pipeline import Evaluation, evaluate
from policies.policy import Policy
from policies.pool import Load
from policies.prediction import Ask, round_trips
from policies.registry import BUILT_IN, Registry
from policies.types import RouteRequest

MODEL = "llama-3-8b"
FAST = ServingProfile(
    prefill_seconds_per_token=0.0002,
    min_time_to_first_token_seconds=0.05,
    decode_tokens_per_second=50.0,
    max_batch_size=32,
)
WELL = DeploymentHealth(grade=Grade.HEALTHY, ready=True, score=1.0, signal_times=MappingProxyType({"probe": 0.0}))

SICK = DeploymentHealth(grade=Grade.UNHEALTHY, ready=True, score=0.0, signal_times=MappingProxyType({"probe": 0.0}))
DEGRADED = replace(WELL, grade=Grade.DEGRADED, score=0.5)
OPEN = replace(WELL, circuit=CircuitView(CircuitState.OPEN, failures=5, opens_total=1, retry_at=30.0))
HALF_OPEN = replace(WELL, circuit=CircuitView(CircuitState.HALF_OPEN, opens_total=1))


def a_region(region_id: str, **changes: Any) -> Region:
    return replace(Region(region_id, jurisdictions=("DE", "EU"), owner="home"), **changes)


def a_model(model_id: str = MODEL, **changes: Any) -> Model:
    return replace(Model(model_id, capabilities=("generate",), owner="home"), **changes)


def a_deployment(model_id: str = MODEL, **changes: Any) -> Deployment:
    base = Deployment(
        "",
        "",
        model_id,
        capabilities=("generate",),
        price_usd_per_million_input_tokens=1.0,
        price_usd_per_million_output_tokens=2.0,
        profile=FAST,
    )
    return replace(base, **changes)


def a_node(name: str, deployments: Iterable[Deployment] | None = None, **changes: Any) -> Node:
    """A node by `region/node`, with one deployment of MODEL unless others are given."""
    region_id, node_id = name.split("/")
    served = tuple(replace(d, region_id=region_id, node_id=node_id) for d in (deployments or (a_deployment(),)))
    base = Node(
        region_id,
        node_id,
        f"http://{node_id}.{region_id}:8000",
        Engine.VLLM,
        accelerator="H100",
        accelerator_count=1,
        deployments=served,
        owner="home",
    )
    return replace(base, **changes)


def a_snapshot(
    *nodes: Node, regions: Iterable[Region] = (), models: Iterable[Model] = (), revision: int = 1
) -> Snapshot:
    """A catalog of nodes, with the regions and models that they name unless they are given."""
    known_regions = {region.region_id: region for region in regions}
    known_models = {model.model_id: model for model in models}
    for node in nodes:
        known_regions.setdefault(node.region_id, a_region(node.region_id))
        for deployment in node.deployments:
            known_models.setdefault(deployment.model_id, a_model(deployment.model_id))
    return Snapshot(revision, known_regions, known_models, {node.name: node for node in nodes}, {})


def all_well(snapshot: Snapshot, **changes: DeploymentHealth) -> Mapping[str, DeploymentHealth]:
    return {d.name: WELL for node in snapshot.nodes.values() for d in node.deployments} | changes


def a_table(
    *nodes: Node,
    health: Mapping[str, DeploymentHealth] | None = None,
    home: str = "eu",
    now: float = 0.0,
    regions: Iterable[Region] = (),
    models: Iterable[Model] = (),
) -> Table:
    """A table; `health` is by deployment, or by `region/node` for all of a node's. What is not given is well."""
    snapshot = a_snapshot(*nodes, regions=regions, models=models)
    known = dict(all_well(snapshot))
    for name, view in (health or {}).items():
        known.update(
            {d.name: view for d in snapshot.nodes[name].deployments} if name in snapshot.nodes else {name: view}
        )
    return build_table(snapshot, known, home_region=home, now=now)


def a_router(table: Table | None = None, *, seed: int = 7, **settings: Any) -> Router:
    router = Router(RoutingSettings(**settings), replica="r1", seed=seed, wall=lambda: 1_700_000_000.0)
    if table is not None:
        router.install(table)
    return router


def a_request(model_id: str = MODEL, **changes: Any) -> RouteRequest:
    return replace(RouteRequest(model_id=model_id, input_tokens=500, max_output_tokens=100), **changes)


def an_ask(table: Table, request: RouteRequest | None = None, policy: Policy | None = None) -> Ask:
    """A request of a table, seen from its origin; the table's own region where the request names none."""
    policy, request = policy or Policy(), request or a_request()
    origin = request.origin_region or table.home_region
    round_trip, index = round_trips(origin, table.pool.places, policy.assume)
    assume = policy.assume
    return Ask(
        request=replace(request, origin_region=origin),
        policy=policy,
        input_tokens=assume.input_tokens if request.input_tokens is None else request.input_tokens,
        output_tokens=assume.output_tokens if request.max_output_tokens is None else request.max_output_tokens,
        model=table.compiled.models.get(request.model_id),
        round_trip=round_trip,
        origin=index,
        zone=f"{origin}/{request.origin_zone}" if request.origin_zone else "",
    )


def a_load(table: Table, **columns: Mapping[str, float]) -> Load:
    """An idle fleet, but for columns given as {node: value}."""
    idle = Load.idle(len(table.pool))
    found = {name: getattr(idle, name).copy() for name in columns}
    for name, values in columns.items():
        for node, value in values.items():
            found[name][[n.rpartition("/")[0].startswith(node) for n in table.pool.names]] = value
    return replace(idle, **found)


def evaluated(
    table: Table,
    request: RouteRequest | None = None,
    policy: Policy | None = None,
    load: Load | None = None,
    registry: Registry = BUILT_IN,
) -> Evaluation:
    """Every row of a table, filtered and scored by the plain pipeline."""
    ask = an_ask(table, request, policy)
    return evaluate(ask, table.pool, load or Load.idle(len(table.pool)), registry)


def by_node(table: Table, values: Iterable[Any]) -> dict[str, Any]:
    """A column as {region/node: value}; of a node with several deployments, the last one's."""
    return dict(zip(table.compiled.node_names, np.asarray(values).tolist(), strict=True))
