"""`fairway serve --workers 2` on one SQLite file: both answer, one that is killed comes back, and all end together."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from federation.v1 import catalog_pb2, catalog_pb2_grpc, routing_pb2, routing_pb2_grpc, types_pb2
from federation.workers.pages import merged
from tests.federation.process import Process, serving, start
from tests.federation.server import engine

PATIENCE_SECONDS = 60.0


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Process]:
    """A server of two workers, both of which serve."""
    with serving(tmp_path, "--workers", "2") as process:
        until(lambda: page(process, "/readyz") == (200, "worker 0: ok\nworker 1: ok\n"))
        yield process
        if process.popen.poll() is None:
            process.terminate()
            process.wait()


def page(process: Process, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{process.admin}{path}", timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(condition: Callable[[], bool]) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < PATIENCE_SECONDS, f"not within {PATIENCE_SECONDS} s"
        time.sleep(0.05)
    return time.monotonic() - started


def pids(process: Process) -> dict[int, int]:
    """The newest process of each worker."""
    return {line["worker"]: line["pid"] for line in list(process.lines) if line.get("event") == "worker started"}


def served(process: Process, worker: int) -> int:
    """How often a worker came to serve."""
    return sum(line.get("event") == "worker serving" and line.get("worker") == worker for line in list(process.lines))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Whoever ended and was not waited for is gone, too.
    return Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text()


def route(process: Process) -> str:
    """Which worker decided one request, over a connection of its own; "" where there is no target yet."""
    with grpc.insecure_channel(process.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        routing: Any = routing_pb2_grpc.RoutingServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            answer = routing.Route(
                routing_pb2.RouteRequest(model_id="m"), wait_for_ready=True, timeout=PATIENCE_SECONDS
            )
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE), error
            return ""
        decision_id: str = answer.decision.decision_id
        outcome = routing_pb2.Outcome(decision_id=decision_id, result=routing_pb2.OUTCOME_RESULT_OK)
        routing.ReportOutcomes(routing_pb2.ReportOutcomesRequest(outcomes=[outcome]))
        return decision_id.rpartition("-")[0]


def register(process: Process, url: str) -> None:
    with grpc.insecure_channel(process.address) as channel:
        catalog: Any = catalog_pb2_grpc.CatalogServiceStub(channel)  # type: ignore[no-untyped-call]
        catalog.RegisterNode(
            catalog_pb2.RegisterNodeRequest(
                node=types_pb2.Node(
                    region_id="local",
                    node_id="n1",
                    endpoint=url,
                    engine=types_pb2.ENGINE_VLLM,
                    lease_duration={"seconds": 0},
                ),
                deployments=[types_pb2.Deployment(model_id="m")],
            )
        )


@pytest.mark.anyio
async def test_both_workers_answer_and_one_that_is_killed_comes_back(two: Process, capsys: pytest.CaptureFixture[str]):
    import anyio.to_thread

    async with engine("m") as node:
        seen, failed, back = await anyio.to_thread.run_sync(_killed_and_back, two, node.url)

    with capsys.disabled():
        print(f"\n  a killed worker served again after {back:.2f} s; {seen} workers decided, {failed} routes failed")
    assert failed == 0


def _killed_and_back(two: Process, url: str) -> tuple[int, int, float]:
    register(two, url)
    until(lambda: bool(route(two)))
    deciders: set[str] = set()

    def both() -> bool:
        deciders.add(route(two))
        return len(deciders - {""}) == 2

    until(both)
    os.kill(pids(two)[1], signal.SIGKILL)
    failed = 0

    def is_back() -> bool:
        nonlocal failed
        failed += not route(two)
        return served(two, 1) == 2

    back = until(is_back)
    until(lambda: page(two, "/readyz")[1].count(": ok") == 2)
    third: set[str] = set()

    def again() -> bool:
        third.add(route(two))
        return len(third - deciders - {""}) == 1

    until(again)
    _, metrics = page(two, "/metrics")
    assert 'worker_restarts_total{worker="1"} 1.0' in metrics
    assert 'worker_up{worker="0"} 1.0' in metrics
    assert 'siblings{link="up",worker="0"}' in metrics
    return len(deciders - {""}), failed, back


def test_sigterm_drains_all_workers_and_ends_with_zero(two: Process):
    workers = pids(two)

    two.terminate()

    assert two.wait() == 0
    two.ended()
    assert [line["worker"] for line in two.lines if line.get("event") == "worker stopped"].__len__() == 2
    assert all(map(gone, workers.values()))


def test_workers_end_when_their_supervisor_is_killed(two: Process):
    workers = pids(two)

    two.popen.kill()
    two.wait()

    until(lambda: all(map(gone, workers.values())))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--database", "postgresql://u@127.0.0.1:9/db"), 2, "on PostgreSQL run further replicas instead"),
        (("--database", "sqlite:///nowhere/f.db"), 4, "store.url: sqlite:///nowhere/f.db"),
        (("--database", "mysql://x/y"), 2, "store.url"),
    ],
)
def test_what_is_wrong_is_said_once(tmp_path: Path, arguments: tuple[str, ...], code: int, text: str):
    process = start(tmp_path, "--workers", "2", *arguments)

    assert process.wait() == code
    process.ended()
    (line,) = [line["text"] for line in process.lines if "text" in line]
    assert line.startswith("fairway: ")
    assert text in line


def test_a_port_that_another_server_has_is_not_shared(two: Process, tmp_path: Path):
    process = start(tmp_path, "--workers", "2", "--listen", two.address, "--admin", "127.0.0.1:0", ports=False)

    assert process.wait() == 6
    process.ended()
    (line,) = process.lines
    assert "Address already in use" in line["text"]


def test_pages_of_workers_become_one_with_each_sample_named():
    text = '# HELP a_total Things.\n# TYPE a_total counter\na_total{x="1"} 2.0\n# TYPE b gauge\nb 3.0\n'

    found = {family.name: family for family in merged({0: text, 1: text})}

    assert [(each.name, each.labels, each.value) for each in found["a"].samples] == [
        ("a_total", {"x": "1", "worker": "0"}, 2.0),
        ("a_total", {"x": "1", "worker": "1"}, 2.0),
    ]
    assert [each.labels for each in found["b"].samples] == [{"worker": "0"}, {"worker": "1"}]
