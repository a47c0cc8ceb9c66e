"""What comes out: figures, conditions, the page, and the command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.cli.main import app
from federation.simulation.conditions import ConditionInvalid, parse_condition
from federation.simulation.faults import Fault
from federation.simulation.fleet import load_fleet
from federation.simulation.page import render
from federation.simulation.run import Scenario, simulate
from federation.simulation.traces import load_trace

FLEET = load_fleet("three-regions")
SHORT = load_trace("bursty.csv")[:300]
SCENARIO = Scenario(FLEET, SHORT, 0.5, (Fault("gray"),))
OURS, ORACLE = simulate(SCENARIO, "balanced"), simulate(SCENARIO, "oracle")
ENTRIES = {"balanced": OURS.summary, "oracle": ORACLE.summary}


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("p99 > 0.01x oracle", "p99 > 0.01x oracle"),
        ("p99 > 100x oracle", ""),
        ("p50 > 1ms and errors <= 100%", "p50 > 1ms and errors <= 100%"),
        ("p50 > 1h99x oracle", None),
        ("p50 > 60s or good >= 0%", "good >= 0%"),
        ("p50 > 60s and good >= 0%", ""),
        ("beauty > 1", None),
        ("cost < 1000", "cost < 1000"),
    ],
)
def test_a_condition_says_which_of_its_parts_holds(text: str, broken: str | None):
    if broken is None:
        with pytest.raises(ConditionInvalid):
            parse_condition(text)
        return

    assert parse_condition(text).broken("balanced", ENTRIES) == broken


def test_a_condition_that_holds_tells_what_it_compared():
    condition = parse_condition("p99 > 100x oracle or good >= 0% and p99 > 0.01x oracle")

    good, p99 = ENTRIES["balanced"].good, ENTRIES["balanced"].p99
    expected = f"good: {good:.3g}; p99: {p99:.3g}, oracle {ENTRIES['oracle'].p99:.3g}"
    assert condition.figures("balanced", ENTRIES) == expected


def test_a_condition_knows_whom_it_compares_with():
    condition = parse_condition("p99 > 2x nobody")

    assert condition.entries == {"nobody"}
    with pytest.raises(ConditionInvalid, match="was not run; there are balanced, oracle"):
        condition.broken("balanced", ENTRIES)


def test_the_page_needs_nothing_from_elsewhere_and_holds_every_plot():
    page = render(SCENARIO, [OURS, ORACLE])

    assert not re.search(r"(src|href)\s*=|https?://|@import|url\(", page)
    # Two quantiles, cost, and for each entry its regions and its map.
    assert page.count("<svg") == 3 + 2 * 2
    data = json.loads(page.split("id=data>")[1].split("</script>")[0])
    assert data["policies"]["balanced"]["requests"] == 300
    assert page == render(SCENARIO, [OURS, ORACLE])


def run(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["simulate", "--fleet", "three-regions", "--part", "first", *arguments])
    return found.exit_code, found.stdout


def test_the_command_prints_json_and_writes_the_page(tmp_path: Path):
    trace, page = tmp_path / "t.csv", tmp_path / "page.html"
    lines = "\n".join(f"{r.arrival},{r.input_tokens},{r.output_tokens}" for r in SHORT)
    trace.write_text(f"arrival_seconds,input_tokens,output_tokens\n{lines}\n")

    code, told = run("--trace", str(trace), "--compare", "oracle", "round_robin", "-o", "json", "--html", str(page))

    assert code == 0
    assert list(json.loads(told)["policies"]) == ["balanced", "oracle", "round_robin"]
    assert page.read_text().startswith("<!doctype html>")


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path):
    old, new, ours = tmp_path / "old" / "p.toml", tmp_path / "new" / "p.toml", tmp_path / "balanced.toml"
    for path, picker in ((old, "best"), (new, "round_robin"), (ours, "best")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'picker = "{picker}"\n')

    code, told = run("--compare", str(old), str(new), str(ours), "-o", "name")

    assert code == 0
    assert told.split() == ["balanced", "p", str(new), str(ours)]


def test_the_command_ends_with_seven_where_the_condition_holds(tmp_path: Path):
    policy = tmp_path / "mine.toml"
    policy.write_text('picker = "round_robin"\n')

    broken, told = run("--policy", str(policy), "--fail-if", "p50 > 0.1x oracle", "-o", "name")
    kept, _ = run("--policy", str(policy), "--fail-if", "p50 > 1000x oracle", "-o", "name")

    assert broken == 7
    assert told.split() == ["mine", "oracle"]
    assert kept == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--fleet", "nowhere"),
        ("--trace", "nothing"),
        ("--policy", "nobody"),
        ("--fault", "flood"),
        ("--part", "third"),
        ("--fail-if", "p99 is bad"),
        ("--html", "no/such/directory/page.html"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: tuple[str, ...]):
    code, _ = run(*arguments)

    assert code == 2
