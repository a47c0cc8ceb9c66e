"""The matrix: what it runs, and the page that it writes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.simulation import matrix
from federation.simulation.matrix import Case, Kept, cases, run_case
from federation.simulation.targets import SEED_KIND, Found, lines, render

FLEETS = ("three-regions", "three-regions")


def test_the_matrix_holds_every_fault_at_two_loads_on_both_halves():
    found = cases("bursty.csv", "conversations.jsonl.gz", FLEETS, 1, subset=False)

    azure = {(case.half, case.load, case.fault) for case in found if case.kind == "azure" and case.entry == "balanced"}
    assert len(azure) == 2 * 2 * 10
    assert len({case.key for case in found}) == len(found)


def test_the_subset_is_a_part_of_the_matrix():
    whole = cases("bursty.csv", "conversations.jsonl.gz", FLEETS, 1, subset=False)
    subset = cases("bursty.csv", "conversations.jsonl.gz", FLEETS, 1, subset=True)

    assert {case.key for case in subset} <= {case.key for case in whole}
    assert len(subset) < 0.25 * len(whole)


# What the default policy must show on any trace; how near it comes to the oracle's slowest answers hangs on the trace.
ANYWHERE = (
    "p99 below least_connections",
    "good answers behind the oracle",
    "errors above the oracle",
    "high priority lost",
    "cached tokens of the oracle's",
    "cost of cost_first to the cheapest feasible",
)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        *[("azure", fault) for fault in ("", "gray", "killed", "cut")],
        *[("overload", ""), ("cost", ""), ("conversation", "")],
    ],
)
def test_the_subset_holds_on_the_traces_that_ship(kind, fault):
    subset = cases("bursty.csv", "conversations.jsonl.gz", ("unequal-30", "long-prompts-30"), 1, subset=True)
    wanted = [case for case in subset if (case.kind, case.fault) == (kind, fault)]

    judged = [line for line in lines(Found(dict(_by_key(wanted)))) if line.name.split(": ")[1] in ANYWHERE]

    assert judged
    assert [f"{line.name}{line.mode}: {line.measured}, not {line.target}" for line in judged if not line.holds] == []


def _by_key(wanted):
    for case in wanted:
        yield case.key, run_case(case)[1]


def test_a_case_is_run_from_its_description_and_told_against_its_targets():
    base = Case("azure", "bursty.csv", "three-regions", "first", 0.4, "", "", 1)
    run = [replace(base, entry=entry) for entry in ("oracle", "balanced", "least_connections")]

    found = Found({case.key: summary for case, summary in map(run_case, run)})

    names = [line.name for line in lines(found)]
    assert "40%, no fault: p99 to the oracle's" in names
    page = render(found, "bursty.csv", "conversations.jsonl.gz", 1, 3)
    assert "## Targets:" in page
    assert "| first | 40% | none | balanced |" in page


def test_a_matrix_that_was_cut_short_goes_on_where_it_was(tmp_path):
    case = Case("azure", "/somewhere/bursty.csv", "three-regions", "first", 0.4, "", "oracle", 1)
    _, summary = run_case(replace(case, trace="bursty.csv"))
    Kept(tmp_path / "runs.jsonl").add(case, summary)

    again = Kept(tmp_path / "runs.jsonl")

    known = again.get(replace(case, trace="bursty.csv"))
    assert known is not None
    assert known.plain() == summary.plain()
    assert again.get(replace(case, seed=2)) is None


def test_the_page_is_written_also_where_every_run_is_kept(tmp_path, monkeypatch):
    case = Case("azure", "bursty.csv", "three-regions", "first", 0.4, "", "oracle", 1)
    kept, page = tmp_path / "runs.jsonl", tmp_path / "page.md"
    Kept(kept).add(*run_case(case))
    monkeypatch.setattr(matrix, "cases", lambda *words, **more: [case])

    assert matrix.main(["--kept", str(kept), "--write", str(page)]) == 0

    assert "1 of 1 runs" in page.read_text()


def test_the_page_tells_how_far_figures_hang_on_the_seed():
    found = {}
    for kind, seed in (("azure", 1), (f"{SEED_KIND}2", 2)):
        for entry in ("oracle", "balanced"):
            case = Case(kind, "bursty.csv", "three-regions", "first", 0.4, "", entry, seed)
            found[case.key] = run_case(case)[1]

    page = render(Found(found), "bursty.csv", "conversations.jsonl.gz", 1, len(found))

    (row,) = [line for line in page.splitlines() if line.startswith("| first | 40% | balanced |")]
    ratios = [
        found[(kind, "first", 0.4, "", "balanced")].p99 / found[(kind, "first", 0.4, "", "oracle")].p99
        for kind in ("azure", f"{SEED_KIND}2")
    ]
    assert [f"{ratio:.2f} x" for ratio in ratios] == [cell.strip() for cell in row.split("|")[4:6]]
