"""The prober against real HTTP servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace

import pytest
from aiohttp import web

from catalog.types import Engine
from federation.health.checks import listed_models
from policies.health import Grade
from policies.types import Outcome, Result
from tests.federation.health.fleet import MODEL, a_node
from tests.federation.health.servers import (
    IMPATIENT,
    LIMIT_SECONDS,
    QUICK,
    Certificate,
    FakeEngine,
    probing,
    serving,
    unhealthy,
    well,
)

pytestmark = pytest.mark.anyio


async def test_a_healthy_engine_is_ready_at_its_first_probe_and_its_page_is_read():
    async with serving(FakeEngine()) as engine, probing(a_node(endpoint=engine.url)) as at_work:
        found = await at_work.until(lambda h: well(h) and h.queue_depth is not None)

    assert (found.running_requests, found.queue_depth, found.kv_cache_utilization) == (12.0, 2.0, 0.5)
    assert engine.asked[:3] == ["GET /health", "GET /v1/models", "GET /metrics"]
    assert found.last_check_time == pytest.approx(time.time(), abs=LIMIT_SECONDS)


async def test_an_engine_that_dies_is_unhealthy_and_recovers_without_a_restart():
    engine = FakeEngine()
    async with serving(engine):
        at = a_node(endpoint=engine.url)
        async with probing(at) as at_work:
            await at_work.until(well)
            engine.health_status = 500
            dead = await at_work.until(unhealthy)
            engine.health_status = 200
            await at_work.until(well)

    assert dead.reason == "3 probes failed: HTTP 500"


async def test_a_closed_port_is_said_in_words():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with probing(a_node(endpoint=f"http://127.0.0.1:{port}")) as at_work:
            found = await at_work.until(unhealthy)

    assert found.reason == "3 probes failed: connection refused"
    assert not found.ready


async def test_an_engine_that_answers_503_before_it_ever_passed_loads():
    engine = FakeEngine()
    engine.health_status = 503
    async with serving(engine), probing(a_node(endpoint=engine.url)) as at_work:
        loading = await at_work.until(lambda h: h.grade is Grade.LOADING)
        engine.health_status = 200
        found = await at_work.until(well)

    assert loading.reason == "its engine is not ready: HTTP 503"
    assert found.score < 0.5


async def test_an_engine_that_lists_its_model_later_is_not_ready_before():
    engine = FakeEngine()
    engine.models = {"data": [{"id": "another"}]}
    async with serving(engine), probing(a_node(endpoint=engine.url)) as at_work:
        early = await at_work.until(lambda h: h.grade is Grade.LOADING)
        engine.models = {"data": [{"id": "another"}, {"id": MODEL}]}
        late = await at_work.until(well)

    assert (early.ready, early.reason) == (False, f"model {MODEL!r} is not listed")
    assert late.ready


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
async def test_an_engine_that_hangs_is_timed_out(path: str):
    engine = FakeEngine()
    engine.hang = path
    async with serving(engine), probing(a_node(endpoint=engine.url), settings=IMPATIENT) as at_work:
        found = await at_work.until(unhealthy)

    assert found.reason == "3 probes failed: timed out after 0.15 s"


async def test_a_metrics_page_that_hangs_is_no_failed_probe_and_delays_none():
    engine = FakeEngine()
    engine.hang = "/metrics"
    async with serving(engine), probing(a_node(endpoint=engine.url), settings=IMPATIENT) as at_work:
        asked = engine.asked
        await at_work.until(lambda _: asked.count("GET /metrics") >= 2 and asked.count("GET /health") >= 3)

        assert well(at_work.health())
        assert at_work.health().queue_depth is None


async def test_a_redirect_is_not_followed():
    engine, inside = FakeEngine(), FakeEngine()
    async with serving(inside), serving(engine):
        engine.health_status, engine.location = 302, f"{inside.url}/secret"
        async with probing(a_node(endpoint=engine.url)) as at_work:
            found = await at_work.until(unhealthy)

    assert found.reason == "3 probes failed: HTTP 302 (redirects are not followed)"
    assert inside.asked == []


async def test_a_huge_health_answer_is_cut_off_and_a_huge_list_refused():
    engine = FakeEngine()
    engine.health_body = b"x" * (8 << 20)
    async with serving(engine), probing(a_node(endpoint=engine.url)) as at_work:
        await at_work.until(well)
        engine.models = b'{"data": [' + b" " * (8 << 20) + b"]}"
        found = await at_work.until(unhealthy)

    assert found.reason == "3 probes failed: its list of models is larger than 1024 KiB"


@pytest.mark.parametrize("garbage", [b"\xff\xfe", b"[" * 10_000, b'"data"', b'{"data": {}}', b""])
async def test_garbage_for_a_list_is_a_failed_probe_that_does_not_echo_it(garbage: bytes):
    engine = FakeEngine()
    engine.models = garbage
    async with serving(engine), probing(a_node(endpoint=engine.url)) as at_work:
        found = await at_work.until(unhealthy)

    assert found.reason == "3 probes failed: /v1/models does not answer a list of models"


async def test_a_server_that_speaks_no_http_is_said_so():
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, probing(a_node(endpoint=f"http://127.0.0.1:{port}")) as at_work:
        found = await at_work.until(unhealthy)

    assert found.reason == "3 probes failed: its answer is not HTTP"


async def test_an_engine_without_a_list_is_ready_by_its_health():
    engine = FakeEngine()
    engine.models_status = 404
    async with serving(engine), probing(a_node(endpoint=engine.url)) as at_work:
        await at_work.until(well)


async def test_a_hosted_api_that_wants_credentials_is_alive():
    engine = FakeEngine()
    engine.models_status = 401
    node = a_node(endpoint=f"{engine.url}/v1", engine=Engine.OPENAI)
    async with serving(engine), probing(replace(node, endpoint=f"{engine.url}/v1")) as at_work:
        await at_work.until(well)

    assert set(engine.asked) >= {"GET /v1/models"}


async def test_triton_is_asked_in_its_own_way():
    engine = FakeEngine()
    engine.models = [{"name": MODEL, "version": "1", "state": "READY"}, {"name": "b", "state": "LOADING"}]
    engine.page = "nv_inference_pending_request_count 3\n"
    async with serving(engine), probing(a_node(endpoint=engine.url, engine=Engine.TRITON)) as at_work:
        found = await at_work.until(lambda h: well(h) and h.queue_depth is not None)

    assert found.queue_depth == 3.0
    assert engine.asked[:2] == ["GET /v2/health/ready", "POST /v2/repository/index"]


async def test_a_new_registration_is_probed_at_once_and_a_gone_one_no_more():
    slow = QUICK.model_copy(update={"probe_interval_seconds": 3_600.0})
    first, second = FakeEngine(), FakeEngine()
    async with serving(first), serving(second), probing(a_node("n1", endpoint=first.url), settings=slow) as at_work:
        await at_work.until(well)
        at_work.sync(a_node("n1", endpoint=first.url), a_node("n2", endpoint=second.url))
        await at_work.until(well, "n2")
        asked = len(first.asked)
        at_work.sync(a_node("n2", endpoint=first.url))
        await at_work.until(lambda h: well(h) and len(first.asked) > asked, "n2")

        assert at_work.monitor.node_names() == ("r/n2",)


async def test_an_opened_circuit_has_the_node_probed_at_once():
    slow = QUICK.model_copy(update={"probe_interval_seconds": 3_600.0})
    engine = FakeEngine()
    async with serving(engine), probing(a_node(endpoint=engine.url), settings=slow) as at_work:
        await at_work.until(well)
        engine.health_status = 500
        for _ in range(5):
            at_work.monitor.observe_outcome(f"r/n1/{MODEL}", Outcome("d", result=Result.UNREACHABLE), time.monotonic())

        await at_work.until(unhealthy)


async def test_a_black_hole_does_not_hold_up_the_probes_of_others():
    good, bad = FakeEngine(), FakeEngine()
    bad.hang = "/health"
    async with serving(good), serving(bad):
        nodes = [a_node(f"bad{i}", endpoint=bad.url) for i in range(50)]
        async with probing(*nodes, a_node("good", endpoint=good.url)) as at_work:
            await at_work.until(lambda h: well(h) and good.asked.count("GET /health") >= 3, "good")


async def test_a_forbidden_endpoint_is_never_connected_to():
    engine = FakeEngine()
    settings = QUICK.model_copy(update={"allowed_cidrs": ("10.0.0.0/8",)})
    async with serving(engine), probing(a_node(endpoint=engine.url), settings=settings) as at_work:
        found = await at_work.until(unhealthy)

    assert found.reason == "3 probes failed: address 127.0.0.1 is outside of health.allowed_cidrs"
    assert engine.asked == []


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://169.254.169.254", "is never allowed"),
        ("grpc://169.254.169.254:80", "is never allowed"),
        ("http://2852039166", "not a name or a plain address"),
        ("file:///etc/passwd", "scheme 'file' is not allowed"),
        ("http://no-such-name.invalid", "does not resolve"),
        ("grpc://no-such-name.invalid:1", "does not resolve"),
    ],
)
async def test_a_reason_says_why_an_endpoint_cannot_be_probed(endpoint: str, reason: str):
    async with probing(a_node(endpoint=endpoint)) as at_work:
        found = await at_work.until(unhealthy)

    assert reason in found.reason


async def test_https_is_checked_against_the_authorities_that_are_given(tls: Certificate):
    engine = FakeEngine()
    async with serving(engine, tls.context()):
        node = a_node(endpoint=f"https://localhost:{engine.port}")
        async with probing(node, ca_file=tls.certificate) as at_work:
            await at_work.until(well)
        async with probing(node) as at_work:
            found = await at_work.until(unhealthy)

    assert found.reason == "3 probes failed: its certificate is not trusted"


def test_lists_of_models_are_read_in_both_forms():
    assert listed_models(b'{"object": "list", "data": [{"id": "a", "root": "b", "parent": null}, 7]}') == {"a", "b"}
    assert listed_models(b'[{"name": "a"}, {"name": "b", "state": "UNAVAILABLE"}]') == {"a"}
    assert listed_models(b'{"data": []}') == frozenset()
    assert listed_models(b"7") is None


async def test_a_fleet_that_is_due_at_once_is_probed_in_turns_with_the_rest_of_the_loop():
    class Watching(FakeEngine):
        begun = 0

        async def answer(self, request: web.Request) -> web.StreamResponse:
            self.begun = self.begun or sum(task.get_name().startswith("probe ") for task in asyncio.all_tasks())
            return await super().answer(request)

    unhurried = QUICK.model_copy(update={"probe_interval_seconds": 10.0})
    async with serving(Watching()) as engine:
        fleet = [a_node(f"n{number}", endpoint=engine.url) for number in range(500)]
        async with probing(*fleet, settings=unhurried) as at_work:
            for node in fleet:
                await at_work.until(well, node.node_id)

    assert 0 < engine.begun < 400
