"""`make bench`: every figure as a line on the terminal and in build/bench.json."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import deciding, wire
from tests.bench.measure import Result

OUT = Path(__file__).parents[2] / "build" / "bench.json"


def machine() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "protobuf", "numpy"))
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {packages}, seed {deciding.SEED}"


def main() -> int:
    console = Console(width=118)
    table = Table(title=machine(), title_justify="left")
    for name in ("what", "value", "unit", "baseline", "ratio", "target", ""):
        table.add_column(name, justify="right" if name in ("value", "ratio") else "left")
    results: list[Result] = []
    for part in (deciding, wire):
        for result in part.run():
            results.append(result)
            console.print(f"{result.name}: {result.value:,.4g} {result.unit}", style="dim")
            verdict = "" if result.met is None else "met" if result.met else "MISSED"
            ratio = "" if result.ratio is None else f"{result.ratio:.3f}"
            value = f"{result.value:,.0f}" if result.value >= 100 else f"{result.value:.3g}"
            table.add_row(result.name, value, result.unit, result.baseline, ratio, result.target, verdict)
    console.print(table)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([result.plain() for result in results], indent=1) + "\n")
    console.print(f"written to {OUT.relative_to(Path.cwd()) if OUT.is_relative_to(Path.cwd()) else OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
