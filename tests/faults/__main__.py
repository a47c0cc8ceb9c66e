"""`make faults`: every fault of `cases.py` at full length, and the table of what was measured, into README.md.

python -m tests.faults                      all of it, about half an hour
python -m tests.faults --only 5 33          some rows
python -m tests.faults --outage-seconds 60  a shorter outage
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import grpc

from catalog.sql import schema
from tests.faults import cases, dst, node_cases, replica_cases, signal_cases, store_cases, upgrade_cases
from tests.faults.scale import FULL, SEED, Measured, Scale
from tests.postgres import Postgres

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- measured: written by `make faults` -->", "<!-- end of measured -->"
# Longer than the longest case; whoever is stuck must not keep the others from their turn.
CASE_SECONDS = 900.0
Case = Callable[[Path], Awaitable[Measured]]


def plan(scale: Scale, long_cut: float, minutes: float, postgres: Postgres) -> dict[str, list[Case]]:
    """What is run, by row."""
    short, long = scale, replace(scale, cut_seconds=long_cut)

    async def simulated(directory: Path) -> Measured:
        started = time.monotonic()
        runs = list(dst.runs(minutes, 1, 600.0))
        spent = time.monotonic() - started
        return Measured(
            "31",
            f"three regions in virtual time, seeds 1 to {len(runs)} of ten virtual minutes",
            f"{sum(run.decisions for run in runs):,} decisions, {sum(run.faults for run in runs):,} faults",
            "0 broken invariants; a seed replays identically",
            f"0 broken in {len(runs)} seeds, {spent:.0f} s; {3600 * len(runs) / spent:.0f} seeds an hour",
            dst.run(1, 600.0) == runs[0],
        )

    return {
        "1": [lambda at: replica_cases.killed(at, scale, postgres)],
        "2": [lambda at: replica_cases.rolling_restart(at, scale, postgres)],
        "3": [
            lambda at: replica_cases.black_hole(at, scale, postgres, hedge=False),
            lambda at: replica_cases.black_hole(at, scale, postgres, hedge=True),
        ],
        "4": [lambda at: cases.partition(at, short, one_way=True)],
        "5": [lambda at: cases.partition(at, short), lambda at: cases.partition(at, long)],
        "6": [lambda at: cases.database_outage(at, scale, postgres)],
        "7": [lambda at: cases.database_stuck(at, scale, postgres)],
        "9": [
            lambda at: store_cases.disk_full(at, scale),
            lambda at: store_cases.read_only(at, scale, postgres),
        ],
        "10": [lambda at: signal_cases.flapping(at, scale)],
        "13": [lambda at: cases.correlated_failure(at, scale)],
        "14": [lambda at: node_cases.all_open(at, scale, postgres)],
        "15": [lambda at: replica_cases.herd(at, scale, postgres)],
        "25": [lambda at: signal_cases.stale(at, scale)],
        "28": [
            lambda at: store_cases.migrators(at, scale, postgres),
            lambda at: upgrade_cases.side_by_side(at, scale, postgres),
        ],
        "29": [lambda at: cases.drain_and_back(at, scale)],
        "31": [simulated],
        "33": [lambda at: cases.watch_resume(at, scale)],
        "abroad": [lambda at: cases.seen_abroad(at, scale)],
    }


def table(found: list[Measured]) -> str:
    """The rows as Markdown, with what they were measured on."""
    lines = [
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the "
        f"end, Python {platform.python_version()}; one run each, seed {SEED} where a case draws.",
        "",
        "| Row | Fault | Load | Figure to reach | Measured | Met |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {each.row} | {each.fault} | {each.load} | {each.figure} | {each.measured.replace('|', '/')} | "
        f"{'yes' if each.met else '**no**'} |"
        for each in found
    ]
    return "\n".join(lines)


def written(text: str, found: list[Measured]) -> str:
    """A page with what was measured now."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return "\n".join([head + BEGIN, "", table(found), "", END]) + tail


def appended(text: str, found: list[Measured]) -> str:
    """A page with a further table, of a run of some rows; their lines of before go."""
    head, _, rest = text.partition(BEGIN)
    before, _, tail = rest.partition(END)
    again = {f"| {each.row} |" for each in found}
    kept = [line for line in before.strip().splitlines() if not any(line.startswith(row) for row in again)]
    return "\n".join([head + BEGIN, "", *kept, "", table(found), "", END]) + tail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="ROW", help="only these rows, as a table of their own")
    parser.add_argument("--cut-seconds", type=float, default=FULL.cut_seconds, help="the short cut")
    parser.add_argument("--long-cut-seconds", type=float, default=300.0)
    parser.add_argument("--outage-seconds", type=float, default=FULL.outage_seconds)
    parser.add_argument("--rate", type=float, default=FULL.rate, help="Route calls a second and region")
    parser.add_argument("--crew-rate", type=float, default=FULL.crew_rate, help="Route calls a second at replicas")
    parser.add_argument("--dst-minutes", type=float, default=1.0, help="of real time, for row 31")
    arguments = parser.parse_args()
    scale = replace(
        FULL,
        cut_seconds=arguments.cut_seconds,
        outage_seconds=arguments.outage_seconds,
        rate=arguments.rate,
        crew_rate=arguments.crew_rate,
    )
    postgres = Postgres(schema.upgrade)
    try:
        rows = plan(scale, arguments.long_cut_seconds, arguments.dst_minutes, postgres)
        chosen = [(row, case) for row, of in rows.items() for case in of if not arguments.only or row in arguments.only]
        page = README.read_text(encoding="utf-8")
        merge = appended if arguments.only else written

        def keep(found: list[Measured]) -> None:
            README.write_text(merge(page, found), encoding="utf-8")

        print(f"load {os.getloadavg()[0]:.1f} at the begin; seed {SEED} where a case draws", flush=True)
        found = asyncio.run(measured(chosen, postgres, keep))
    finally:
        postgres.close()
    return 0 if all(each.met for each in found) else 1


async def measured(
    chosen: list[tuple[str, Case]], postgres: Postgres, keep: Callable[[list[Measured]], object]
) -> list[Measured]:
    """One after the other, on one event loop: gRPC has one completion queue a process. What is known is kept after
    each, and a case that ends in an error, or not at all, is a line of its own."""
    found: list[Measured] = []
    for row, case in chosen:
        postgres.start()
        started = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="fairway-faults-") as directory:
                async with asyncio.timeout(CASE_SECONDS):
                    each = await case(Path(directory))
        except (AssertionError, OSError, grpc.aio.AioRpcError, ExceptionGroup) as error:
            traceback.print_exception(error)
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            each = Measured(row, (case.__doc__ or "a case").rstrip("."), "", "it comes to its end", what, False)
        spent = time.monotonic() - started
        verdict = "met" if each.met else "NOT MET"
        print(f"{each.row}: {each.fault}: {each.measured}: {verdict} ({spent:.0f} s)", flush=True)
        found.append(each)
        keep(found)
    return found


if __name__ == "__main__":
    sys.exit(main())
