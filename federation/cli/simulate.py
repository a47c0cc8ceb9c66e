"""`fairway simulate`: what each policy would do to time to first token, cost and errors, before production does it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.cli.failure import ExitCode, Failure, usage
from federation.cli.options import Format, output
from federation.cli.output import print_data, print_lines
from federation.cli.wiring import command

if TYPE_CHECKING:
    from federation.simulation.conditions import Condition
    from federation.simulation.routers import Behaviour
    from federation.simulation.run import Outcome, Scenario


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the comparison; `behaviour` is None for oracles."""

    name: str
    behaviour: Behaviour | None


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the command to the root."""
    command(app, "simulate", panel=panel, out=output)(simulate)


def simulate(
    out: Format,
    fleet: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="The fleet: a TOML file, or one that ships with the program.")
    ] = "three-regions",
    trace: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="The trace: CSV or JSON lines, gzip or not, or one that ships.")
    ] = "bursty.csv",
    policy: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|NAME", help="A policy file, preset, baseline or oracle; repeat. Default: balanced."),
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(metavar="FILE|NAME ...", help="What to compare with; repeat, or list several.")
    ] = None,
    others: Annotated[list[str] | None, typer.Argument(metavar="[FILE|NAME]...", hidden=True)] = None,
    load: Annotated[
        float, typer.Option(min=0.0, max=20.0, help="Share of the fleet's capacity, as 0.7; 0 leaves the trace.")
    ] = 0.7,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND[:TARGET][@FROM-TO]", help="gray, killed, cut, ...; shares of the run; repeat."),
    ] = None,
    part: Annotated[str, typer.Option(help="all, or the first or second half of the trace.")] = "all",
    even: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Even out swings between windows of so many seconds.")
    ] = 0.0,
    priorities: Annotated[bool, typer.Option("--priorities", help="Give requests priorities -1, 0 and 1.")] = False,
    bounded: Annotated[
        bool, typer.Option("--bounded", help="Requests ask for their first token within 1 s + 1 ms per prompt token.")
    ] = False,
    undeclared: Annotated[
        bool, typer.Option("--undeclared", help="Declare no profiles: speeds must be learned.")
    ] = False,
    sharing: Annotated[
        bool, typer.Option("--sharing", help="Routers tell each other what they have under way, every 0.1 s.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answer, byte for byte.")] = 1,
    fail_if: Annotated[
        str, typer.Option(metavar="CONDITION", help="End with 7 if it holds, as in 'p99 > 1.3x oracle or errors > 1%'.")
    ] = "",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write plots and tables there, as one file.")
    ] = None,
) -> None:
    """Simulate a fleet in virtual time: routers as they run in production, engines and network as described."""
    from federation.simulation.conditions import ConditionInvalid, parse_condition
    from federation.simulation.faults import parse_fault
    from federation.simulation.fleet import FleetInvalid, load_fleet
    from federation.simulation.page import render
    from federation.simulation.report import as_json
    from federation.simulation.run import Scenario
    from federation.simulation.traces import evened, load_trace, with_priorities
    from federation.simulation.traces import part as part_of

    if html is not None and not html.parent.is_dir():
        # Before minutes of work, and not after them.
        raise usage(f"--html {html}: there is no directory {html.parent}")
    try:
        condition = parse_condition(fail_if) if fail_if else None
        requests = part_of(load_trace(trace), part)
        if even:
            requests = evened(requests, even)
        if priorities:
            requests = with_priorities(requests, seed)
        faults = tuple(parse_fault(each) for each in fault or ())
        scenario = Scenario(load_fleet(fleet), requests, load, faults, seed)
        variant = partial(replace, bounded=bounded, declared=not undeclared, sharing=sharing)
        entries = _entries([*(policy or ["balanced"]), *(compare or []), *(others or [])], condition, variant)
        outcomes = _run(scenario, entries)
    except (FleetInvalid, ConditionInvalid) as error:
        raise usage(str(error)) from error
    if html is not None:
        _write(html, render(scenario, outcomes))
    if out is Format.NAME:
        print_lines(outcome.name for outcome in outcomes)
    elif not print_data(as_json(scenario, outcomes), out):
        _show(outcomes)
    if condition is not None:
        _judge(condition, outcomes)


def _entries(names: list[str], condition: Condition | None, variant: Callable[[Behaviour], Behaviour]) -> list[Entry]:
    """What to run: as named, and whom the condition compares with."""
    from federation.cli.documents import load_mapping
    from federation.cli.records import registry
    from federation.simulation.baselines import BASELINES, behaviour_of
    from federation.simulation.oracles import ORACLES
    from federation.simulation.routers import Behaviour
    from policies.document import compile_policy
    from policies.errors import InvalidPolicy
    from policies.presets import PRESETS

    needed = sorted(condition.entries) if condition is not None else []
    # Plug-ins are looked for once, and only for policies from files: nobody else names them.
    known = cache(registry)
    found: dict[str, Entry] = {}
    for name in [*names, *needed]:
        if name in found:
            continue
        behaviour = behaviour_of(name)
        if name not in ORACLES and behaviour is None:
            path = Path(name)
            if not path.is_file():
                named = ", ".join([*ORACLES, *BASELINES, *sorted(PRESETS)])
                raise usage(f"policy {name!r} is no file, and nobody's name", hint=f"these have names: {named}")
            try:
                behaviour = Behaviour(compile_policy(path.stem, load_mapping(path), registry=known()), known())
            except InvalidPolicy as error:
                raise usage(f"{path}: {error}") from error
            # Of two files of one name, or of a preset's, the later goes by its path.
            name = str(path) if path.stem in (*found, *ORACLES) or behaviour_of(path.stem) else path.stem
        if behaviour is not None:
            behaviour = variant(behaviour)
        found[name] = Entry(name, behaviour)
    return list(found.values())


def _run(scenario: Scenario, entries: list[Entry]) -> list[Outcome]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from federation.simulation.run import prepared, simulate

    requests = prepared(scenario)
    # On stderr, and only where somebody looks: stdout carries the answer.
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        outcomes = []
        for entry in entries:
            task = progress.add_task(entry.name, total=len(requests))

            def moved(number: int, task: object = task, update: Callable[..., None] = progress.update) -> None:
                update(task, completed=number)

            outcomes.append(simulate(scenario, entry.name, entry.behaviour, requests=requests, on_progress=moved))
            progress.update(task, completed=len(requests))
    return outcomes


def _write(html: Path, page: str) -> None:
    try:
        html.write_text(page, encoding="utf-8")
    except OSError as error:
        raise usage(f"--html {html} cannot be written: {error.strerror}") from error


def _show(outcomes: list[Outcome]) -> None:
    from federation.cli.table import Head, show, table_of
    from federation.simulation.report import HEADS, rows

    heads = [Head(title, right=place > 0, spare=max(0, place - 5)) for place, title in enumerate(HEADS)]
    show(table_of(heads, rows(outcomes)))


def _judge(condition: Condition, outcomes: list[Outcome]) -> None:
    """Raises Failure (a check failed) where the condition holds of an entry that it does not compare with."""
    summaries = {outcome.name: outcome.summary for outcome in outcomes}
    broken = [
        f"{name}: {found} ({condition.figures(name, summaries)})"
        for name in summaries
        if name not in condition.entries and (found := condition.broken(name, summaries))
    ]
    if broken:
        raise Failure("the condition of --fail-if holds", ExitCode.CHECK_FAILED, details=broken)
