from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.health.engines import grpc, orca
from federation.health.engines.orca import LoadReport, parse_binary, parse_header, to_metrics

# cpu_utilization=0.5 (1), named_metrics {"kv_cache_usage_perc": 0.25} (8), eps=2.0 (7), by hand from the wire format.
KEY = b"kv_cache_usage_perc"
BINARY = (
    b"\x09\x00\x00\x00\x00\x00\x00\xe0\x3f"
    + b"\x42"
    + bytes([2 + len(KEY) + 9])
    + b"\x0a"
    + bytes([len(KEY)])
    + KEY
    + b"\x11\x00\x00\x00\x00\x00\x00\xd0\x3f"
    + b"\x39\x00\x00\x00\x00\x00\x00\x00\x40"
)
REPORT = LoadReport({"cpu_utilization": 0.5, "eps": 2.0}, named_metrics={"kv_cache_usage_perc": 0.25})
TEXT = "cpu_utilization=0.5, eps=2, named_metrics.kv_cache_usage_perc=0.25"
JSON = '{"cpu_utilization": 0.5, "eps": 2, "named_metrics": {"kv_cache_usage_perc": 0.25}}'


@pytest.mark.parametrize(
    "header",
    [
        f"TEXT {TEXT}",
        TEXT,
        TEXT.replace("=", ":"),
        f"JSON {JSON}",
        JSON,
        JSON.replace("named_metrics", "namedMetrics").replace("cpu_utilization", "cpuUtilization"),
        "BIN " + base64.b64encode(BINARY).decode(),
    ],
)
def test_all_forms_of_a_report_say_the_same(header: str):
    assert parse_header(header) == REPORT


def test_the_binary_trailer_is_read():
    assert parse_binary(BINARY) == REPORT


@pytest.mark.parametrize("value", ["NaN", "inf", "-0.5", "", "1e999", "fast"])
def test_what_is_no_sensible_number_is_left_out(value: str):
    report = parse_header(f"TEXT named_metrics.kv_cache_usage_perc={value}, cpu_utilization=0.5")

    assert report == LoadReport({"cpu_utilization": 0.5})


def test_a_name_that_comes_twice_is_left_out():
    assert parse_header("TEXT eps=1, eps=2, cpu_utilization=0.5") == LoadReport({"cpu_utilization": 0.5})
    assert parse_header('JSON {"eps": 1, "eps": 2}') == LoadReport()


def test_unknown_fields_are_passed_over():
    assert parse_header("TEXT mood=0.9, utilization.gpu=0.7") == LoadReport(utilization={"gpu": 0.7})


def test_a_report_that_is_too_long_is_not_read_half():
    long = "TEXT eps=1, " + ", ".join(f"named_metrics.x{i}=1" for i in range(5_000))

    assert parse_header(long) == LoadReport()
    assert parse_binary(b"\x00" * 100_000) == LoadReport()


def test_a_report_becomes_figures():
    header = "named_metrics.kv_cache_usage_perc=0.4,named_metrics.num_requests_waiting=3,utilization.gpu=0.7"
    metrics = to_metrics(parse_header(header))

    assert (metrics.kv_cache_utilization, metrics.queue_depth, metrics.gpu_utilization) == (0.4, 3.0, 0.7)
    assert metrics.running_requests is None
    assert grpc.parse("TEXT named_metrics.num_requests_running=2").running_requests == 2.0


@given(st.one_of(st.text(), st.text(alphabet='TEXJSONBI {}[]":,=.01named_metrics')))
def test_no_header_raises(header: str):
    to_metrics(parse_header(header))


@given(st.binary())
def test_no_trailer_raises(data: bytes):
    report = orca.parse_binary(data)

    assert all(value >= 0 for value in report.scalars.values())
