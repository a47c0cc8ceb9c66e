"""Which engine gave which replies, what it serves, and what is registered of it."""

from __future__ import annotations

import json

import aiohttp
import pytest
from agent_servers import served
from aiohttp import web

from catalog.types import Engine, PrivacyLevel
from federation.agent.discovery import Discovered, NotReady, Probe, Reply, ServedModel, read_models, recognise
from federation.agent.load import LoadMeter
from federation.agent.options import AgentOptions, default_node_id, registration
from federation.health.engines.page import EngineMetrics
from federation.v1 import types_pb2

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def ok(body: object) -> Reply:
    return Reply(200, body if isinstance(body, str) else json.dumps(body))


def models(owner: str, *names: str) -> Reply:
    return ok({"object": "list", "data": [{"id": name, "object": "model", "owned_by": owner} for name in names]})


GONE = Reply(404, "")


@pytest.mark.parametrize(
    ("replies", "engine"),
    [
        ({"/metrics": ok('# HELP x\nvllm:num_requests_running{engine="0"} 0.0\n')}, Engine.VLLM),
        ({"/metrics": ok("sglang:token_usage 0.28\n")}, Engine.SGLANG),
        ({"/metrics": ok("# TYPE tgi_queue_size gauge\ntgi_queue_size 0\n")}, Engine.TGI),
        ({"/metrics": ok("trtllm_num_requests_running 0\n")}, Engine.TRTLLM),
        ({"/metrics": ok("nv_inference_count 1\nvllm:num_requests_running 0\n")}, Engine.TRITON),
        ({"/v1/models": models("vllm", "m"), "/metrics": GONE}, Engine.VLLM),
        ({"/v1/models": models("sglang", "m"), "/metrics": GONE}, Engine.SGLANG),
        ({"/v1/models": models("tensorrt_llm", "m")}, Engine.TRTLLM),
        (
            {"/info": ok({"model_id": "m", "router": "text-generation-router"}), "/v1/models": models("m", "m")},
            Engine.TGI,
        ),
        ({"/v2/health/ready": ok(""), "/v1/models": GONE}, Engine.TRITON),
        ({"/v1/models": models("acme", "m"), "/metrics": ok("python_info 1\n")}, Engine.OPENAI),
        ({"/v1/models": Reply(503, ""), "/version": ok({"version": "0.30.0"})}, None),
        ({path: Reply(0, "refused") for path in ("/metrics", "/v1/models")}, None),
        ({"/v1/models": ok("<html>")}, None),
    ],
)
def test_an_engine_is_known_by_its_replies(replies: dict[str, Reply], engine: Engine | None):
    assert recognise(replies) is engine


def test_adapters_go_with_the_model_that_they_name_as_their_parent():
    cards = [
        {"id": "b", "parent": None},
        {"id": "a", "parent": None},
        {"id": "sql", "parent": "a"},
        {"id": "fr", "parent": "a"},
        {"id": "lost", "parent": "elsewhere"},
    ]

    found = read_models(Engine.VLLM, ok({"data": cards}))

    assert found == (ServedModel("a", ("fr", "sql")), ServedModel("b"))


def test_an_adapter_of_the_only_model_needs_no_exact_parent():
    cards = [{"id": "llama", "root": "/weights/llama", "parent": None}, {"id": "sql", "parent": "/weights/llama"}]

    assert read_models(Engine.VLLM, ok({"data": cards})) == (ServedModel("llama", ("sql",)),)


def test_tgi_and_triton_list_in_their_own_ways():
    assert read_models(Engine.TGI, ok({"model_id": "bigcode/x"})) == (ServedModel("bigcode/x"),)
    index = [{"name": "b", "state": "READY"}, {"name": "a", "state": "UNAVAILABLE"}, {"name": "c", "state": "READY"}]
    assert read_models(Engine.TRITON, ok(index)) == (ServedModel("b"), ServedModel("c"))


@pytest.mark.parametrize("engine", [Engine.VLLM, Engine.TGI, Engine.TRITON])
@pytest.mark.parametrize("reply", [ok({"data": []}), ok([]), ok("no"), Reply(503, ""), ok({"data": [{"id": 3}]})])
def test_an_empty_or_broken_list_is_not_ready(engine: Engine, reply: Reply):
    with pytest.raises(NotReady):
        read_models(engine, reply)


