"""20,000 mutated messages over every method of every service, on real sockets, several at once.

Whatever comes, the caller gets one of our statuses with its reason and no text of an exception, the log stays short,
and the server answers the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from catalog.sql import schema
from catalog.sql.store import open_store
from federation.api.interceptors import LOGGED_PER_SECOND
from federation.v1 import catalog_pb2, fleet_pb2, peering_pb2, policy_pb2, routing_pb2
from tests.federation.server import Running, engine, running, unpacked
from tests.fuzz.mutants import Mutator
from tests.postgres import Postgres

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop"), pytest.mark.slow]

OURS = (catalog_pb2, routing_pb2, policy_pb2, fleet_pb2, peering_pb2)
METHODS: Sequence[MethodDescriptor] = tuple(
    method
    for module in (*OURS, health_pb2, reflection_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
AT_ONCE = 16
# Longer than any call takes; a stream that stays open is left after its first answer.
PATIENCE_SECONDS = 30.0
# How long an open stream is listened to that has nothing to tell.
LISTEN_SECONDS = 0.02
NEVER = {StatusCode.UNKNOWN, StatusCode.INTERNAL, StatusCode.DATA_LOSS, StatusCode.DEADLINE_EXCEEDED}
# What a text of Python, of a library or of a database would hold.
TELLTALES = (
    "Traceback",
    "Exception",
    "Error:",
    "Error(",
    ".py",
    "object at 0x",
    "NoneType",
    "site-packages",
    "sqlalchemy",
    "sqlite3",
    "psycopg",
    "SELECT",
    "INSERT",
    "__",
)


@dataclass
class Seen:
    """What came of the mutants."""

    codes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    by_method: Counter[str] = field(default_factory=Counter)


@pytest.fixture(params=["sqlite", "postgresql"])
async def fairway(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/fairway.db"
        schema.upgrade(url)
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.database()
    store = await open_store(url, owner="local", clock=time.time)
    # Mutants register nodes at addresses of chance: only this machine's may be connected to, and soon no more.
    flags = {
        "health.allowed_cidrs": ("127.0.0.0/8", "::1/128"),
        "health.probe_interval_seconds": 3600.0,
        "health.probe_timeout_seconds": 0.5,
    }
    async with running(flags, store=store) as server:
        yield server


# Together 20,000.
COUNTS = {"sqlite": 12_000, "postgresql": 8_000}


async def test_20_000_mutants_neither_break_the_server_nor_learn_anything(
    fairway: Running, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    kind = request.node.callspec.params["fairway"]
    seed = {"sqlite": 11, "postgresql": 12}[kind]
    seen = Seen()
    started = time.monotonic()
    async with engine("m") as stand_in:
        mutator = Mutator(Random(seed), *await material(fairway, stand_in.url))
        work = iter(
            (number, method, [mutator.mutant(method.input_type) for _ in range(3 if method.client_streaming else 1)])
            for number, method in zip(range(COUNTS[kind]), _round(METHODS), strict=False)
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    tasks.create_task(send_all(fairway.target, work, seed, seen))
        finally:
            for line in fairway.logged:
                if line["event"] == "internal error":
                    print(line["method"], line["exception"])
        seconds = time.monotonic() - started

        assert await routes_as_before(fairway, stand_in.url)
    calls = seen.codes.total()
    print(f"{kind}, seed {seed}: {calls} calls in {seconds:.0f} s: {dict(seen.codes)} {dict(seen.reasons)}")
    assert seen.codes.total() == COUNTS[kind]
    assert set(seen.by_method) == {method.full_name for method in METHODS}
    # Mutants came further than the parser, and not all of them were harmless.
    assert seen.codes["OK"] > COUNTS[kind] / 50
    assert seen.reasons["INVALID_FIELD"] > COUNTS[kind] / 50
    assert seen.reasons["MALFORMED_MESSAGE"] > COUNTS[kind] / 50
    plane = fairway.plane
    assert plane.edge.internal_errors_total == 0
    assert not plane.task_failures
    assert plane.edge.open_streams == 0
    # Two limited kinds of lines at the edge, and what operators did, which is logged each time.
    acts = {"circuits reset", "node ejected", "node restored"}
    lines = [line for line in fairway.logged if line["event"] not in acts]
    assert len(lines) <= 2 * LOGGED_PER_SECOND * (seconds + 2) + 50, Counter(line["event"] for line in lines)
    # gRPC and asyncio tell by the standard logger what nobody caught.
    assert not [record.getMessage() for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


def _round(methods: Sequence[MethodDescriptor]) -> Any:
    while True:
        yield from methods


async def send_all(target: str, work: Any, seed: int, seen: Seen) -> None:
    """Sends mutants one after the other, over a connection of its own."""
    async with grpc.aio.insecure_channel(target) as channel:
        streams = grpc.insecure_channel(target)
        for number, method, payloads in work:
            try:
                answered = await asyncio.wait_for(answer(channel, streams, method, payloads), 2 * PATIENCE_SECONDS)
                code, reason = "OK", ""
                assert answered is not None
            except grpc.RpcError as e:
                code, reason = judged(e, method, f"seed {seed}, mutant {number}, {method.full_name}: {payloads}")
            seen.codes[code] += 1
            seen.reasons[reason] += 1
            seen.by_method[method.full_name] += 1
        streams.close()


async def answer(
    channel: grpc.aio.Channel, streams: grpc.Channel, method: MethodDescriptor, payloads: Sequence[bytes]
) -> int:
    """How many answers there were; of a stream without end, one is enough."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    if not method.client_streaming and not method.server_streaming:
        await channel.unary_unary(path)(payloads[0], timeout=PATIENCE_SECONDS)
        return 1
    if not method.client_streaming:
        call = channel.unary_stream(path)(payloads[0], timeout=PATIENCE_SECONDS)
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                return int(await call.read() is not grpc.aio.EOF)
        except TimeoutError:
            return 0
        finally:
            call.cancel()

    return await asyncio.to_thread(_converse, streams, path, payloads)


