"""The matrix of faults, loads and policies that the default policy is held to, and the page that tells how it did.

    python -m federation.simulation.matrix [--data DIR] [--subset] [--faults NAMES] [--seed N] [--write FILE]
        [--kept FILE]

`--data` names a folder with the public traces (`trace_azure_llm_2023.csv`, `trace_mooncake_conversation.jsonl.gz`);
without it, the traces that ship stand in.  Constants are chosen on the first half of a trace and reported on both.
`--kept` names a file of runs: those in it are not run again, and each that ends is added, so that a matrix that was cut
short goes on where it was.  It holds for one state of the code.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from federation.simulation.baselines import BASELINES, behaviour_of
from federation.simulation.faults import KINDS, Fault
from federation.simulation.fleet import Fleet, load_fleet
from federation.simulation.metrics import Summary
from federation.simulation.oracles import ORACLES
from federation.simulation.run import Scenario, prepared, simulate
from federation.simulation.targets import SEED_KIND, Found, render
from federation.simulation.traces import TraceRequest, evened, load_trace, part, with_priorities

AZURE, CONVERSATION = "trace_azure_llm_2023.csv", "trace_mooncake_conversation.jsonl.gz"
# The minute swings of a trace, evened out.
EVEN_SECONDS = 60.0
HALVES = ("first", "second")
CHOSEN = ("oracle", "balanced", "least_connections")
# Beside the seed that is asked for, the rows without faults are run with so many after it.
MORE_SEEDS = 2
# Variants of a policy that a case may name beside the policies themselves.
UNDECLARED, BOUNDED, SHARING = "+undeclared", "+bounded", "+sharing"


@dataclass(frozen=True, slots=True)
class Case:
    """One run: what is met, and who meets it."""

    kind: str
    trace: str
    fleet: str
    half: str
    load: float
    fault: str
    entry: str
    seed: int
    even: bool = False
    priorities: bool = False
    unmeasured: float = 0.0

    @property
    def key(self) -> tuple[str, str, float, str, str]:
        return (self.kind, self.half, self.load, self.fault, self.entry)


def cases(
    azure: str,
    conversation: str,
    fleets: tuple[str, str],
    seed: int,
    *,
    subset: bool,
    only: Sequence[str] = tuple(KINDS),
) -> list[Case]:
    """Everything that is run, what tells most first; of the faults those that are named."""
    fleet, long_fleet = fleets
    found: list[Case] = []
    halves = HALVES[:1] if subset else HALVES
    known = ("gray", "killed", "cut") if subset else tuple(KINDS)
    faults = [fault for fault in known if fault in only]
    both = ("oracle", "balanced", "balanced" + SHARING)

    def add(kind: str, entries: Iterable[str], half: str, load: float, fault: str = "", **more: object) -> None:
        base = Case(kind, azure, fleet, half, load, fault, "", seed)
        found.extend(replace(base, **{"entry": entry, **more}) for entry in entries)  # type: ignore[arg-type]

    loads = (0.7,) if subset else (0.4, 0.7)
    for half in halves:
        for load in loads:
            add("azure", (*CHOSEN, *both[2:]), half, load)
        add("even", both, half, 0.9, even=True)
        interactive = "interactive" + BOUNDED
        overload = ("oracle-giving-up", interactive, interactive + SHARING, "balanced" + BOUNDED, "balanced")
        add("overload", overload, half, 1.2, priorities=True)
        add("cost", ("oracle-cheapest", "cost_first"), half, 0.4)
        add("conversation", (*CHOSEN, "balanced" + SHARING), half, 0.7, trace=conversation, fleet=long_fleet)
    # Learned in the first half, measured in the second.
    add("profiles", ("balanced", "balanced" + UNDECLARED), "all", 0.7, unmeasured=0.5)
    for fault in faults:
        for load in reversed(loads):
            for half in halves:
                add("azure", (*CHOSEN, *both[2:]), half, load, fault)
    if not subset:
        for other in range(seed + 1, seed + 1 + MORE_SEEDS):
            for half in halves:
                for load in loads:
                    add(f"{SEED_KIND}{other}", both, half, load, seed=other)
        for half in halves:
            add("azure", [name for name in BASELINES if name not in CHOSEN], half, 0.7)
    return found


@cache
def _trace(path: str) -> tuple[TraceRequest, ...]:
    return load_trace(path)


@cache
def _fleet(name: str) -> Fleet:
    return load_fleet(name)


@cache
def _requests(trace: str, half: str, fleet: str, load: float, even: bool) -> tuple[TraceRequest, ...]:
    """A part of a trace at a share of a fleet's capacity."""
    requests = part(_trace(trace), half)
    if even:
        requests = evened(requests, EVEN_SECONDS)
    return prepared(Scenario(_fleet(fleet), requests, load))


