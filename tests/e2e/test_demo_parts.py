"""The demonstration's parts that need no fleet: what it starts, how it judges shares, how it ends processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import tomllib
from pathlib import Path

import pytest

from federation.config import load
from federation.simulation.demo import postgres
from federation.simulation.demo.checks import NotShown, expect
from federation.simulation.demo.fleet import agent_command, engine_command, load_fleet, server_settings
from federation.simulation.demo.full.plan import plan
from federation.simulation.demo.full.story import missing
from federation.simulation.demo.full.wires import wire
from federation.simulation.demo.gateway import OK, OVERLOADED, SERVER_ERROR, TIMEOUT, Ask, Attempt, Sent, result_of
from federation.simulation.demo.load import decided, got, shares
from federation.simulation.demo.processes import Ended, Processes
from federation.simulation.engine import parse_arguments
from federation.v1 import routing_pb2

FLEET = load_fleet()


def sent(node: str, *attempts: Attempt, predicted: float = 0.1, origin: str = "eu") -> Sent:
    region, _, name = node.partition("/")
    decision = routing_pb2.RouteDecision(target=routing_pb2.RouteTarget(region_id=region, node_id=name))
    decision.target.estimated_time_to_first_token.FromNanoseconds(round(predicted * 1e9))
    return Sent(Ask(origin), 0.0, decision, attempts=list(attempts))


def test_the_fleet_has_nine_nodes_in_three_regions_and_one_for_confidential_prompts():
    assert len(FLEET.nodes) == len({node.name for node in FLEET.nodes}) == 9
    assert [len(FLEET.nodes_of(region.region_id)) for region in FLEET.regions] == [3, 3, 3]
    assert FLEET.confidential.name == "eu-central-1/vault-1"


def test_round_trips_are_the_same_both_ways_and_short_at_home():
    for one in FLEET.regions:
        for other in FLEET.regions:
            there = FLEET.round_trip(one.region_id, other.region_id)
            assert there == FLEET.round_trip(other.region_id, one.region_id)
            assert (there < 0.01) == (one is other)


def test_the_control_plane_s_settings_are_settings_wherever_they_are_written(tmp_path: Path):
    directory = tmp_path / 'a "quoted" place'
    directory.mkdir()
    file = directory / "fairway.toml"
    file.write_text(server_settings(FLEET, directory))

    settings = load(file)

    assert tomllib.loads(file.read_text())["server"]["listen"] == "127.0.0.1:0"
    assert settings.region.owns == tuple(region.region_id for region in FLEET.regions)
    assert settings.routing.decision_log == directory / "decisions.jsonl"
    assert settings.circuit.failures == 5


def test_engines_and_agents_are_told_the_same_speeds(tmp_path: Path):
    for node in FLEET.nodes:
        engine = parse_arguments(engine_command(FLEET, node, tmp_path / "ready", seed=3)[3:])
        agent = agent_command(node, engine="http://127.0.0.1:1", server="127.0.0.1:2")

        assert engine.prefill_seconds_per_token == node.profile.prefill_seconds_per_token
        assert engine.max_batch == node.profile.max_batch_size
        told = dict(zip(agent[4::2], agent[5::2], strict=True))
        assert float(told["--prefill-seconds-per-token"]) == engine.prefill_seconds_per_token
        assert float(told["--min-ttft"].removesuffix("ms")) / 1000 == pytest.approx(engine.min_ttft)
        assert float(told["--decode-tokens-per-second"]) == engine.decode_tokens_per_second


def test_shares_are_of_decisions_and_not_of_who_answered():
    asked = [sent("eu/a", Attempt("eu/a", TIMEOUT), Attempt("us/b", OK)), sent("eu/a"), sent("us/b"), sent("us/b")]
    asked.append(Sent(Ask("eu"), 0.0))

    assert shares(asked) == {"eu/a": 0.5, "us/b": 0.5}
    assert asked[0].served_by == "us/b"
    assert shares([]) == {}
    assert len(decided(asked, "eu")) == 4
    assert decided(asked, "us") == []


def test_rows_tell_medians_of_what_came_back():
    answered = [sent("eu/a", Attempt("eu/a", OK, first_token_seconds=s), predicted=s) for s in (0.1, 0.2, 0.9)]

    (row, other) = got([*answered, sent("us/b")])

    assert (row.node, row.requests, row.share) == ("eu/a", 3, 0.75)
    assert row.first_token_seconds == pytest.approx(0.2)
    assert row.predicted_seconds == pytest.approx(0.2)
    assert (other.node, other.first_token_seconds) == ("us/b", None)


def test_statuses_are_told_apart_as_callers_must():
    assert [result_of(status) for status in (429, 503, 500, 502)] == [
        OVERLOADED,
        OVERLOADED,
        SERVER_ERROR,
        SERVER_ERROR,
    ]
    assert result_of(404) == routing_pb2.OUTCOME_RESULT_CLIENT_ERROR


def test_what_was_not_shown_says_what_was_expected_and_seen():
    expect(True, "anything", "whatever")

    with pytest.raises(NotShown, match=r"expected a share of 15%; seen: \{'a': 0\.5\}"):
        expect(False, "a share of 15%", {"a": 0.5})


def test_processes_end_with_the_block_even_where_they_are_stopped_or_deaf(tmp_path: Path):
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    with Processes(tmp_path) as processes:
        processes.start("deaf", [sys.executable, "-c", deaf])
        processes.start("stopped", [sys.executable, "-c", deaf.replace("SIG_IGN", "SIG_DFL")])
        deadline = time.monotonic() + 60.0
        while not all(processes.log(name).read_text() for name in ("deaf", "stopped")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        processes.freeze("stopped")
        pids = processes.pids

    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_process_that_ended_is_told_with_its_last_lines(tmp_path: Path):
    with Processes(tmp_path) as processes:
        processes.start("short", [sys.executable, "-c", "raise SystemExit('no luck')"])
        deadline = time.monotonic() + 60.0
        while processes.alive("short"):
            assert time.monotonic() < deadline
            time.sleep(0.02)

        with pytest.raises(Ended, match=r"process short ended with 1; its last lines:\nno luck"):
            processes.require("short")


def test_the_full_fleet_has_two_engines_a_region_and_keeps_the_one_for_confidential_prompts():
    full = plan(FLEET)

    assert [len(full.nodes_of(region.region_id)) for region in full.regions] == [2, 2, 2]
    assert full.confidential == FLEET.confidential


def test_what_the_full_demo_lacks_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch):
    assert missing() == ""

    monkeypatch.setattr(postgres, "WANTED", ("psycopg", "no_such_postgres"))

    assert "no-such-postgres is not installed" in missing()
    assert "pip install 'fairway[demo]'" in missing()


@pytest.mark.anyio
async def test_a_wire_takes_its_time_is_silent_while_it_is_cut_and_carries_what_connects_anew():
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server, wire(0.1) as way:
        way.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        host, _, port = way.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        started = time.monotonic()
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        assert time.monotonic() - started >= 0.1

        way.cut()
        writer.write(b"lost")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        way.heal()
        again, writing = await asyncio.open_connection(host, int(port))
        writing.write(b"two")
        assert await again.readexactly(3) == b"two"
        for each in (writer, writing):
            each.close()
