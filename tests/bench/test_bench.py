"""The benchmarks work: on tiny sizes each part gives its rows, and what they are written to has the agreed shape."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.__main__ import PARTS, main
from tests.bench.measure import TINY, Result

# Words that a full run's rows of a part must have, so that no target is lost unnoticed.
TOLD = {
    "others": (),
    "deciding": ("predicted,", "power_of_two,", "a batch of", "plain pipeline", "time of a decision"),
    "rebuild": ("rebuild after a change",),
    "wire": ("empty unary handler", "Route over gRPC", "RouteBatch of 1,000"),
    "telemetry": ("without a collector", "with a collector"),
    "modes": ("empty call, asyncio", "route call, pool-2", "beside rebuilds, asyncio, p99"),
    "fresh": ("from a heartbeat", "from outcomes"),
    "storm": ("in quiet, p99", "node updates/s, p99"),
    "scale": ("SQLite", "PostgreSQL", "start from", "memory of", "heartbeats with load", "WatchFleet"),
}


def test_every_part_is_tested() -> None:
    assert TOLD.keys() == PARTS.keys()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_gives_its_rows(part: str) -> None:
    results = list(PARTS[part](TINY))

    names = [result.name for result in results]
    assert all(any(words in name for name in names) for words in TOLD[part]), names
    assert len(set(names)) == len(names)
    assert all(result.value >= 0 for result in results)
    assert [result.met for result in results] == [None] * len(results), "a tiny run tells no verdict"


def test_a_run_writes_a_list_of_rows(tmp_path: Path) -> None:
    assert main(["--tiny", "--only", "rebuild"], tmp_path) == 0

    rows = json.loads((tmp_path / "bench.json").read_text())
    assert [set(row) for row in rows] == [{field.name for field in fields(Result)}] * len(rows)
    assert {"name", "value", "unit", "baseline", "ratio", "target", "met"} == set(rows[0])
    run = json.loads((tmp_path / "bench-run.json").read_text())
    assert run["results"] == rows
    assert {"cores", "python", "grpcio", "seed"} <= set(run["machine"])


def test_tables_are_written_between_their_marks() -> None:
    text = "before\n<!-- wire -->\nold\n<!-- end -->\n<!-- modes -->\nold\n<!-- end -->\n"

    written = report.replaced(text, "wire", [Result("Route", 1234.5, "1/s", "empty", 0.5, ">= 0.9", False)])

    assert "| Route | 1,234 | 1/s | empty | 0.500 | >= 0.9 | MISSED |" in written
    assert written.endswith("<!-- modes -->\nold\n<!-- end -->\n")
    assert written.startswith("before\n<!-- wire -->\n")


def test_curves_are_read_from_the_names_of_results() -> None:
    results = [
        Result("predicted, 100 deployments at 70 % load", 1e5, "1/s"),
        Result("predicted, 100,000 deployments at 70 % load", 5e4, "1/s"),
        Result("LiteLLM router simple-shuffle, a pick of 1,000", 1e3, "1/s"),
    ]

    found = report.curves(results)

    assert found["predicted, 70 % load"] == [(100, pytest.approx(10)), (100_000, pytest.approx(20))]
    assert found["LiteLLM simple-shuffle"] == [(1_000, pytest.approx(1_000))]


def test_the_readme_has_a_place_for_every_part() -> None:
    text = (Path(report.HERE) / "README.md").read_text(encoding="utf-8")

    assert all(f"<!-- {part} -->\n" in text for part in PARTS)
