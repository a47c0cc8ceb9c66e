"""Rows 10 and 25 in virtual time: nodes that come and go, and signals that stand still."""

from __future__ import annotations

from tests.faults.signal_cases import MOST_CHANGES, STEADY, flapping_in_virtual_time, standing_still


def test_a_node_that_comes_and_goes_is_left_out_for_longer_and_longer_and_moves_nobody_else() -> None:
    seen = flapping_in_virtual_time(1, 180.0, 50.0)

    assert not seen.refused
    assert seen.changes <= MOST_CHANGES, seen.published
    assert len(seen.opened) == 3
    assert seen.doubles, seen.opened
    assert seen.unsteady <= STEADY


def test_signals_that_stand_still_prefer_nobody_and_refuse_nobody() -> None:
    found = standing_still(1, 20.0, 50.0)

    assert found.met(5), found