def _converse(channel: grpc.Channel, path: str, payloads: Sequence[bytes]) -> int:
    """Answers to a stream of requests. Not with grpc.aio: it has no status of a stream that ends while it writes."""
    return sum(1 for _ in channel.stream_stream(path)(iter(payloads), timeout=PATIENCE_SECONDS))


def judged(error: Any, method: MethodDescriptor, what: str) -> tuple[str, str]:
    """The code and the reason of a refusal, which must be one of ours."""
    failure = unpacked(error)
    what = f"{what[:2000]}: {failure}"
    assert failure.code not in NEVER, what
    told = " ".join((failure.message, *failure.violations.values(), *failure.metadata.values()))
    assert not [word for word in TELLTALES if word in told], what
    if not failure.reason:
        # gRPC's own answer to a service that is not served, and the stock health service's to a name it does not know.
        stock = method.containing_service.full_name.startswith("grpc.")
        assert failure.code is (StatusCode.NOT_FOUND if stock else StatusCode.UNIMPLEMENTED), what
    else:
        assert failure.domain == "federation.v1", what
        assert failure.message, what
    return failure.code.name, failure.reason


async def material(fairway: Running, url: str) -> tuple[dict[str, list[bytes]], dict[str, list[str]]]:
    """Good requests by message, and words that mean something, by field; both of a catalog that has some of all."""
    node_ids = [f"n{number}" for number in range(5)]
    etags = [(await fairway.register("local", node_id, url, "m", "org/Model-7B")).etag for node_id in node_ids]
    decision = await fairway.until_routable("m", session_id="s")
    page = await fairway.catalog.ListNodes(catalog_pb2.ListNodesRequest(page_size=1))
    route = routing_pb2.RouteRequest(
        model_id="m",
        origin={"region_id": "local", "zone": "a"},
        qos={"max_latency": {"seconds": 600}, "cost_tolerance": 10.0},
        prompt={"input_tokens": 100, "max_output_tokens": 20, "prefix_hashes": [1, 2, 3]},
        placement={"exclude_nodes": ["local/n1"], "node_labels": {"a": "b"}},
        labels={"team": "x"},
        explain=routing_pb2.EXPLAIN_FULL,
    )
    outcome = routing_pb2.Outcome(
        decision_id=decision.decision_id,
        result=routing_pb2.OUTCOME_RESULT_OK,
        latency={"seconds": 1},
        event_time={"seconds": 1_700_000_000},
        input_tokens=10,
    )
    registration = catalog_pb2.RegisterNodeRequest(
        node={
            "region_id": "local",
            "node_id": "n1",
            "endpoint": url,
            "engine": "ENGINE_VLLM",
            "labels": {"a": "b"},
            "lease_duration": {"seconds": 30},
            "etag": etags[1],
        },
        deployments=[{"model_id": "m", "weight": 1.0, "profile": {"prefill_seconds_per_token": 0.1}}],
    )
    document = '{"weights": {"latency": 2}, "rules": [{"name": "r", "match": {"models": ["m*"]}}]}'
    policy = {"policy_id": "mine", "document_json": document}
    beat = {"region_id": "local", "node_id": "n1", "load": {"queue_depth": 3, "kv_cache_utilization": 0.5}}
    good = [
        route,
        registration,
        routing_pb2.GetCandidatesRequest(request=route, page_size=2),
        routing_pb2.RouteBatchRequest(requests=[route, route]),
        routing_pb2.RouteStreamRequest(request=route),
        routing_pb2.ReportOutcomesRequest(outcomes=[outcome, outcome]),
        routing_pb2.GetDecisionRequest(decision_id=decision.decision_id),
        routing_pb2.WatchLeasesRequest(templates=[route]),
        catalog_pb2.RegisterNodesRequest(nodes=[registration], request_id="batch"),
        catalog_pb2.RegisterModelRequest(model={"model_id": "m", "aliases": ["alias"], "capabilities": ["generate"]}),
        catalog_pb2.PutRegionRequest(
            region={
                "region_id": "local",
                "latitude": 50.0,
                "longitude": 8.0,
                "round_trips": {"far": {"nanos": 90_000_000}},
                "jurisdictions": ["DE", "EU"],
            }
        ),
        catalog_pb2.HeartbeatRequest(beats=[beat, beat]),
        catalog_pb2.WatchCatalogRequest(after_revision=1),
        catalog_pb2.ListNodesRequest(page_size=1, page_token=page.next_page_token),
        policy_pb2.PutPolicyRequest(policy=policy),
        policy_pb2.PreviewPolicyRequest(policy=policy, max_decisions=10),
        fleet_pb2.EjectNodeRequest(region_id="local", node_id="n1", duration={"seconds": 1}),
    ]
    words = {
        "region_id": ["local", "far", "new-region"],
        "node_id": [*node_ids, "new-node"],
        "model_id": ["m", "org/Model-7B", "absent"],
        "decision_id": [decision.decision_id, f"{decision.decision_id}0", "local.ffffffff-1", "-"],
        "policy_id": ["balanced", "mine", "absent"],
        "endpoint": [url, "http://127.0.0.1:9", "grpc://127.0.0.1:9"],
        "etag": etags,
        "page_token": [page.next_page_token],
        "capability": ["generate", "custom:x", "embed"],
        "capabilities": ["generate", "custom:x"],
        "paths": ["endpoint", "labels", "deployments", "aliases", "status", "absent"],
        "document_json": [document, "{}", "[]", "null", "{", '{"weights": {"latency": -1}}'],
        "request_id": ["again", "batch"],
        "service": ["federation.v1.RoutingService", "absent"],
        "only_regions": ["local"],
        "exclude_nodes": ["local/n1"],
    }
    seeds: dict[str, list[bytes]] = {}
    for message in good:
        seeds.setdefault(message.DESCRIPTOR.full_name, []).append(message.SerializeToString())
    return seeds, words


async def routes_as_before(fairway: Running, url: str) -> bool:
    """Whether a region, a node, a policy and a request that no mutant touched work as if there had been none."""
    await fairway.catalog.PutRegion(catalog_pb2.PutRegionRequest(region={"region_id": "afterwards"}))
    await fairway.policy.PutPolicy(policy_pb2.PutPolicyRequest(policy={"policy_id": "plain", "document_json": "{}"}))
    await fairway.register("afterwards", "fresh", url, "m")
    decision = await fairway.until_routable("m", policy_id="plain", placement={"only_regions": ["afterwards"]})
    return bool(decision.target.deployment == "afterwards/fresh/m")
