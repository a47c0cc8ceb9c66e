"""The matrix: what it runs, and the page that it writes."""

from __future__ import annotations

from dataclasses import replace

from federation.simulation.matrix import Case, cases, run_case
from federation.simulation.targets import Found, lines, render

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


def test_a_case_is_run_from_its_description_and_told_against_its_targets():
    base = Case("azure", "bursty.csv", "three-regions", "first", 0.4, "", "", 1)
    run = [replace(base, entry=entry) for entry in ("oracle", "balanced", "least_connections")]

    found = Found({case.key: summary for case, summary in map(run_case, run)})

    names = [line.name for line in lines(found)]
    assert "40%, no fault: p99 to the oracle's" in names
    page = render(found, "bursty.csv", "conversations.jsonl.gz", 1, 3)
    assert "## Targets:" in page
    assert "| first | 40% | none | balanced |" in page
