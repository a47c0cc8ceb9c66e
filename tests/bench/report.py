"""What becomes of the results: cells of tables, the tables of README.md, and the growth curves."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.bench.measure import SEED, Result

HERE = Path(__file__).parent
COLUMNS = ("what", "value", "unit", "baseline", "ratio", "target", "")
PACKAGES = ("grpcio", "protobuf", "numpy", "SQLAlchemy", "uvloop", "litellm", "intelligent-routing")


def facts() -> Mapping[str, str | int]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count() or 0,
        "processor": _processor(),
        "python": platform.python_version(),
        "system": platform.system(),
        "seed": SEED,
        **{name: _version(name) for name in PACKAGES},
    }


def machine() -> str:
    """The same in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts().items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def cells(result: Result) -> tuple[str, ...]:
    """A result as the cells of a row."""
    value = f"{result.value:,.0f}" if result.value >= 100 else f"{result.value:.3g}"
    ratio = "" if result.ratio is None else f"{result.ratio:.3f}"
    verdict = "" if result.met is None else "met" if result.met else "MISSED"
    return result.name, value, result.unit, result.baseline, ratio, result.target, verdict


def publish(found: Sequence[tuple[str, Result]]) -> None:
    """Writes the tables of the parts that ran into README.md, and draws the curves where all of them were measured."""
    path = HERE / "README.md"
    text = path.read_text(encoding="utf-8")
    for part in dict.fromkeys(part for part, _ in found):
        text = replaced(text, part, [result for of, result in found if of == part])
    path.write_text(text, encoding="utf-8")
    results = [result for _, result in found]
    if curves(results).keys() == CURVES.keys():
        draw(results, HERE / "growth.svg")


def replaced(text: str, part: str, results: Sequence[Result]) -> str:
    """A text with the table between the marks of a part written anew; the same where it has no such marks."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(cells(result) for result in results)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    marks = re.compile(rf"(<!-- {part} -->\n).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda found: f"{found[1]}{machine()}\n\n{table}\n{found[2]}", text)


# Curves by the words around the size in the names of results.
CURVES = {
    "predicted, 70 % load": r"predicted, ([\d,]+) deployments at 70 % load",
    "power_of_two": r"power_of_two, ([\d,]+) deployments, target and 3 alternatives",
    "LiteLLM simple-shuffle": r"LiteLLM router simple-shuffle, a pick of ([\d,]+)",
    "LiteLLM latency-based-routing": r"LiteLLM router latency-based-routing, a pick of ([\d,]+)",
}


def curves(results: Sequence[Result]) -> Mapping[str, list[tuple[int, float]]]:
    """Microseconds a decision by number of deployments."""
    found: dict[str, list[tuple[int, float]]] = {}
    for name, pattern in CURVES.items():
        for result in results:
            named = re.fullmatch(pattern, result.name)
            if named is not None:
                found.setdefault(name, []).append((int(named[1].replace(",", "")), 1e6 / result.value))
    return found


def draw(results: Sequence[Result], path: Path) -> None:
    """Draws the growth curves; needs matplotlib, which the extra `bench` brings."""
    import matplotlib

    matplotlib.use("svg")
    # Else each run writes other ids for the same picture.
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, points in curves(results).items():
        sizes, took = zip(*sorted(points), strict=True)
        axes.plot(sizes, took, marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="deployments", ylabel="microseconds a decision")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
