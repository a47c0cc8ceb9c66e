"""Traces: formats, order, and what is done to them before they are run."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from federation.simulation.fleet import FleetInvalid, load_fleet
from federation.simulation.traces import (
    TraceRequest,
    at_rate,
    capacity,
    evened,
    load_trace,
    part,
    prefix_chain,
    with_burst,
    with_priorities,
)

OURS = "arrival_seconds,input_tokens,output_tokens\n1.5,100,10\n0.5,200,20\n"
AZURE = "t_s,service,context_tokens,generated_tokens\n46.5,conv,200,20\n47.5,code,100,10\n"
AZURE_TIMES = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,200,20\n2023-11-16 18:17:04.9799600,100,10\n"
)
MOONCAKE = (
    '{"timestamp":500,"input_length":200,"output_length":20,"hash_ids":[0,1]}\n'
    '{"timestamp":1500,"input_length":100,"output_length":10,"hash_ids":[0,2]}\n'
)


def evenly(count: int, seconds: float, tokens: int = 100) -> list[TraceRequest]:
    return [TraceRequest(n * seconds, tokens, 10) for n in range(count)]


@pytest.mark.parametrize("text", [OURS, AZURE, AZURE_TIMES, MOONCAKE])
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_gives_the_same_requests_from_zero_on(tmp_path: Path, text: str, packed: bool):
    file = tmp_path / "trace"
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())

    first, second = load_trace(str(file))

    assert (first.arrival, first.input_tokens, first.output_tokens) == (0.0, 200, 20)
    assert (second.arrival, second.input_tokens, second.output_tokens) == (pytest.approx(1.0), 100, 10)


def test_hashes_of_blocks_become_hashes_of_prefixes():
    one, two = list(prefix_chain([0, 1, 2])), list(prefix_chain([0, 3, 2]))

    assert one[0] == two[0]
    assert one[1] != two[1]
    assert one[2] != two[2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no request"),
        ("a,b\n1,2\n", "request 1 has no arrival_seconds or t_s"),
        ("arrival_seconds,input_tokens,output_tokens\nsoon,1,1\n", "request 1 has a value that is no number"),
        ("arrival_seconds,input_tokens,output_tokens\nnan,1,1\n", "no time: it arrives at nan"),
        ('{"arrival_seconds": 0, "input_tokens": 1, "output_tokens": 1}\n[1]\n', "request 2 is no object with fields"),
        ('{"timestamp":1,"input_length":1,"output_length":1}\n{', "a line that is no JSON after request 1"),
    ],
)
def test_a_wrong_trace_is_refused_with_the_request_that_is_wrong(tmp_path: Path, text: str, told: str):
    file = tmp_path / "trace.csv"
    file.write_text(text)

    with pytest.raises(FleetInvalid, match=told):
        load_trace(str(file))


def test_the_halves_of_a_trace_are_all_of_it():
    requests = evenly(11, 1.0)

    first, second = part(requests, "first"), part(requests, "second")

    assert len(first) + len(second) == 11
    assert second[0].arrival == 0.0


def test_a_rate_keeps_the_order_and_the_shape():
    faster = at_rate(evenly(101, 1.0), 10.0)

    assert faster[-1].arrival == pytest.approx(10.1)
    assert faster[50].arrival == pytest.approx(faster[-1].arrival / 2)


def test_evened_windows_carry_equal_work_per_second():
    busy = [TraceRequest(n * 0.1, 100, 10) for n in range(600)]
    calm = [TraceRequest(60 + n, 100, 10) for n in range(60)]

    even = evened([*busy, *calm], 60.0)

    half = even[-1].arrival / 2
    assert sum(request.arrival < half for request in even) == pytest.approx(330, abs=5)


def test_a_burst_is_denser_and_what_follows_comes_as_much_earlier():
    moved = with_burst(evenly(100, 1.0), 2.0, 20.0, 40.0)

    assert sum(20.0 < request.arrival <= 30.0 for request in moved) == 20
    assert moved[-1].arrival == 99.0 - 10.0


def test_priorities_are_drawn_in_their_shares():
    drawn = [request.priority for request in with_priorities(evenly(5_000, 1.0), 3)]

    assert drawn.count(1) / 5_000 == pytest.approx(0.2, abs=0.03)
    assert drawn.count(-1) / 5_000 == pytest.approx(0.3, abs=0.03)


def test_the_capacity_of_a_fleet_is_the_sum_of_its_nodes():
    fleet, requests = load_fleet("three-regions"), load_trace("bursty.csv")

    whole = capacity(fleet, requests)

    assert 15.0 < whole < 45.0
