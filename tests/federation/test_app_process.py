"""`fairway serve` as operators meet it: what it prints, and how it starts, ends and refuses."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sqlite3
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from federation.memory import no_collections, settle_memory
from federation.v1 import catalog_pb2, catalog_pb2_grpc
from tests.federation.process import Process, serving, start


def a_channel(process: Process) -> grpc.Channel:
    return grpc.insecure_channel(process.address)


def refused(process: Process, code: int) -> str:
    """The one line that a server which does not start leaves on stderr."""
    assert process.wait() == code, process.lines
    process.ended()
    (line,) = process.lines
    text: str = line["text"]
    assert text.startswith("fairway: ")
    return text


def test_what_was_registered_survives_the_process_and_sigterm_ends_it_with_zero(tmp_path: Path) -> None:
    with serving(tmp_path) as process, a_channel(process) as channel:
        catalog = catalog_pb2_grpc.CatalogServiceStub(channel)  # type: ignore[no-untyped-call]
        catalog.RegisterModel(catalog_pb2.RegisterModelRequest(model={"model_id": "m"}))
        process.terminate()
        assert process.wait() == 0
        assert process.until_logged("stopped")
        assert process.until_logged("draining")["signal"] == "SIGTERM"

    with serving(tmp_path) as process, a_channel(process) as channel:
        catalog = catalog_pb2_grpc.CatalogServiceStub(channel)  # type: ignore[no-untyped-call]
        assert catalog.GetModel(catalog_pb2.GetModelRequest(model_id="m")).model.owner == "local"


def test_sigterm_tells_health_watchers_first_and_ends_streams(tmp_path: Path) -> None:
    with serving(tmp_path) as process, a_channel(process) as channel:
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        catalog = catalog_pb2_grpc.CatalogServiceStub(channel)  # type: ignore[no-untyped-call]
        watch = catalog.WatchCatalog(catalog_pb2.WatchCatalogRequest())
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        next(watch)

        process.terminate()

        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as ended:
            list(watch)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        # Long before the 30 s of grace: nothing is left to wait for.
        assert process.wait(15) == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        os.kill(process.popen.pid, signal.SIGSTOP)
        process.terminate()
        os.kill(process.popen.pid, signal.SIGINT)
        os.kill(process.popen.pid, signal.SIGCONT)

        assert process.wait(15) in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        grpc_taken = refused(start(tmp_path, "--listen", address, "--admin", "127.0.0.1:0", ports=False), 6)
        admin_taken = refused(start(tmp_path, "--admin", address, "--listen", "127.0.0.1:0", ports=False), 6)

    assert f"server.listen: cannot listen on {address}: Address already in use" in grpc_taken
    assert "server.admin: cannot listen" in admin_taken
    assert not (tmp_path / "fairway.db").exists()


def test_two_servers_on_one_port_do_not_share_it(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        second = start(
            tmp_path, "--listen", process.address, "--admin", "127.0.0.1:0", "--database", "sqlite:///b.db", ports=False
        )

        assert "Address already in use" in refused(second, 6)


def test_a_setting_that_cannot_be_used_is_exit_code_two(tmp_path: Path) -> None:
    text = refused(start(tmp_path, "--listen", "0.0.0.0:0", ports=False), 2)

    assert "server.listen: 0.0.0.0:0 is not loopback and there is no TLS" in text


def test_plain_text_beyond_loopback_is_served_when_it_is_said_aloud(tmp_path: Path) -> None:
    process = start(tmp_path, "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--insecure", ports=False)
    try:
        assert process.until_logged("serving")["grpc"].startswith("0.0.0.0:")
    finally:
        process.popen.kill()
        process.popen.wait()


def test_a_database_that_another_process_holds_is_one_clear_line(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        process.terminate()
        process.wait()
    holder = sqlite3.connect(tmp_path / "fairway.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        text = refused(start(tmp_path), 4)
    finally:
        holder.close()

    assert "store.url: sqlite:///fairway.db" in text


def test_a_password_in_the_url_is_never_printed(tmp_path: Path) -> None:
    text = refused(start(tmp_path, "--database", "postgresql://u:hunter2@127.0.0.1:9/db"), 4)

    assert "u:***@127.0.0.1" in text
    assert "hunter2" not in text


def test_the_url_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("sqlite:///other.db\n")
    with serving(tmp_path, env={"FAIRWAY_STORE__URL_FILE": str(tmp_path / "url")}) as process:
        assert process.until_logged("serving")["store"] == "sqlite:///other.db"

    assert (tmp_path / "other.db").exists()


def test_an_unknown_key_in_the_file_is_exit_code_two(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("[server]\nlissten = 'x'\n")
    process = start(tmp_path, "--config", "f.toml")

    assert process.wait() == 2
    process.ended()
    assert "did you mean server.listen?" in str(process.lines)


def test_no_circles_are_looked_for_meanwhile_and_as_before_after_it() -> None:
    with contextlib.suppress(ValueError), no_collections():
        assert not gc.isenabled()
        raise ValueError

    assert gc.isenabled()


def test_what_the_start_made_is_left_out_of_later_collections() -> None:
    before = gc.get_threshold()
    try:
        settle_memory()

        assert gc.get_freeze_count() > 10_000
        assert gc.get_count()[2] == 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
