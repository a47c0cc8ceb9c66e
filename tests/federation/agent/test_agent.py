"""The agent between a real catalog service and a stand-in engine, over real sockets."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from urllib.parse import urlsplit

import aiohttp
import grpc
import pytest
from agent_servers import MODEL, Catalog, a_control_plane, an_engine, ended, until

from federation.agent import AgentOptions, run_agent
from federation.v1 import types_pb2

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Running:
    """An agent in a task of its own."""

    def __init__(self, options: AgentOptions) -> None:
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(run_agent(options, clock=time.monotonic, rng=Random(7), stop=self.stop))

    async def leave(self) -> int:
        self.stop.set()
        return await ended(self.task)


@asynccontextmanager
async def an_agent(catalog: Catalog, url: str, **options) -> AsyncIterator[Running]:
    values = {"region_id": "eu-1", "node_id": "gpu-7", "lease_seconds": 0.9, **options}
    running = Running(AgentOptions(engine_url=url, control_plane=catalog.address, **values))
    try:
        yield running
    finally:
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)


async def load_adapter(url: str, name: str) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/load_lora_adapter", json={"lora_name": name}) as r:
        assert r.status == 200


async def test_it_registers_what_the_engine_serves_with_what_the_operator_says():
    async with a_control_plane(Catalog()) as catalog, an_engine() as (_, url):
        await load_adapter(url, "sql")
        options = {
            "zone": "eu-1a",
            "advertise": "http://10.0.0.7:8000",
            "accelerator": "H100",
            "labels": {"pool": "a"},
            "tenant_ids": ("acme",),
            "model_ids": {MODEL: "llama"},
            "model_capabilities": {"*": ("generate",)},
            "price_usd_per_million_input_tokens": 0.2,
            "price_usd_per_hour": 3.5,
            "max_concurrency": 64,
        }
        async with an_agent(catalog, url, **options):
            await until(lambda: catalog.node)

        node = catalog.node
        assert (node.region_id, node.node_id, node.zone) == ("eu-1", "gpu-7", "eu-1a")
        assert node.endpoint == "http://10.0.0.7:8000"
        assert node.engine == types_pb2.ENGINE_VLLM
        assert (node.accelerator, node.labels["pool"], node.price_usd_per_hour) == ("H100", "a", 3.5)
        assert node.lease_duration.ToMilliseconds() == 900
        assert node.privacy_level == types_pb2.PRIVACY_LEVEL_UNSPECIFIED
        (deployment,) = node.deployments
        assert (deployment.model_id, deployment.served_model_name) == ("llama", MODEL)
        assert list(deployment.adapters) == ["sql"]
        assert list(deployment.capabilities) == ["generate"]
        assert list(deployment.tenant_ids) == ["acme"]
        assert deployment.price_usd_per_million_input_tokens == 0.2
        assert not deployment.HasField("price_usd_per_million_output_tokens")
        assert deployment.max_concurrency == 64
        assert catalog.registrations[0].request_id


async def test_it_renews_with_the_load_that_the_engine_reports():
    async with a_control_plane(Catalog()) as catalog, an_engine() as (engine, url), an_agent(catalog, url):
        await until(lambda: len(catalog.loads) >= 2)
        assert catalog.loads[0].running_requests == 0
        assert not catalog.loads[0].HasField("throughput_tokens_per_second")
        assert not catalog.loads[0].HasField("gpu_utilization")

        engine.submit("x" * 400, 100, 5_000, 5_000)
        await until(lambda: catalog.loads[-1].running_requests == 1)
        await until(lambda: catalog.loads[-1].throughput_tokens_per_second > 100)

        assert 0 < catalog.loads[-1].kv_cache_utilization <= 1
        assert catalog.events == ["register"]


async def test_it_waits_while_the_engine_loads():
    async with a_control_plane(Catalog()) as catalog, an_engine(load_seconds=0.5) as (engine, url):
        async with an_agent(catalog, url):
            loaded = engine.clock.now() + 0.4
            await until(lambda: catalog.node)

        assert engine.clock.now() >= loaded


async def test_it_registers_again_when_the_control_plane_forgot_it():
    async with a_control_plane(Catalog()) as catalog, an_engine() as (_, url), an_agent(catalog, url):
        await until(lambda: catalog.beats)
        catalog.nodes.clear()

        await until(lambda: catalog.node)

        first, second = catalog.registrations
        assert first.request_id != second.request_id


async def test_it_follows_the_engine_when_its_models_change():
    async with a_control_plane(Catalog()) as catalog, an_engine() as (_, url), an_agent(catalog, url):
        await until(lambda: catalog.beats)

        await load_adapter(url, "sql")

        await until(lambda: list(catalog.node.deployments[0].adapters) == ["sql"])
        before = len(catalog.beats)
        await until(lambda: len(catalog.beats) > before)


async def test_it_takes_over_a_node_that_was_registered_with_other_content():
    catalog = Catalog()
    catalog.nodes["eu-1", "gpu-7"] = types_pb2.Node(
        region_id="eu-1", node_id="gpu-7", endpoint="http://10.9.9.9:1", etag="old"
    )
    async with a_control_plane(catalog), an_engine() as (_, url), an_agent(catalog, url):
        await until(lambda: catalog.node.endpoint == url)

    assert [request.node.etag for request in catalog.registrations] == ["", "old"]


async def test_it_survives_a_restart_of_the_control_plane_on_the_same_port():
    async with an_engine() as (_, url):
        first = Catalog()
        async with a_control_plane(first):
            running = Running(
                AgentOptions(
                    engine_url=url,
                    control_plane=first.address,
                    region_id="eu-1",
                    node_id="gpu-7",
                    lease_seconds=0.9,
                )
            )
            await until(lambda: first.beats)
        second = Catalog()
        async with a_control_plane(second, first.address):
            await until(lambda: second.node)
            await until(lambda: second.loads)

            assert await running.leave() == 0

        assert second.events == ["register", "deregister"]


async def test_it_survives_a_restart_of_the_engine_and_keeps_its_lease_meanwhile():
    async with a_control_plane(Catalog()) as catalog:
        async with an_engine() as (_, url):
            running = Running(
                AgentOptions(
                    engine_url=url, control_plane=catalog.address, region_id="eu-1", node_id="n", lease_seconds=0.9
                )
            )
            await until(lambda: catalog.loads)
        await until(lambda: not catalog.beats[-1].HasField("load"))

        async with an_engine(port=urlsplit(url).port or 0):
            await until(lambda: catalog.beats[-1].HasField("load"))
            assert await running.leave() == 0

    assert catalog.events == ["register", "deregister"]


async def test_it_starts_before_the_control_plane_and_waits_for_it():
    catalog = Catalog()
    async with a_control_plane(catalog):
        address = catalog.address
    knocked = asyncio.Event()

    async def turn_away(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        knocked.set()

    host, _, port = address.rpartition(":")
    nobody = await asyncio.start_server(turn_away, host, int(port))
    async with an_engine() as (_, url), an_agent(catalog, url):
        await asyncio.wait_for(knocked.wait(), 20)
        nobody.close()
        await nobody.wait_closed()
        async with a_control_plane(catalog, address):
            await until(lambda: catalog.beats)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 2),
        (grpc.StatusCode.PERMISSION_DENIED, 5),
        (grpc.StatusCode.FAILED_PRECONDITION, 6),
    ],
)
async def test_a_first_registration_that_can_never_succeed_ends_it(code: grpc.StatusCode, exit_code: int):
    catalog = Catalog()
    catalog.refuse = code
    async with a_control_plane(catalog), an_engine() as (_, url), an_agent(catalog, url) as running:
        assert await ended(running.task) == exit_code

    assert catalog.events == []


async def test_it_deregisters_when_it_is_stopped():
    async with a_control_plane(Catalog()) as catalog, an_engine() as (_, url), an_agent(catalog, url) as running:
        await until(lambda: catalog.beats)

        assert await running.leave() == 0

    assert catalog.events == ["register", "deregister"]
    assert not catalog.nodes


async def test_a_drain_waits_for_running_requests_and_renews_the_lease_meanwhile():
    async with (
        a_control_plane(Catalog()) as catalog,
        an_engine() as (engine, url),
        an_agent(catalog, url, on_exit="drain") as running,
    ):
        await until(lambda: catalog.beats)
        ticket = engine.submit("x", 1, 1_500, 1_500)
        running.stop.set()
        await until(lambda: "drain" in catalog.events)
        before = len(catalog.beats)

        assert await ended(running.task) == 0

        assert ticket.ended
        assert len(catalog.beats) > before
    assert catalog.events == ["register", "drain", "deregister"]


async def test_a_drain_has_an_end():
    async with a_control_plane(Catalog()) as catalog, an_engine() as (engine, url):
        engine.set_speed(0.001)
        async with an_agent(catalog, url, on_exit="drain", drain_seconds=0.3) as running:
            await until(lambda: catalog.beats)
            ticket = engine.submit("x", 1, 1_500, 1_500)

            assert await running.leave() == 0

            assert not ticket.ended
    assert catalog.events[-1] == "deregister"


async def test_stopped_before_it_registered_it_says_nothing_to_the_control_plane():
    async with a_control_plane(Catalog()) as catalog, an_agent(catalog, "http://127.0.0.1:1") as running:
        assert await running.leave() == 0

    assert catalog.events == []


AGENT = """
import asyncio, sys, time
from random import Random
from federation.agent import AgentOptions, run_agent
url, control_plane, on_exit = sys.argv[1:]
options = AgentOptions(url, control_plane, region_id="eu-1", lease_seconds=1.5, on_exit=on_exit)
sys.exit(asyncio.run(run_agent(options, clock=time.monotonic, rng=Random())))
"""


@pytest.mark.parametrize("on_exit", ["deregister", "drain"])
async def test_as_a_process_beside_an_engine_process_it_leaves_on_sigterm_and_logs_each_state_once(on_exit: str):
    async with a_control_plane(Catalog()) as catalog:
        engine = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "federation.simulation.engine", "--model", MODEL, "--load-seconds", "0.3"),
            stdout=asyncio.subprocess.PIPE,
        )
        agent = None
        try:
            assert engine.stdout is not None
            url = json.loads(await asyncio.wait_for(engine.stdout.readline(), 30))["address"]
            agent = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", AGENT, url, catalog.address, on_exit),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            await until(lambda: len(catalog.loads) >= 2)
            agent.send_signal(signal.SIGTERM)

            stdout, stderr = await asyncio.wait_for(agent.communicate(), 30)
        finally:
            for process in (engine, agent):
                if process is not None and process.returncode is None:
                    process.kill()
                    await process.wait()

    assert agent.returncode == 0
    assert stdout == b""
    log = stderr.decode()
    for event in ("engine serves", "registered", "stopping", "deregistered"):
        assert log.count(f"event='{event}'") == 1, log
    assert catalog.events == ["register", *(["drain"] if on_exit == "drain" else []), "deregister"]