def run_case(case: Case) -> tuple[Case, Summary]:
    """One case, from nothing but its own description."""
    requests = _requests(case.trace, case.half, case.fleet, case.load, case.even)
    if case.priorities:
        requests = with_priorities(requests, case.seed)
    faults = (Fault(case.fault),) if case.fault else ()
    scenario = Scenario(_fleet(case.fleet), requests, 0.0, faults, case.seed, case.unmeasured)
    name, *variants = case.entry.split("+")
    behaviour = None if name in ORACLES else behaviour_of(name)
    if behaviour is not None:
        behaviour = replace(
            behaviour,
            declared=UNDECLARED[1:] not in variants,
            bounded=behaviour.bounded or BOUNDED[1:] in variants,
            sharing=behaviour.sharing or SHARING[1:] in variants,
        )
    return case, simulate(scenario, name, behaviour).summary


def run_all(wanted: Sequence[Case], workers: int) -> Iterator[tuple[Case, Summary]]:
    """All cases on several processes, told in their order."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done, (case, summary) in enumerate(pool.imap(run_case, wanted), 1):
            yield case, summary
            told = f"{done}/{len(wanted)} {case.kind} {case.half} {case.load:g} {case.fault or 'no fault'} {case.entry}"
            sys.stderr.write(f"{told}: p99 {summary.p99:.2f} s, good {summary.good:.1%}\n")


class Kept:
    """Runs in a file, one JSON value a line."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else []
        self._known = {told["case"]: Summary.of(told["summary"]) for told in map(json.loads, lines)}

    def get(self, case: Case) -> Summary | None:
        return self._known.get(_told(case))

    def add(self, case: Case, summary: Summary) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"case": _told(case), "summary": summary.plain()}) + "\n")


def _told(case: Case) -> str:
    """A case, wherever its trace lies."""
    return json.dumps(asdict(replace(case, trace=Path(case.trace).name)), sort_keys=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the matrix and writes its page, which says which targets are missed."""
    parser = argparse.ArgumentParser(description="Runs the matrix of faults, loads and policies.")
    parser.add_argument("--data", type=Path, help="folder with the public traces")
    parser.add_argument("--subset", action="store_true", help="the part of it that the tests run")
    parser.add_argument("--faults", default=",".join(KINDS), help="of these alone, with commas; empty: none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", type=Path, help="file for the page of results")
    parser.add_argument("--kept", type=Path, help="file of runs that need not be run again, and for those that end")
    told = parser.parse_args(arguments)
    azure, conversation, fleets = "bursty.csv", "conversations.jsonl.gz", ("unequal-30", "long-prompts-30")
    if told.data is not None and (told.data / AZURE).is_file():
        azure, conversation = str(told.data / AZURE), str(told.data / CONVERSATION)
    wanted = cases(azure, conversation, fleets, told.seed, subset=told.subset, only=told.faults.split(","))
    begun = time.monotonic()
    kept = Kept(told.kept)
    found: dict[tuple[str, str, float, str, str], Summary] = {}
    for case in wanted:
        known = kept.get(case)
        if known is not None:
            found[case.key] = known

    def page() -> str:
        ordered = {case.key: found[case.key] for case in wanted if case.key in found}
        return render(Found(ordered), Path(azure).name, Path(conversation).name, told.seed, len(wanted))

    for case, summary in run_all([case for case in wanted if case.key not in found], told.workers):
        found[case.key] = summary
        kept.add(case, summary)
        if told.write is not None:
            # After each run, so that one that is cut short leaves what it found.
            told.write.write_text(page(), encoding="utf-8")
    minutes = (time.monotonic() - begun) / 60
    if told.write is None:
        sys.stdout.write(page())
    else:
        told.write.write_text(page(), encoding="utf-8")
    sys.stderr.write(f"{len(wanted)} runs in {minutes:.1f} minutes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
