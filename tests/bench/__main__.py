"""`make bench`: every figure as a line on the terminal, in build/bench.json, and in the tables of the README.

`--only NAME ...` runs some parts; `--tiny` shows in a moment that all of them work; `--publish` writes the tables of
README.md and draws growth.svg, which a full run on a quiet machine should.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import deciding, modes, moving, others, rebuilding, report, scale, wire
from tests.bench.measure import FULL, TINY, Result, Scope

BUILD = Path(__file__).parents[2] / "build"
PARTS: Mapping[str, Callable[[Scope], Iterator[Result]]] = {
    "others": others.run,
    "deciding": deciding.run,
    "rebuild": rebuilding.run,
    "wire": wire.run,
    "telemetry": wire.run_telemetry,
    "modes": modes.run,
    "fresh": moving.run_fresh,
    "storm": moving.run_storm,
    "scale": scale.run,
}


def measured(parts: Sequence[str], scope: Scope, console: Console) -> Iterator[tuple[str, Result]]:
    """Runs the parts, each result with the name of its part; says each as it comes."""
    for part in parts:
        started = time.monotonic()
        for result in PARTS[part](scope):
            console.print(f"{result.name}: {result.value:,.4g} {result.unit}", style="dim", highlight=False)
            yield part, result
        console.print(f"({part} took {time.monotonic() - started:.0f} s)", style="dim", highlight=False)


def shown(results: Sequence[Result]) -> Table:
    table = Table(title=report.machine(), title_justify="left")
    for name in report.COLUMNS:
        table.add_column(name, justify="right" if name in ("value", "ratio") else "left")
    for result in results:
        table.add_row(*report.cells(result))
    return table


def write(folder: Path, found: Sequence[tuple[str, Result]]) -> None:
    """bench.json holds the results alone; bench-run.json says on what they were measured."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = [result.plain() for _, result in found]
    (folder / "bench.json").write_text(json.dumps(plain, indent=1) + "\n")
    run = {"machine": report.facts(), "results": plain}
    (folder / "bench-run.json").write_text(json.dumps(run, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None, folder: Path = BUILD) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures decisions, side by side.")
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS], metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it works")
    parser.add_argument("--publish", action="store_true", help="write the tables of README.md and growth.svg")
    asked = parser.parse_args(arguments)
    console = Console(width=150)
    found = list(measured(asked.only, TINY if asked.tiny else FULL, console))
    console.print(shown([result for _, result in found]))
    write(folder, found)
    console.print(f"written to {folder / 'bench.json'}")
    if asked.publish:
        report.publish(found)
    missed = sum(result.met is False for _, result in found)
    held_to = sum(result.met is not None for _, result in found)
    console.print(f"{held_to - missed} of {held_to} targets met")
    return 0


if __name__ == "__main__":
    sys.exit(main())
