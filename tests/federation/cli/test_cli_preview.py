"""`fairway preview` on a log, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.cli.conditions import failing
from federation.cli.main import app
from tests.builders import a_deployment, a_node, a_region, a_request, a_router, a_table

FIGURES = {
    "cost": (0.10, 0.12),
    "latency": (0.5, 0.4),
    "moved": (0.0, 0.25),
    "refused": (0.0, 0.0),
    "violations": (0.0, 0.0),
}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("cost > +5%", "cost > +5%"),
        ("cost > +25%", ""),
        ("cost > 0.11", "cost > 0.11"),
        ("latency > 300 ms", "latency > 300 ms"),
        ("latency < -10%", "latency < -10%"),
        ("violations > 0 or moved >= 25%", "moved >= 25%"),
        ("moved > 10% and refused > 0", ""),
        ("refused > +0%", ""),
    ],
)
def test_conditions_compare_with_before_or_with_a_figure(condition: str, holds: str) -> None:
    assert failing(condition, FIGURES) == holds


@pytest.mark.parametrize("condition", ["cost", "price > 3", "cost > +5", "cost => 1", ""])
def test_a_condition_that_cannot_be_meant_says_how_to_write_one(condition: str) -> None:
    with pytest.raises(ValueError, match=r"write one as|there are cost|told in per cent"):
        failing(condition, FIGURES)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    cheap = a_deployment(price_usd_per_million_input_tokens=0.1, price_usd_per_million_output_tokens=0.2)
    table = a_table(
        a_node("eu/home", [a_deployment()]),
        a_node("us/far", [cheap]),
        regions=[a_region("us", round_trip_seconds={"eu": 0.1}), a_region("eu")],
    )
    router = a_router(table)
    file = tmp_path / "decisions.jsonl"
    with file.open("w") as lines:
        for _ in range(4):
            record = router.place(a_request(), 1.0)
            router.reservations.release(record.number)
            lines.write(record.to_json() + "\n")
    return file


def test_a_policy_file_is_tried_on_a_log(log: Path, tmp_path: Path) -> None:
    policy = tmp_path / "cheap.toml"
    policy.write_text("[weights]\ncost = 50.0\n")

    done = CliRunner().invoke(app, ["preview", "--log", str(log), "--policy", str(policy), "-o", "json"])

    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert told["moved"] == 4
    assert told["mean_cost_usd_after"] < told["mean_cost_usd_before"]


def test_a_condition_that_holds_ends_with_7(log: Path) -> None:
    args = ["preview", "--log", str(log), "--without-region", "eu", "--fail-if", "moved > 50%"]

    done = CliRunner().invoke(app, args)

    assert done.exit_code == 7
    assert "moved > 50% holds" in done.stderr


def test_a_price_table_is_read_from_csv(log: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("deployment,input,output,cached\nus/*,900,900,\n")

    done = CliRunner().invoke(app, ["preview", "--log", str(log), "--prices", str(prices)])

    assert done.exit_code == 0
    assert "mean cost" in done.stdout


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("--prices", "name,input\na,1\n", "deployment,input,output,cached"),
        ("--policy", "picker = 'nobody'\n", "picker"),
    ],
)
def test_a_bad_file_ends_with_2_and_says_what_is_wrong(
    log: Path, tmp_path: Path, file: str, text: str, says: str
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(text)

    done = CliRunner().invoke(app, ["preview", "--log", str(log), file, str(bad)])

    assert done.exit_code == 2
    assert says in done.stderr
