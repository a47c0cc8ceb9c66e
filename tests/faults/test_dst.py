"""The short form of the simulation in `dst.py`: 300 seeds. `make dst` makes as many long runs as fit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from federation.peering.imports import Imports
from tests.faults import dst

SEEDS = 300
BATCH = 50


@pytest.mark.parametrize("first", range(1, SEEDS + 1, BATCH))
def test_regions_stay_true_to_their_owners_whatever_fails(first: int) -> None:
    found = [dst.run(seed) for seed in range(first, first + BATCH)]

    print(f"seeds {first} to {first + BATCH - 1}: {sum(each.faults for each in found)} faults")
    assert sum(each.decisions for each in found) > BATCH * 10


def test_a_seed_makes_the_same_run_in_any_process() -> None:
    def told(hash_seed: str) -> str:
        program = "from tests.faults import dst; print(dst.run(8).fingerprint)"
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout.strip()

    assert told("1") == told("2") == dst.run(8).fingerprint


def test_a_lease_that_does_not_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Imports, "tick", lambda self, now: ())

    def several() -> None:
        for seed in range(1, 40):
            dst.run(seed, 15.0)

    with pytest.raises(dst.Broken, match=r"^seed \d+, .* not heard for"):
        several()
