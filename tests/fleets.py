"""Random fleets, requests and policies, and a checker of hard rules that shares no code with the program's filters.

Everything is drawn from a `random.Random`, so that a failing example is its seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from random import Random
from types import MappingProxyType
from typing import TypeVar

from catalog.types import (
    Deployment,
    DeploymentStatus,
    Engine,
    Model,
    Node,
    PriceBand,
    PrivacyLevel,
    Reach,
    Region,
    RegionStatus,
    ServingProfile,
    Snapshot,
)
from federation.routing.router import Router
from federation.routing.state import IN_FLIGHT, PENDING, RUNNING, SUSPICION, WAIT
from federation.routing.table import build_table
from policies.health import CircuitState, CircuitView, DeploymentHealth, Grade
from policies.policy import Bounds, Line, Match, Narrow, Policy, Rule, Split, Weights
from policies.registry import BUILT_IN
from policies.types import Choice, Explain, RouteRequest
from tests.builders import WELL, a_router, a_snapshot

REGIONS = ("eu", "eu-2", "us", "ap", "nowhere")
LAW: Mapping[str, tuple[str, ...]] = {"eu": ("DE", "EU"), "eu-2": ("FR", "EU"), "us": ("US",), "ap": ("JP",)}
MODELS = ("small", "small-q", "large", "embedder")
TENANTS = ("acme", "globex")
LEVELS = tuple(PrivacyLevel)
T = TypeVar("T")
PICKERS = tuple(sorted(BUILT_IN.pickers))


@dataclass(frozen=True, slots=True)
class Fleet:
    """A catalog with health, and a router over it."""

    snapshot: Snapshot
    health: Mapping[str, DeploymentHealth]

    def router(self, *policies: Policy, seed: int = 7) -> Router:
        router = a_router(seed=seed)
        router.install(build_table(self.snapshot, self.health, home_region="eu", now=0.0))
        router.install_policies({policy.policy_id: policy for policy in policies})
        return router

    def with_nodes(self, nodes: Iterable[Node]) -> Fleet:
        """The same catalog with these nodes alone."""
        known = {node.name: node for node in nodes}
        names = [d.name for node in known.values() for d in node.deployments]
        return Fleet(replace(self.snapshot, nodes=known), {name: self.health[name] for name in names})


def maybe(rng: Random, chance: float, value: T) -> T | None:
    return value if rng.random() < chance else None


def random_fleet(rng: Random, size: int, *, calm: bool = False) -> Fleet:
    """A fleet of about `size` deployments; a calm one has no circuits half-open and nothing that is not well."""
    regions = [random_region(rng, name) for name in REGIONS]
    models = [
        Model(
            "small",
            "llama",
            "3",
            "fp16",
            rng.choice([None, 2_048, 8_192]),
            capabilities=("generate",),
            aliases=("s",),
            equivalence_class="small",
        ),
        Model(
            "small-q",
            "llama",
            "3",
            "int4",
            rng.choice([None, 2_048, 4_096]),
            capabilities=("generate",),
            equivalence_class="small",
        ),
        Model("large", "llama", "70", context_window_tokens=131_072, capabilities=("generate", "code")),
        Model("embedder", capabilities=("embed",)),
    ]
    nodes: list[Node] = []
    count = 0
    while count < size:
        node = random_node(rng, len(nodes), calm)
        nodes.append(node)
        count += len(node.deployments)
    snapshot = a_snapshot(*nodes, regions=regions, models=models)
    health = {d.name: WELL if calm else random_health(rng) for n in nodes for d in n.deployments}
    return Fleet(snapshot, health)


def random_region(rng: Random, name: str) -> Region:
    far = {other: rng.uniform(0.005, 0.3) for other in REGIONS if other != name and rng.random() < 0.6}
    return Region(
        name,
        jurisdictions=LAW.get(name, ()),
        latitude=maybe(rng, 0.7, rng.uniform(-60, 60)),
        longitude=maybe(rng, 0.7, rng.uniform(-180, 180)),
        reach=Reach.GATEWAY if name == "ap" else Reach.DIRECT,
        ingress_endpoint="https://ingress.ap.example" if name == "ap" else "",
        status=RegionStatus.DRAINING if rng.random() < 0.03 else RegionStatus.ACTIVE,
        egress_price_usd_per_gb=maybe(rng, 0.6, rng.uniform(0.0, 0.2)),
        egress_prices_usd_per_gb={"us": 0.5} if rng.random() < 0.3 else {},
        round_trip_seconds=far,
        owner="home",
    )


def random_node(rng: Random, number: int, calm: bool = False) -> Node:
    region_id, node_id = rng.choice(REGIONS), f"n{number:04}"
    served = rng.sample(MODELS, k=rng.choice([1, 1, 1, 2]))
    return Node(
        region_id,
        node_id,
        f"http://{node_id}.{region_id}:8000",
        rng.choice([Engine.VLLM, Engine.SGLANG]),
        zone=rng.choice(["", "a", "b"]),
        accelerator=rng.choice(["", "H100", "L4"]),
        privacy_level=rng.choice([None, *LEVELS]),
        labels=MappingProxyType({k: rng.choice("xy") for k in ("tier", "team") if rng.random() < 0.6}),
        price_usd_per_hour=maybe(rng, 0.5, rng.uniform(0.5, 30.0)),
        draining=not calm and rng.random() < 0.04,
        expired=not calm and rng.random() < 0.04,
        deployments=tuple(random_deployment(rng, region_id, node_id, model, calm) for model in served),
        owner="home",
    )


def random_deployment(rng: Random, region_id: str, node_id: str, model: str, calm: bool) -> Deployment:
    unpriced, undeclared = rng.random() < 0.2, rng.random() < 0.2
    profile = ServingProfile(
        None if undeclared and rng.random() < 0.7 else rng.choice([5e-5, 2e-4, 2e-4, 1e-3]),
        None if undeclared and rng.random() < 0.7 else rng.choice([0.02, 0.05, 0.2]),
        None if undeclared and rng.random() < 0.7 else rng.choice([20.0, 50.0, 50.0, 120.0]),
        None if undeclared and rng.random() < 0.7 else rng.choice([4, 32, 64]),
    )
    return Deployment(
        region_id,
        node_id,
        model,
        capabilities=() if rng.random() < 0.7 else ("generate", "custom:tools"),
        price_usd_per_million_input_tokens=None if unpriced else rng.choice([0.1, 1.0, 1.0, 10.0]),
        price_usd_per_million_output_tokens=None if unpriced or rng.random() < 0.05 else rng.choice([0.2, 2.0, 30.0]),
        price_usd_per_million_cached_tokens=maybe(rng, 0.3, 0.05),
        max_concurrency=rng.choice([None, None, 1, 8, 64]),
        weight=rng.choice([1.0, 1.0, 1.0, 0.0, 0.5, 4.0]),
        adapters=("sql",) if rng.random() < 0.2 else (),
        tenant_ids=rng.choice([(), (), (), (), ("acme",), ("globex", "initech")]),
        profile=profile,
        committed_concurrency=2 if rng.random() < 0.08 else None,
        # All day: which hour it is, is not what these fleets are about.
        price_bands=(PriceBand(0, 1_440, rng.choice([0.5, 3.0])),) if rng.random() < 0.1 else (),
        status=DeploymentStatus.LOADING if not calm and rng.random() < 0.03 else DeploymentStatus.READY,
    )


def random_health(rng: Random) -> DeploymentHealth:
    roll = rng.random()
    learned = replace(
        WELL,
        score=rng.choice([1.0, 1.0, 0.9, 0.6]),
        latency_p50_seconds=maybe(rng, 0.5, rng.uniform(0.01, 2.0)),
        prefill_seconds_per_token=maybe(rng, 0.3, rng.uniform(1e-5, 1e-3)),
        signal_times=MappingProxyType({"probe": -rng.uniform(0.0, 60.0)}),
    )
    if roll < 0.6:
        return learned
    if roll < 0.72:
        return replace(learned, grade=Grade.DEGRADED, score=0.5)
    if roll < 0.84:
        return replace(learned, grade=Grade.UNHEALTHY, score=0.0)
    if roll < 0.89:
        return replace(learned, circuit=CircuitView(CircuitState.OPEN, 5, 1, retry_at=30.0))
    if roll < 0.92:
        return replace(learned, circuit=CircuitView(CircuitState.HALF_OPEN, 0, 1))
    if roll < 0.96:
        return replace(learned, ejected_until=60.0)
    return DeploymentHealth()


def random_request(rng: Random, **changes: object) -> RouteRequest:
    """A request with some bounds and some placement, for a model or a capability."""
    by_model = rng.random() < 0.8
    request = RouteRequest(
        model_id=rng.choice(["small", "small", "small", "small-q", "large", "embedder", "s"]) if by_model else "",
        capability="" if by_model and rng.random() < 0.8 else rng.choice(["generate", "generate", "code", "embed"]),
        adapter="sql" if rng.random() < 0.05 else "",
        request_id=f"r{rng.randrange(1_000_000)}",
        origin_region=rng.choice(["", "eu", "us", "ap", "elsewhere"]),
        origin_zone=rng.choice(["", "a"]),
        tenant_id=rng.choice(["", "", "acme", "globex"]),
        session_id=f"s{rng.randrange(20)}" if rng.random() < 0.3 else "",
        priority=rng.choice([0, 0, -1, 5]),
        labels=MappingProxyType({"team": rng.choice("xy")} if rng.random() < 0.3 else {}),
        max_latency_seconds=maybe(rng, 0.08, rng.uniform(0.5, 30.0)),
        max_time_to_first_token_seconds=maybe(rng, 0.08, rng.uniform(0.05, 3.0)),
        min_throughput_tokens_per_second=maybe(rng, 0.08, rng.uniform(5.0, 100.0)),
        privacy_level=rng.choice([PrivacyLevel.PUBLIC, PrivacyLevel.INTERNAL, PrivacyLevel.INTERNAL, *LEVELS]),
        prefer_gpu=rng.random() < 0.1,
        cost_tolerance=rng.choice([50.0, 50.0, 0.0, 20.0, 100.0]),
        max_price_usd_per_million_tokens=maybe(rng, 0.08, rng.uniform(0.2, 20.0)),
        input_tokens=rng.choice([None, 0, 1, 511, 512, 700, 3_000, 9_000]),
        max_output_tokens=rng.choice([None, 0, 1, 100, 255, 2_000]),
        prefix_hashes=tuple(range(100, 100 + rng.randrange(1, 6))) if rng.random() < 0.3 else (),
        only_regions=tuple(rng.sample(REGIONS, 2)) if rng.random() < 0.08 else (),
        exclude_regions=(rng.choice(REGIONS),) if rng.random() < 0.08 else (),
        jurisdictions=rng.choice([("EU",), ("US", "FR")]) if rng.random() < 0.15 else (),
        exclude_nodes=tuple(f"{r}/n{rng.randrange(9):04}" for r in REGIONS) if rng.random() < 0.08 else (),
        node_labels=(("tier", "x"),) if rng.random() < 0.08 else (),
        allow_substitutes=rng.random() < 0.3,
        policy_id="random",
        max_alternatives=rng.choice([0, 1, 2, 3, 3, 16]),
        explain=rng.choice(list(Explain)),
    )
    return replace(request, **changes)  # type: ignore[arg-type]


def random_policy(rng: Random, **changes: object) -> Policy:
    """A policy with any picker, other weights and lines, bounds at times, and at times a rule."""
    policy = Policy(
        policy_id="random",
        revision=rng.randrange(9),
        weights=Weights(*(rng.choice([0.0, 0.1, 1.0, 1.0, 3.0]) for _ in range(4)), rng.choice([0.5, 2.0])),
        latency=Line(0.0, rng.choice([0.5, 5.0])),
        throughput=Line(rng.choice([100.0, 50.0]), 0.0),
        cost=Line(0.0, rng.choice([0.1, 0.01])),
        jurisdiction_bonus=rng.choice([0.0, 0.0, 0.3]),
        picker=rng.choice([*PICKERS, "predicted", "predicted", "best"]),
        near_seconds=rng.choice([0.02, 0.0, 0.2]),
        max_candidates=rng.choice([10, 10, 1, 3]),
        min_score=rng.choice([0.1, 0.1, 0.0, 0.4]),
        bounds=Bounds(
            max_time_to_first_token_seconds=maybe(rng, 0.05, rng.uniform(0.1, 3.0)),
            max_price_usd_per_million_tokens=maybe(rng, 0.05, rng.uniform(0.5, 20.0)),
            min_privacy_level=maybe(rng, 0.1, rng.choice(LEVELS)),
            jurisdictions=("EU", "US") if rng.random() < 0.05 else (),
            home_jurisdiction=rng.random() < 0.05,
        ),
        panic_threshold=rng.choice([0.5, 0.5, 0.0, 0.9]),
        prefix_affinity=rng.random() < 0.8,
        rules=tuple(random_rule(rng, n) for n in range(rng.choice([0, 0, 0, 1, 2]))),
    )
    return replace(policy, **changes)  # type: ignore[arg-type]


def random_rule(rng: Random, number: int) -> Rule:
    def narrow() -> Narrow:
        return rng.choice(
            [
                Narrow(regions=("eu*", "us")),
                Narrow(exclude_regions=("ap",)),
                Narrow(node_labels=(("team", "x"),)),
                Narrow(engines=("vllm",)),
                Narrow(accelerators=("H*", "L4")),
            ]
        )

    return Rule(
        f"rule-{number}",
        rng.choice(
            [
                Match(),
                Match(models=("small*",)),
                Match(tenants=("a*",)),
                Match(min_input_tokens=600),
                Match(labels=MappingProxyType({"team": "x"})),
                Match(max_utilization=0.5),
            ]
        ),
        narrow=maybe(rng, 0.4, narrow()),
        weights=MappingProxyType({"cost": 5.0}) if rng.random() < 0.3 else MappingProxyType({}),
        picker=rng.choice(PICKERS) if rng.random() < 0.3 else "",
        rewrite_model="small-q" if rng.random() < 0.15 else "",
        split=(Split(30.0, narrow()), Split(30.0, model_id="small-q")) if rng.random() < 0.3 else (),
    )


def stir(router: Router, seed: int, homes: Iterable[str] = ()) -> None:
    """Moves what moves: pending tokens, requests, queues, suspicion; sessions and prefixes get homes.

    What a deployment gets hangs on its name alone, so that fleets that share it agree; `homes` are those of sessions
    and prefixes, all where none are given.
    """
    state = router.state
    for name, slot in state.slots.items():
        rng = Random(f"{seed} {name}")
        if rng.random() < 0.5:
            state.matrix[IN_FLIGHT, slot] = rng.choice([0, 1, 2, 8, 40])
            state.matrix[PENDING, slot] = rng.choice([0.0, 0.0, 300.0, 4_000.0, 90_000.0])
        if rng.random() < 0.2:
            state.matrix[RUNNING, slot] = rng.uniform(0.0, 60.0)
            state.matrix[WAIT, slot] = rng.choice([0.0, 0.01, 0.5, 5.0])
            state.matrix[SUSPICION, slot] = rng.choice([1.0, 1.5, 4.0, 50.0])
    state.moved()
    names = sorted(homes or state.slots)
    rng = Random(seed)
    for _ in range(20):
        home = state.slots[rng.choice(names)]
        request = random_request(rng, session_id=f"s{rng.randrange(20)}")
        state.bind_session(request.session_key, home, 0.0, rng.choice([50.0, 300.0]))
        state.saw_prefixes(range(100, 100 + rng.randrange(1, 6)), home)


# An independent account of the hard rules, from the catalog's values alone.


def broken_rules(fleet: Fleet, request: RouteRequest, policy: Policy, rule: Rule | None, name: str) -> list[str]:
    """Which hard rules a deployment breaks for a request. Slow and naive on purpose."""
    region_id, node_id, model_id = name.split("/", 2)
    region, node = fleet.snapshot.regions[region_id], fleet.snapshot.nodes[f"{region_id}/{node_id}"]
    (deployment,) = (d for d in node.deployments if d.model_id == model_id)
    model = fleet.snapshot.models[model_id]
    origin = request.origin_region or "eu"
    home_law = fleet.snapshot.regions[origin].jurisdictions if origin in fleet.snapshot.regions else ()
    level = node.privacy_level or PrivacyLevel.INTERNAL
    broken = []
    if deployment.tenant_ids and request.tenant_id not in deployment.tenant_ids:
        broken.append("tenant")
    if level < request.privacy_level or level < (policy.bounds.min_privacy_level or PrivacyLevel.PUBLIC):
        broken.append("privacy")
    laws = [law for law in (request.jurisdictions, policy.bounds.jurisdictions) if law]
    laws += [home_law] if policy.bounds.home_jurisdiction else []
    if any(not set(law) & set(region.jurisdictions) for law in laws):
        broken.append("jurisdiction")
    if request.model_id:
        asked = fleet.snapshot.models["small" if request.model_id == "s" else request.model_id]
        same_class = asked.equivalence_class and asked.equivalence_class == model.equivalence_class
        if model_id != asked.model_id and not (request.allow_substitutes and same_class):
            broken.append("model")
    can = deployment.capabilities or model.capabilities
    if (request.capability and request.capability not in can) or (
        request.adapter and request.adapter not in deployment.adapters
    ):
        broken.append("capability")
    length = (request.input_tokens or 0) + (request.max_output_tokens or 0)
    if model.context_window_tokens is not None and length > model.context_window_tokens:
        broken.append("context")
    if (request.only_regions and region_id not in request.only_regions) or region_id in request.exclude_regions:
        broken.append("region")
    if node.name in request.exclude_nodes:
        broken.append("node")
    if any(node.labels.get(key) != value for key, value in request.node_labels):
        broken.append("labels")
    if node.draining or node.expired or deployment.status is not DeploymentStatus.READY:
        broken.append("availability")
    if region.status is not RegionStatus.ACTIVE or not fleet.health[name].ready:
        broken.append("availability")
    if rule is not None and rule.narrow is not None and not _kept(rule.narrow, region_id, node):
        broken.append("rule")
    return broken


def _kept(narrow: Narrow, region_id: str, node: Node) -> bool:
    return (
        (not narrow.regions or any(fnmatchcase(region_id, glob) for glob in narrow.regions))
        and not any(fnmatchcase(region_id, glob) for glob in narrow.exclude_regions)
        and all(node.labels.get(key) == value for key, value in narrow.node_labels)
        and (not narrow.engines or node.engine.value in narrow.engines)
        and (not narrow.accelerators or any(fnmatchcase(node.accelerator, glob) for glob in narrow.accelerators))
    )


def broken_bounds(fleet: Fleet, request: RouteRequest, policy: Policy, choice: Choice) -> list[str]:
    """Which bounds a choice breaks by its own figures at the time, or has no figure for."""
    bounds = policy.bounds
    region_id, node_id, model_id = choice.deployment.split("/", 2)
    node = fleet.snapshot.nodes[f"{region_id}/{node_id}"]
    (deployment,) = (d for d in node.deployments if d.model_id == model_id)
    health, profile = fleet.health[choice.deployment], deployment.profile
    prefill = profile.prefill_seconds_per_token or health.prefill_seconds_per_token
    decode = profile.decode_tokens_per_second
    speed_known = prefill is not None and profile.min_time_to_first_token_seconds is not None
    first, last = choice.estimated_time_to_first_token_seconds, choice.estimated_latency_seconds
    assert first is not None
    assert last is not None
    answer = 256 if request.max_output_tokens is None else request.max_output_tokens
    broken = []
    soonest = _tighter(request.max_time_to_first_token_seconds, bounds.max_time_to_first_token_seconds)
    if soonest is not None and (not speed_known or first > soonest):
        broken.append("first token")
    latest = _tighter(request.max_latency_seconds, bounds.max_latency_seconds)
    if latest is not None and (not speed_known or decode is None or last > latest):
        broken.append("latency")
    if request.min_throughput_tokens_per_second is not None:
        slowest = request.min_throughput_tokens_per_second
        if decode is None or decode < slowest or (answer and answer / (last - first) < slowest * (1 - 1e-6)):
            broken.append("throughput")
    dearest = _tighter(request.max_price_usd_per_million_tokens, bounds.max_price_usd_per_million_tokens)
    price = _least_price(node, deployment, prefill, request)
    if dearest is not None and (price is None or price > dearest + 1e-9):
        broken.append("price")
    return broken


def _tighter(one: float | None, other: float | None) -> float | None:
    return min((bound for bound in (one, other) if bound is not None), default=None)


def _least_price(node: Node, deployment: Deployment, prefill: float | None, request: RouteRequest) -> float | None:
    """The price per million tokens if all of the prompt were cached, or the request committed; None: unknown."""
    if deployment.committed_concurrency:
        return 0.0
    hour = node.price_usd_per_hour
    asked = 512 if request.input_tokens is None else request.input_tokens
    answer = 256 if request.max_output_tokens is None else request.max_output_tokens
    profile = deployment.profile
    into, out = deployment.price_usd_per_million_input_tokens, deployment.price_usd_per_million_output_tokens
    if into is None and hour is not None and prefill is not None:
        into = hour / 3600 * prefill * 1e6
    if out is None and hour is not None and profile.decode_tokens_per_second is not None:
        out = hour / 3600 / profile.decode_tokens_per_second / max(1.0, (profile.max_batch_size or 1) / 2) * 1e6
    if (asked and into is None) or (answer and out is None):
        return None
    cached = deployment.price_usd_per_million_cached_tokens
    cheapest = min(into or 0.0, (into or 0.0) if cached is None else cached)
    factor = deployment.price_bands[0].factor if deployment.price_bands else 1.0
    return factor * (asked * cheapest + answer * (out or 0.0)) / max(1, asked + answer)


def a_priced_fleet(seed: int, size: int) -> Fleet:
    """A drawn fleet with room, in which all prices are known, so that draws of two may decide."""
    fleet = random_fleet(Random(seed), size, calm=True)

    def priced(deployment: Deployment) -> Deployment:
        return replace(
            deployment,
            price_usd_per_million_input_tokens=deployment.price_usd_per_million_input_tokens or 1.0,
            price_usd_per_million_output_tokens=deployment.price_usd_per_million_output_tokens or 2.0,
            max_concurrency=deployment.max_concurrency and 20 * deployment.max_concurrency,
        )

    return fleet.with_nodes(
        replace(node, deployments=tuple(map(priced, node.deployments))) for node in fleet.snapshot.nodes.values()
    )


def plain_kinds(seed: int, count: int) -> list[RouteRequest]:
    """Requests of a few kinds that a draw of two may settle, mixed."""
    rng = Random(seed)
    few = [
        RouteRequest(
            model_id="small",
            policy_id="random",
            origin_region=rng.choice(["eu", "us", "ap"]),
            input_tokens=rng.choice([None, 1, 300, 1_500]),
            max_output_tokens=rng.choice([None, 1, 100]),
            max_alternatives=rng.choice([None, 0, 1, 3, 16]),
        )
        for _ in range(6)
    ]
    return [replace(rng.choice(few), request_id=f"r{number}") for number in range(count)]
