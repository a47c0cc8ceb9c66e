"""The stand-in engine as the world sees it: a real process, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.anyio

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
# Fast, so that the tests are: a token takes 1 ms.
FAST = ("--decode-tokens-per-second", "1000", "--min-ttft", "0.002", "--prefill-seconds-per-token", "0.00001")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def an_engine(*flags: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose base is a running engine."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "federation.simulation.engine", "--model", MODEL, *FAST, *flags),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        async with aiohttp.ClientSession(line["address"], timeout=aiohttp.ClientTimeout(30)) as session:
            yield session
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ask(engine: aiohttp.ClientSession, path: str = "/v1/chat/completions", **changes: object) -> tuple[int, dict]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 8, "ignore_eos": True}
    async with engine.post(path, json={**body, **changes}) as response:
        return response.status, await response.json()


async def samples(engine: aiohttp.ClientSession) -> dict[str, float]:
    async with engine.get("/metrics") as response:
        page = await response.text()
    return {
        sample.name + str(sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def control(engine: aiohttp.ClientSession, **change: object) -> int:
    async with engine.post("/control", json=change) as response:
        return response.status


async def until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


async def test_it_answers_a_chat_with_the_tokens_that_were_asked_for_and_counts_them():
    async with an_engine() as engine:
        status, body = await ask(engine)

        assert status == 200
        assert body["choices"][0]["finish_reason"] == "length"
        assert len(body["choices"][0]["message"]["content"].split()) == 8
        assert body["usage"]["prompt_tokens"] == 102
        assert body["usage"]["completion_tokens"] == 8
        page = await samples(engine)
        assert page["vllm:prompt_tokens_total"] == 102
        assert page["vllm:generation_tokens_total"] == 8
        assert page["vllm:time_to_first_token_seconds_count"] == 1
        assert page["vllm:inter_token_latency_seconds_count"] == 7
        assert page["vllm:e2e_request_latency_seconds_count"] == 1
        assert page["vllm:request_success_total"] + page["vllm:cache_config_info"] >= 1


async def test_a_stream_brings_one_event_a_token_then_usage_then_done():
    async with an_engine() as engine:
        body = {"model": MODEL, "prompt": "y" * 40, "max_tokens": 20, "ignore_eos": True, "stream": True}
        async with engine.post("/v1/completions", json={**body, "stream_options": {"include_usage": True}}) as response:
            assert response.content_type == "text/event-stream"
            events = [line[6:].strip() for line in (await response.text()).splitlines() if line.startswith("data: ")]

    chunks = [json.loads(event) for event in events[:-1]]
    assert events[-1] == "[DONE]"
    assert sum(bool(chunk["choices"] and chunk["choices"][0]["text"]) for chunk in chunks) == 20
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_a_prompt_that_was_seen_is_answered_from_the_cache_the_second_time():
    async with an_engine("--prefill-seconds-per-token", "0.001") as engine:
        first = (await ask(engine))[1]
        second = (await ask(engine))[1]
        page = await samples(engine)

    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 96
    assert page["vllm:prefix_cache_hits_total"] == 96
    assert page["vllm:prefix_cache_queries_total"] == 204


async def test_bad_bodies_and_unknown_models_are_refused_as_vllm_refuses_them():
    async with an_engine("--max-model-len", "200") as engine:
        assert (await ask(engine, model="nobody"))[0] == 404
        status, body = await ask(engine, messages=[])
        assert (status, body["error"]["code"]) == (400, 400)
        assert "messages" in body["error"]["message"]
        for change in ({"max_tokens": 0.5}, {"n": 2}, {"max_tokens": 500}, {"messages": [3]}, {"stream_options": 1}):
            assert (await ask(engine, **change))[0] == 400, change
        async with engine.post("/v1/completions", data=b"{") as response:
            assert response.status == 400


async def test_running_and_waiting_requests_show_on_the_page_and_too_many_are_429():
    async with an_engine("--max-batch", "1", "--max-waiting", "1", "--decode-tokens-per-second", "1") as engine:
        first = asyncio.create_task(ask(engine, max_tokens=1_000))
        await until(lambda: running(engine, 1))
        second = asyncio.create_task(ask(engine, max_tokens=1_000))
        await until(lambda: waiting(engine, 1))

        async with engine.post("/v1/completions", json={"model": MODEL, "prompt": "z"}) as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "1"
        page = await samples(engine)
        assert 0 < page["vllm:kv_cache_usage_perc"] < 1

        # Clients that go away give their places back.
        first.cancel()
        second.cancel()
        await until(lambda: running(engine, 0))
        await until(lambda: waiting(engine, 0))


async def running(engine: aiohttp.ClientSession, count: int) -> bool:
    return (await samples(engine))["vllm:num_requests_running"] == count


async def waiting(engine: aiohttp.ClientSession, count: int) -> bool:
    return (await samples(engine))["vllm:num_requests_waiting"] == count


async def test_it_is_not_healthy_and_lists_nothing_while_it_loads():
    async with an_engine("--load-seconds", "3600") as engine:
        for path, status in (("/health", 503), ("/v1/models", 503), ("/metrics", 503), ("/version", 200)):
            async with engine.get(path) as response:
                assert response.status == status, path

        assert await control(engine, load_seconds=0) == 200
        async with engine.get("/health") as response:
            assert (response.status, await response.read()) == (200, b"")


async def test_it_lists_its_names_and_the_adapters_that_are_loaded():
    async with an_engine("--served-name", "llama", "--served-name", "llama-latest") as engine:
        async with engine.post("/v1/load_lora_adapter", json={"lora_name": "sql", "lora_path": "/x"}) as response:
            assert response.status == 200
        async with engine.get("/v1/models") as response:
            cards = (await response.json())["data"]

        assert [(card["id"], card["root"], card["parent"]) for card in cards] == [
            ("llama", MODEL, None),
            ("llama-latest", MODEL, None),
            ("sql", "sql", "llama"),
        ]
        assert (await ask(engine, model="sql"))[0] == 200
        async with engine.post("/v1/unload_lora_adapter", json={"lora_name": "sql"}) as response:
            assert response.status == 200
        assert (await ask(engine, model="sql"))[0] == 404


async def test_it_fails_in_the_ways_it_is_told_to_and_recovers():
    async with an_engine() as engine:
        await control(engine, fail="500", fail_scope="inference")
        assert (await ask(engine))[0] == 500
        async with engine.get("/health") as response:
            assert response.status == 200

        await control(engine, fail="reset", fail_scope="all")
        with pytest.raises(aiohttp.ClientError):
            await ask(engine)

        await control(engine, fail="hang")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(engine), 0.2)

        await control(engine, reset=True)
        assert (await ask(engine))[0] == 200


async def test_a_reset_interrupts_what_runs_and_empties_the_counters():
    async with an_engine("--decode-tokens-per-second", "1") as engine:
        task = asyncio.create_task(ask(engine, max_tokens=1_000))
        await until(lambda: running(engine, 1))

        await control(engine, reset=True)

        assert (await task)[0] == 500
        page = await samples(engine)
        assert (page["vllm:num_requests_running"], page["vllm:prompt_tokens_total"]) == (0, 0)


async def test_the_speed_can_be_changed_while_a_request_runs():
    async with an_engine("--decode-tokens-per-second", "1") as engine:
        task = asyncio.create_task(ask(engine, max_tokens=500))
        await until(lambda: running(engine, 1))

        await control(engine, speed=1000)

        assert (await asyncio.wait_for(task, 10))[0] == 200


async def test_control_refuses_what_it_does_not_know_and_what_a_browser_could_send():
    async with an_engine() as engine:
        for change in ({"sped": 1}, {"speed": 0}, {"fail": "maybe"}, {"fail_ratio": 2}, {"fail_scope": "most"}):
            assert await control(engine, **change) == 400, change
        async with engine.post("/control", data=b"{}", headers={"Content-Type": "text/plain"}) as response:
            assert response.status == 403


async def test_it_reports_its_load_in_the_answer_to_callers_that_ask_for_it():
    async with an_engine() as engine:
        body = {"model": MODEL, "prompt": "q", "max_tokens": 2}
        headers = {"endpoint-load-metrics-format": "TEXT"}
        async with engine.post("/v1/completions", json=body, headers=headers) as response:
            report = response.headers["endpoint-load-metrics"]

    assert report.startswith("TEXT named_metrics.kv_cache_usage_perc=0")


async def test_the_ready_file_tells_the_address(tmp_path):
    ready = tmp_path / "ready.json"

    async with an_engine("--ready-file", str(ready)) as engine:
        address = json.loads(ready.read_text())["address"]

        async with engine.get(f"{address}/health") as response:
            assert response.status == 200
