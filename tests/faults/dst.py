"""Three regions of two replicas each in virtual time: the real peering, siblings, monitors, leases, probers, imports,
tables and routers over a real change log, over a network and clocks that fail as a seed says.

    python -m tests.faults.dst --seed 17            one run, told
    python -m tests.faults.dst --minutes 60         as many runs of ten virtual minutes as fit, seeds from 1 on

What must hold whatever happens stands in `dst_rules.py`: a region is told only by its owner; nobody is sent to a region
that was not heard for a lease, or against a hard rule; revisions only grow; a node's lease is not ended by a replica
while another hears it; half-open circuits are tried by one replica at a time; somebody probes each node; sums that came
late are not used. And in the end, when the faults are over, everybody shows exactly what its owner has, each node is
probed by one, and the replicas of a region agree on circuits, ejections and sums. The same seed makes the same run, to
the last bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.dst_rules import Broken
from tests.faults.dst_world import World


@dataclass(frozen=True, slots=True)
class Run:
    """What one seed came to."""

    seed: int
    fingerprint: str
    decisions: int
    faults: int


def run(seed: int, seconds: float = 6.0, calm: float = 10.0) -> Run:
    """One world. Broken, with the seed and the moment."""
    world = World(seed)
    try:
        world.run(seconds, calm)
    except (AssertionError, LookupError, TypeError, ValueError) as e:
        # A defect that raises is as broken as an invariant.
        raise Broken(f"seed {seed}, {seconds:g} s, at {world.now:.2f} s: {e!r}") from e
    decisions = sum(each.decisions for each in world.replicas.values())
    return Run(seed, world.fingerprint(), decisions, world.faults)


def runs(minutes: float, first: int, seconds: float) -> Iterator[Run]:
    """As many as begin within so many minutes."""
    end = time.monotonic() + minutes * 60.0
    seed = first
    while time.monotonic() < end:
        yield run(seed, seconds)
        seed += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="one run, twice: it must be the same")
    parser.add_argument("--first", type=int, default=1, help="the first seed of many")
    parser.add_argument("--minutes", type=float, default=60.0, help="for how long new runs begin")
    parser.add_argument("--seconds", type=float, default=600.0, help="virtual seconds with faults, of each run")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        one, two = run(arguments.seed, arguments.seconds), run(arguments.seed, arguments.seconds)
        print(one, "the same again" if one == two else f"NOT the same again: {two}")
        raise SystemExit(one != two)
    started, done = time.monotonic(), []
    for each in runs(arguments.minutes, arguments.first, arguments.seconds):
        done.append(each)
        if len(done) % 10 == 0:
            print(f"{len(done)} seeds in {time.monotonic() - started:.0f} s", flush=True)
    print(
        f"{len(done)} seeds of {arguments.seconds:g} virtual seconds in {time.monotonic() - started:.0f} s, from "
        f"{arguments.first} on: {sum(each.faults for each in done)} faults, {sum(each.decisions for each in done)} "
        "decisions, 0 broken invariants"
    )


if __name__ == "__main__":
    main()
