"""Wrong requests by hand, each with the status that it gets and words of its message."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from grpc import StatusCode

from federation.v1 import catalog_pb2, policy_pb2, routing_pb2
from tests.federation.server import Running

URL = "http://127.0.0.1:9"
Call = Callable[[Running], Awaitable[Any]]


@dataclass(frozen=True)
class Row:
    """A call, and what it is answered with: `fields` maps each violated field to words about it, `says` is the rest."""

    name: str
    call: Call
    code: StatusCode
    reason: str
    says: tuple[str, ...] = ()
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


def route(**request: Any) -> Call:
    request.setdefault("model_id", "llama")
    return lambda fairway: fairway.routing.Route(routing_pb2.RouteRequest(**request))


def node(deployments: list[dict[str, Any]] | None = None, mask: tuple[str, ...] = (), **changes: Any) -> Call:
    spec = {"region_id": "local", "node_id": "new", "endpoint": URL, "engine": "ENGINE_VLLM", **changes}
    request = catalog_pb2.RegisterNodeRequest(node=spec, deployments=deployments or [{"model_id": "llama"}])
    request.update_mask.paths.extend(mask)
    return lambda fairway: fairway.catalog.RegisterNode(request)


def nested() -> Call:
    request = catalog_pb2.RegisterNodeRequest(
        node={
            "region_id": "local",
            "node_id": "new",
            "endpoint": URL,
            "engine": "ENGINE_VLLM",
            "deployments": [{"model_id": "llama"}],
        }
    )
    return lambda fairway: fairway.catalog.RegisterNode(request)


def model(mask: tuple[str, ...] = (), **changes: Any) -> Call:
    request = catalog_pb2.RegisterModelRequest(model={"model_id": "new", **changes})
    request.update_mask.paths.extend(mask)
    return lambda fairway: fairway.catalog.RegisterModel(request)


def region(mask: tuple[str, ...] = (), **changes: Any) -> Call:
    request = catalog_pb2.PutRegionRequest(region={"region_id": "new", **changes})
    request.update_mask.paths.extend(mask)
    return lambda fairway: fairway.catalog.PutRegion(request)


def outcome(**changes: Any) -> Call:
    request = routing_pb2.ReportOutcomesRequest(outcomes=[changes])
    return lambda fairway: fairway.routing.ReportOutcomes(request)


def policy(document: str, **changes: Any) -> Call:
    request = policy_pb2.PutPolicyRequest(policy={"policy_id": "new", "document_json": document, **changes})
    return lambda fairway: fairway.policy.PutPolicy(request)


def refused(name: str, call: Call, fields: Mapping[str, tuple[str, ...]]) -> Row:
    """INVALID_FIELD, with words about each field."""
    return Row(name, call, StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", fields=fields)


def bad_endpoint(url: str, *words: str) -> Row:
    return refused(f"endpoint {url[:40]!r}", node(endpoint=url), {"node.endpoint": words})


async def beat(fairway: Running, **load: float) -> None:
    beat = {"region_id": "local", "node_id": "taken", "load": load}
    call = fairway.catalog.Heartbeat()
    await call.write(catalog_pb2.HeartbeatRequest(beats=[beat]))
    await call.read()


async def other_token(fairway: Running) -> None:
    page = await fairway.catalog.ListRegions(catalog_pb2.ListRegionsRequest(page_size=1))
    await fairway.catalog.ListModels(catalog_pb2.ListModelsRequest(page_token=page.next_page_token))


async def other_filter(fairway: Running) -> None:
    page = await fairway.catalog.ListModels(catalog_pb2.ListModelsRequest(page_size=1))
    await fairway.catalog.ListModels(catalog_pb2.ListModelsRequest(page_token=page.next_page_token, capability="code"))


UNKNOWN = [
    Row(
        "unknown model",
        route(model_id="gpt-17"),
        StatusCode.NOT_FOUND,
        "MODEL_UNKNOWN",
        ("model_id 'gpt-17'", "never registered", "fairway models list"),
    ),
    Row(
        "unknown model, all candidates",
        lambda fairway: fairway.routing.GetCandidates(routing_pb2.GetCandidatesRequest(request={"model_id": "gpt-17"})),
        StatusCode.NOT_FOUND,
        "MODEL_UNKNOWN",
        ("'gpt-17'",),
    ),
    Row(
        "unknown capability",
        route(model_id="", capability="embed"),
        StatusCode.NOT_FOUND,
        "CAPABILITY_UNKNOWN",
        ("capability 'embed'", "never registered"),
    ),
    Row(
        "unknown policy of a request",
        route(policy_id="cheapest"),
        StatusCode.NOT_FOUND,
        "POLICY_UNKNOWN",
        ("policy_id 'cheapest'", "balanced", "mine"),
    ),
    Row(
        "unknown policy",
        lambda fairway: fairway.policy.GetPolicy(policy_pb2.GetPolicyRequest(policy_id="cheapest")),
        StatusCode.NOT_FOUND,
        "POLICY_UNKNOWN",
        ("policy 'cheapest' does not exist",),
        metadata={"kind": "policy", "name": "cheapest"},
    ),
    Row(
        "unknown region of a node",
        node(region_id="atlantis"),
        StatusCode.NOT_FOUND,
        "REGION_UNKNOWN",
        ("region 'atlantis' does not exist", "fairway regions put"),
        metadata={"kind": "region", "name": "atlantis"},
    ),
    Row(
        "unknown region",
        lambda fairway: fairway.catalog.GetRegion(catalog_pb2.GetRegionRequest(region_id="atlantis")),
        StatusCode.NOT_FOUND,
        "REGION_UNKNOWN",
        ("'atlantis'",),
    ),
    Row(
        "unknown node",
        lambda fairway: fairway.catalog.DrainNode(catalog_pb2.DrainNodeRequest(region_id="local", node_id="x")),
        StatusCode.NOT_FOUND,
        "NODE_UNKNOWN",
        ("node 'local/x' does not exist",),
    ),
    Row(
        "unknown deployment",
        lambda fairway: fairway.catalog.DrainDeployment(
            catalog_pb2.DrainDeploymentRequest(region_id="local", node_id="taken", model_id="gpt-17")
        ),
        StatusCode.NOT_FOUND,
        "DEPLOYMENT_UNKNOWN",
        ("'local/taken/gpt-17'",),
    ),
    Row(
        "unknown decision",
        lambda fairway: fairway.routing.GetDecision(routing_pb2.GetDecisionRequest(decision_id="local.0-1")),
        StatusCode.NOT_FOUND,
        "DECISION_UNKNOWN",
        ("'local.0-1'", "routing.decisions_kept"),
    ),
    Row(
        "neither model nor capability",
        route(model_id=""),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        ("model_id or capability must be set",),
    ),
]

CONFLICTS = [
    Row(
        "known node with other content",
        node(node_id="taken", endpoint="http://127.0.0.1:10"),
        StatusCode.ALREADY_EXISTS,
        "NODE_CONFLICT",
        ("node 'local/taken'", "other content", "send its etag"),
    ),
    Row(
        "stale etag",
        node(node_id="taken", etag="stale"),
        StatusCode.ABORTED,
        "ETAG_MISMATCH",
        ("'local/taken'", "not 'stale'", "read it again"),
    ),
    Row(
        "etag of a node that is not there",
        node(node_id="absent", etag="stale"),
        StatusCode.ABORTED,
        "ETAG_MISMATCH",
        ("'local/absent'", "does not exist", "leave the etag out"),
    ),
    Row(
        "stale etag of a removal",
        lambda fairway: fairway.catalog.DeregisterNode(
            catalog_pb2.DeregisterNodeRequest(region_id="local", node_id="taken", etag="stale")
        ),
        StatusCode.ABORTED,
        "ETAG_MISMATCH",
        ("'local/taken'",),
    ),
    Row(
        "known region with other content",
        region(region_id="r1", provider="aws"),
        StatusCode.ALREADY_EXISTS,
        "REGION_CONFLICT",
        ("region 'r1'", "send its etag"),
    ),
    Row(
        "known model with other content",
        model(model_id="known"),
        StatusCode.ALREADY_EXISTS,
        "MODEL_CONFLICT",
        ("model 'known'", "send its etag"),
    ),
    Row(
        "known policy with other content",
        policy('{"picker": "best"}', policy_id="mine"),
        StatusCode.ALREADY_EXISTS,
        "POLICY_CONFLICT",
        ("policy 'mine'", "send its etag"),
    ),
    Row(
        "model that is served",
        lambda fairway: fairway.catalog.DeregisterModel(catalog_pb2.DeregisterModelRequest(model_id="llama")),
        StatusCode.FAILED_PRECONDITION,
        "MODEL_IN_USE",
        ("model 'llama'", "node 'local/taken'", "deregister its nodes first"),
    ),
    refused("alias that is taken", model(aliases=["llama"]), {"model.aliases[0]": ("already names model 'llama'",)}),
    refused("id that is an alias", model(model_id="nickname"), {"model.model_id": ("is an alias of model 'known'",)}),
]

ENDPOINTS = [
    bad_endpoint("", "must be at least 1 character"),
    bad_endpoint("127.0.0.1:8000", "has no scheme", "write http://host:port"),
    bad_endpoint("gpu-1:8000", "has no scheme", "write http://host:port"),
    bad_endpoint("gpu-1.internal", "has no scheme", "write http://host:port"),
    bad_endpoint("ftp://gpu-1:8000", "has scheme 'ftp'", "http, https"),
    bad_endpoint("file:///etc/passwd", "has scheme 'file'"),
    bad_endpoint("grpc://gpu-1:8000", "has scheme 'grpc'", "http, https"),
    bad_endpoint("http://gpu-1", "has no port", "write http://host:port"),
    bad_endpoint("http://gpu-1:", "has no port"),
    bad_endpoint("http://gpu-1:99999", "ports are 1 to 65535"),
    bad_endpoint("http://gpu-1:0", "port 0"),
    bad_endpoint("http://gpu-1:-1", "ports are 1 to 65535"),
    bad_endpoint("http://gpu-1:http", "ports are 1 to 65535"),
    bad_endpoint("http://:8000", "has no host"),
    bad_endpoint("http:///", "has no host"),
    bad_endpoint("http://user:secret@gpu-1:8000", "'http://***@gpu-1:8000' holds a user or password"),
    bad_endpoint("http://gpu-1:8000/v1", "holds a path", "the engine fixes the paths"),
    bad_endpoint("http://gpu-1:8000?key=1", "holds a path, query or fragment"),
    bad_endpoint("http://gpu-1:8000#x", "holds a path, query or fragment"),
    bad_endpoint("http://gpu 1:8000", "holds a space"),
    bad_endpoint("http://gpu-1:8000\n", "control character"),
    bad_endpoint("http:\\\\gpu-1:8000", "backslash"),
    bad_endpoint("http://[::1:8000", "is not a URL"),
    bad_endpoint("http://gpu-1?:8000", "has no port"),
    bad_endpoint("http://gpu!:8000", "neither a DNS name nor an IP address"),
    bad_endpoint("http://-gpu-:8000", "neither a DNS name nor an IP address"),
    bad_endpoint("http://999.1.1.1:8000", "neither a DNS name nor an IP address"),
    bad_endpoint("http://169.254.169.254:80", "link-local", "credentials"),
    bad_endpoint("http://[fe80::1]:80", "link-local"),
    bad_endpoint("http://[::ffff:a9fe:a9fe]:80", "link-local"),
    bad_endpoint("http://2852039166:80", "neither a DNS name nor an IP address"),
    bad_endpoint("http://0xa9.0xfe.0xa9.0xfe:80", "neither a DNS name nor an IP address"),
    bad_endpoint("http://" + "x" * 3_000 + ":80", "at most 2048"),
    refused("gRPC engine at an HTTP endpoint", node(engine="ENGINE_GRPC"), {"node.endpoint": ("grpc, grpcs",)}),
    refused(
        "ingress with a path",
        region(reach="REACH_GATEWAY", ingress_endpoint="https://in.example/x"),
        {"region.ingress_endpoint": ("holds a path",)},
    ),
    refused("gateway without ingress", region(reach="REACH_GATEWAY"), {"region.ingress_endpoint": ("is needed",)}),
]

NUMBERS = [
    refused(
        "NaN price",
        node([{"model_id": "m", "price_usd_per_million_input_tokens": math.nan}]),
        {"deployments[0].price_usd_per_million_input_tokens": ("finite", "got nan")},
    ),
    refused(
        "negative price",
        node([{"model_id": "m", "price_usd_per_million_output_tokens": -0.5}]),
        {"deployments[0].price_usd_per_million_output_tokens": ("greater than or equal to 0", "got -0.5")},
    ),
    refused("infinite price", node(price_usd_per_hour=math.inf), {"node.price_usd_per_hour": ("finite", "got inf")}),
    refused("negative count", node(accelerator_count=-1), {"node.accelerator_count": ("to 0", "got -1")}),
    refused("negative lease", node(lease_duration={"seconds": -1}), {"node.lease_duration": ("0s", "86400s")}),
    refused("lease of a year", node(lease_duration={"seconds": 31_536_000}), {"node.lease_duration": ("86400s",)}),
    refused(
        "NaN profile",
        node([{"model_id": "m", "profile": {"prefill_seconds_per_token": math.nan}}]),
        {"deployments[0].profile.prefill_seconds_per_token": ("finite",)},
    ),
    refused(
        "no place for a request",
        node([{"model_id": "m", "max_concurrency": 0}]),
        {"deployments[0].max_concurrency": ("to 1", "got 0")},
    ),
    refused("NaN latitude", region(latitude=math.nan, longitude=0.0), {"region.latitude": ("finite",)}),
    refused(
        "latitude of the moon", region(latitude=384.4, longitude=0.0), {"region.latitude": ("-90", "90", "got 384.4")}
    ),
    refused("latitude alone", region(latitude=1.0), {"region.latitude": ("go together",)}),
    refused(
        "negative round trip",
        region(round_trips={"r1": {"seconds": -1}}),
        {"region.round_trips['r1']": ("0s",)},
    ),
    refused("NaN throughput", route(qos={"min_throughput": math.nan}), {"qos.min_throughput": ("finite",)}),
    refused("negative throughput", route(qos={"min_throughput": -1.0}), {"qos.min_throughput": ("to 0", "got -1.0")}),
    refused("NaN cost tolerance", route(qos={"cost_tolerance": math.nan}), {"qos.cost_tolerance": ("100",)}),
    refused(
        "cost tolerance over 100", route(qos={"cost_tolerance": 101.0}), {"qos.cost_tolerance": ("100", "got 101.0")}
    ),
    refused("latency of nothing", route(qos={"max_latency": {}}), {"qos.max_latency": ("greater than 0s",)}),
    refused("negative tokens", route(prompt={"input_tokens": -5}), {"prompt.input_tokens": ("to 0", "got -5")}),
    refused("17 alternatives", route(max_alternatives=17), {"max_alternatives": ("16", "got 17")}),
    refused("unknown explain", route(explain=9), {"explain": ("defined",)}),
    refused(
        "load of more than all",
        lambda fairway: beat(fairway, kv_cache_utilization=1.5),
        {"beats[0].load.kv_cache_utilization": ("1", "got 1.5")},
    ),
    refused(
        "NaN load",
        lambda fairway: beat(fairway, queue_depth=math.nan),
        {"beats[0].load.queue_depth": ("finite",)},
    ),
    refused(
        "negative latency",
        outcome(decision_id="d", result=1, latency={"seconds": -1}),
        {"outcomes[0].latency": ("0s",)},
    ),
    refused(
        "outcome without a result", outcome(decision_id="d"), {"outcomes[0].result": ("needed with phase FINISHED",)}
    ),
    refused(
        "outcome of nothing", outcome(result=1), {"outcomes[0].decision_id": ("or region_id, node_id and model_id",)}
    ),
    refused(
        "outcome of half a name",
        outcome(decision_id="d", result=1, node_id="n"),
        {"outcomes[0]": ("set all three, or none",)},
    ),
    refused(
        "NaN weight of a policy", policy('{"weights": {"latency": NaN}}'), {"policy.document_json": ("NaN", "finite")}
    ),
]

NAMES = [
    refused("capital region", node(region_id="EU"), {"node.region_id": ("lower-case letters", "got 'EU'")}),
    refused("node id with a slash", node(node_id="a/b"), {"node.node_id": ("lower-case letters", "got 'a/b'")}),
    refused("node id of 64", node(node_id="a" * 64), {"node.node_id": ("63", "got 'aaa")}),
    refused(
        "no node at all",
        lambda fairway: fairway.catalog.RegisterNode(catalog_pb2.RegisterNodeRequest()),
        {"node": ("required",)},
    ),
    refused("no engine", node(engine="ENGINE_UNSPECIFIED"), {"node.engine": ("ENGINE_VLLM",)}),
    refused(
        "model id with a space", model(model_id="my model"), {"model.model_id": ("letters, digits", "got 'my model'")}
    ),
    refused(
        "unknown capability",
        model(capabilities=["singing"]),
        {"model.capabilities[0]": ("transcribe", "custom:<name>")},
    ),
    refused(
        "two deployments of a model",
        node([{"model_id": "m"}, {"model_id": "m"}]),
        {"deployments[1].model_id": ("stands in deployments[0] too",)},
    ),
    refused(
        "deployment of another node",
        node([{"model_id": "m", "node_id": "other"}]),
        {"deployments[0].node_id": ("is 'other', and the node's is 'new'",)},
    ),
    refused("deployments in the node", nested(), {"node.deployments": ("put them into `deployments` of the request",)}),
    refused("round trip to nobody", region(round_trips={"Mars": {}}), {"region.round_trips['Mars']": ("region's id",)}),
    refused(
        "country in small letters", region(jurisdictions=["de"]), {"region.jurisdictions[0]": ("capitals", "got 'de'")}
    ),
    refused(
        "NUL in a request id",
        lambda fairway: fairway.catalog.RegisterModel(
            catalog_pb2.RegisterModelRequest(model={"model_id": "new"}, request_id="a\0b")
        ),
        {"request_id": ("NUL",)},
    ),
]

MASKS_AND_PAGES = [
    refused(
        "unknown path of a node's mask", node(mask=("endpiont",)), {"update_mask": ("'endpiont'", "endpoint", "labels")}
    ),
    refused(
        "unknown path of a region's mask", region(mask=("colour",)), {"update_mask": ("'colour'", "jurisdictions")}
    ),
    refused("unknown path of a model's mask", model(mask=("revision",)), {"update_mask": ("'revision'", "aliases")}),
    Row(
        "mask for a node that is not there",
        node(node_id="absent", mask=("endpoint",)),
        StatusCode.NOT_FOUND,
        "NODE_UNKNOWN",
        ("'local/absent'",),
    ),
    refused(
        "page token of nothing",
        lambda fairway: fairway.catalog.ListNodes(catalog_pb2.ListNodesRequest(page_token="banana")),
        {"page_token": ("not a next_page_token of this list", "start again without page_token")},
    ),
    refused("page token of another list", lambda fairway: other_token(fairway), {"page_token": ("of this list",)}),
    refused(
        "page token of other filters", lambda fairway: other_filter(fairway), {"page_token": ("with these filters",)}
    ),
    refused(
        "page of 1,001",
        lambda fairway: fairway.catalog.ListNodes(catalog_pb2.ListNodesRequest(page_size=1_001)),
        {"page_size": ("1000", "got 1001")},
    ),
    Row(
        "watch from the future",
        lambda fairway: fairway.catalog.WatchCatalog(catalog_pb2.WatchCatalogRequest(after_revision=10**6)).read(),
        StatusCode.OUT_OF_RANGE,
        "REVISION_COMPACTED",
        ("1000000", "watch from 0"),
    ),
]

DOCUMENTS = [
    refused("no JSON", policy("{weights}"), {"policy.document_json": ("is not JSON", "line 1 column 2")}),
    refused("a list", policy("[]"), {"policy.document_json": ("must be a JSON object",)}),
    refused(
        "a key twice", policy('{"picker": "best", "picker": "best"}'), {"policy.document_json": ("'picker' twice",)}
    ),
    refused("unknown key", policy('{"wieghts": {}}'), {"wieghts": ("weights",)}),
    refused("unknown picker", policy('{"picker": "bets"}'), {"picker": ("best", "predicted")}),
    refused("negative weight", policy('{"weights": {"latency": -1}}'), {"weights.latency": ("0", "-1")}),
    refused("nested too deeply", policy("[" * 100_000), {"policy.document_json": ("nested too deeply",)}),
]

TOO_MUCH = [
    Row(
        "a Route of 300 KB",
        route(
            labels={f"label-{number}": "x" * 250 for number in range(32)}, prompt={"prefix_hashes": [2**63] * 40_000}
        ),
        StatusCode.RESOURCE_EXHAUSTED,
        "MESSAGE_TOO_LARGE",
        ("262,144", "send fewer labels or prefix hashes"),
    ),
    refused(
        "1,001 requests in a batch",
        lambda fairway: fairway.routing.RouteBatch(
            routing_pb2.RouteBatchRequest(requests=[routing_pb2.RouteRequest(model_id="m")] * 1_001)
        ),
        {"requests": ("1 to 1,000", "got 1,001")},
    ),
    refused(
        "no requests in a batch",
        lambda fairway: fairway.routing.RouteBatch(routing_pb2.RouteBatchRequest()),
        {"requests": ("1 to 1,000", "got 0")},
    ),
    refused("10,000 labels", route(labels={str(number): "" for number in range(10_000)}), {"labels": ("32",)}),
]

ROWS = [*UNKNOWN, *CONFLICTS, *ENDPOINTS, *NUMBERS, *NAMES, *MASKS_AND_PAGES, *DOCUMENTS, *TOO_MUCH]