async def test_a_server_that_warms_up_is_not_ready_though_it_lists_its_model():
    warm = {"now": False}
    app = web.Application()

    async def health(_: web.Request) -> web.Response:
        return web.Response(status=200 if warm["now"] else 503)

    async def listed(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "Qwen3-14B", "owned_by": "sglang"}]})

    app.add_routes([web.get("/health", health), web.get("/v1/models", listed)])
    async with served(app) as url, aiohttp.ClientSession() as http:
        with pytest.raises(NotReady, match="/health answers 503"):
            await Probe(http, url).discover()
        warm["now"] = True

        assert await Probe(http, url).discover() == Discovered(Engine.SGLANG, (ServedModel("Qwen3-14B"),))


async def test_an_address_where_nobody_listens_is_told_with_what_was_tried():
    async with aiohttp.ClientSession() as http:
        with pytest.raises(NotReady, match="/v1/models not at all"):
            await Probe(http, "http://127.0.0.1:1").discover()


async def test_redirects_are_not_followed_and_a_token_is_sent_to_the_api_only():
    seen = {}
    app = web.Application()

    async def listed(request: web.Request) -> web.Response:
        seen["models"] = request.headers.get("Authorization")
        return web.json_response({"data": [{"id": "m", "owned_by": "vllm"}]})

    async def health(request: web.Request) -> web.Response:
        seen["health"] = request.headers.get("Authorization")
        return web.Response()

    async def metrics(_: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere")

    app.add_routes([web.get("/v1/models", listed), web.get("/health", health), web.get("/metrics", metrics)])
    async with served(app) as url, aiohttp.ClientSession() as http:
        probe = Probe(http, url, token="secret")
        assert (await probe.discover()).engine is Engine.VLLM
        assert await probe.metrics(Engine.VLLM) is None

    assert seen == {"models": "Bearer secret", "health": None}


async def test_a_grpc_engine_serves_what_the_operator_names():
    async with aiohttp.ClientSession() as http:
        found = await Probe(http, "grpc://127.0.0.1:1").discover(("whisper",))

    assert found == Discovered(Engine.GRPC, (ServedModel("whisper"),))


def an_options(**changes: object) -> AgentOptions:
    values = {"engine_url": "http://127.0.0.1:8000", "control_plane": "cp:1", "region_id": "eu-1"}
    return AgentOptions(**{**values, **changes})  # type: ignore[arg-type]


def test_a_registration_names_what_was_said_and_nothing_else():
    found = Discovered(Engine.TGI, (ServedModel("m"),))

    request = registration(an_options(privacy_level=PrivacyLevel.CONFIDENTIAL), "n", found, "r", "e")

    assert request.node.privacy_level == types_pb2.PRIVACY_LEVEL_CONFIDENTIAL
    assert (request.node.engine, request.node.etag, request.request_id) == (types_pb2.ENGINE_TGI, "e", "r")
    assert not request.node.HasField("price_usd_per_hour")
    (deployment,) = request.deployments
    assert (deployment.model_id, deployment.served_model_name, list(deployment.capabilities)) == ("m", "", [])
    assert not deployment.HasField("max_concurrency")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"engine_url": "ftp://x:1"}, "engine_url"),
        ({"engine_url": "http://x:1/v1"}, "engine_url"),
        ({"advertise": "gpu-7:8000"}, "advertise"),
        ({"region_id": "EU 1"}, "region_id"),
        ({"node_id": "-x"}, "node_id"),
        ({"lease_seconds": -1.0}, "lease_seconds"),
        ({"on_exit": "vanish"}, "on_exit"),
        ({"engine_url": "grpc://x:1"}, "model_ids"),
    ],
)
def test_options_that_cannot_be_are_refused_by_their_name(change: dict[str, object], word: str):
    with pytest.raises(ValueError, match=word):
        an_options(**change)


def test_a_node_gets_a_readable_id_that_stays_the_same():
    assert default_node_id("GPU_7.rack.example", "http://127.0.0.1:8000") == "gpu-7-8000"
    assert default_node_id("", "https://x") == "node-443"
    assert len(default_node_id("x" * 200, "http://x:8000")) <= 63


def test_throughput_is_the_difference_of_two_readings_of_one_life():
    meter = LoadMeter()
    totals = [(0.0, 100.0), (2.0, 300.0), (4.0, 10.0), (5.0, 60.0)]

    loads = [meter.read(EngineMetrics(generation_tokens_total=total), now) for now, total in totals]

    assert [None if load is None else load.throughput_tokens_per_second for load in loads] == [None, 100.0, None, 50.0]


def test_what_the_page_does_not_say_is_absent():
    load = LoadMeter().read(EngineMetrics(queue_depth=0.0), 0.0)

    assert load is not None
    assert load.HasField("queue_depth")
    assert not load.HasField("running_requests")
    assert LoadMeter().read(None, 0.0) is None
    assert LoadMeter().read(EngineMetrics(), 0.0) is None
