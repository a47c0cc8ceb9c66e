"""`fairway top`: the fleet on one screen, drawn again every second. Needs no mouse and no colours; `q` ends it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli.failure import Failure
from federation.cli.figures import UNKNOWN, count, duration, enum_word, share, span
from federation.cli.options import Remote, a_duration, remote
from federation.cli.table import Head, cell, console, heading, table_of
from federation.cli.views import deployment_name, worst_circuit
from federation.cli.wiring import command

if TYPE_CHECKING:
    from rich.console import Group

    from federation.cli.connection import Connection

ROUTABLE = frozenset({"healthy", "degraded", "unknown"})
MOST_CIRCUITS = 8
# A row a model needs a label of up to 40 signs; what is left goes to columns of regions.
REGION_WIDTH = 12
SHORTEST_INTERVAL_SECONDS = 0.2


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the command to the root."""
    command(app, "top", panel=panel, remote=remote)(top)


@dataclass(frozen=True, slots=True)
class Frame:
    """What one drawing shows, all read within one interval; `at` is monotonic seconds."""

    at: float
    fleet: Any
    nodes: tuple[Any, ...]
    circuits: tuple[Any, ...]


def top(
    remote: Remote,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", "-i", metavar="DURATION", parser=a_duration, show_default="1s", help="Between two drawings."
        ),
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Draw once and end; so it does off a terminal.")] = False,
) -> None:
    """Watch the fleet live: models by region, health, latencies, load, circuits. q or Ctrl-C ends it."""
    with remote.connect() as to:
        if once or not sys.stdout.isatty():
            from federation.cli.table import show

            show(view(read(to, time.monotonic()), None, console().width))
            return
        _live(to, max(interval, SHORTEST_INTERVAL_SECONDS))


def _live(to: Connection, interval: float) -> None:
    from rich.live import Live

    screen = console()
    try:
        with _keys() as pressed, Live(console=screen, screen=True, auto_refresh=False) as live:
            before: Frame | None = None
            failures = 0
            while True:
                try:
                    frame = read(to, time.monotonic())
                    live.update(view(frame, before, screen.width), refresh=True)
                    before, failures = frame, 0
                except Failure as failure:
                    # A control plane that restarts comes back; one that never answered does not.
                    if before is None:
                        raise
                    failures += 1
                    live.update(cell(f"{failure.message}\nstill trying ({failures}); q ends", "bold red"), refresh=True)
                if pressed(interval) in ("q", "Q"):
                    return
    except KeyboardInterrupt:
        return


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key, and tells which one; "" when none came."""
    import select
    import termios
    import tty

    if not sys.stdin.isatty():

        def sleep(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield sleep
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def wait(seconds: float) -> str:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return sys.stdin.read(1) if ready else ""

    tty.setcbreak(descriptor)
    try:
        yield wait
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def read(to: Connection, now: float) -> Frame:
    """One look at the fleet. Raises Failure."""
    from federation.cli.connection import items
    from federation.v1 import fleet_pb2

    fleet = to.ask(to.fleet.GetFleet, fleet_pb2.GetFleetRequest())
    nodes = tuple(items(to.pages(to.fleet.ListNodeHealth, fleet_pb2.ListNodeHealthRequest(), "nodes"), "nodes"))
    asked = fleet_pb2.ListCircuitsRequest(tripped_only=True)
    circuits = tuple(items(to.pages(to.fleet.ListCircuits, asked, "circuits", limit=100), "circuits"))
    return Frame(now, fleet, nodes, circuits)


def view(frame: Frame, before: Frame | None, width: int) -> Group:
    """The whole screen."""
    from rich.console import Group

    parts: list[Any] = [_title(frame, before), cell("")]
    parts += [_regions(frame), cell(""), _matrix(frame, width)]
    unwell = [node for node in frame.nodes if enum_word(node, "state") not in ("healthy",) or _held(node)]
    if unwell:
        parts += [cell(""), _unwell(unwell[:MOST_CIRCUITS], len(unwell))]
    if frame.circuits:
        parts += [cell(""), _circuits(frame.circuits[:MOST_CIRCUITS], len(frame.circuits))]
    return Group(*parts)


def _title(frame: Frame, before: Frame | None) -> Any:
    fleet = frame.fleet
    rate = ""
    if before is not None and frame.at > before.at:
        made = fleet.decisions_total - before.fleet.decisions_total
        rate = f" · {count(max(made, 0) / (frame.at - before.at))} decisions/s"
    title = heading(f"fairway top · {fleet.home_region_id}")
    title.append(
        f"   revision {fleet.revision} · table {duration(span(fleet, 'table_age'))} old · "
        f"{count(fleet.decisions_total)} decisions{rate}",
        style="dim",
    )
    return title


def _of(frame: Frame, region: str) -> list[Any]:
    return [node for node in frame.nodes if node.region_id == region]


def _regions(frame: Frame) -> Any:
    """One line a region: how many nodes are well, how late they answer, what runs there."""
    heads = [Head("REGION"), Head("NODES", True), Head("WELL", True), Head("AVAILABLE", True), Head("P50", True)]
    heads += [Head("WORST P99", True), Head("TOK/S", True, spare=1), Head("RUN", True, spare=2), Head("WAIT", True)]
    rows: list[list[Any]] = []
    for region in frame.fleet.regions:
        nodes = _of(frame, region.region_id)
        well = region.nodes_by_state.get("healthy", 0)
        middle = sorted(filter(None, (span(node, "latency_p50") for node in nodes)))
        worst = max(filter(None, (span(node, "latency_p99") for node in nodes)), default=None)
        rows.append(
            [
                cell(region.region_id, "bold"),
                str(region.nodes),
                cell(str(well), "green" if well == region.nodes else "yellow" if well else "bold red"),
                f"{region.available_deployments} of {region.deployments}",
                duration(middle[len(middle) // 2] if middle else None),
                duration(worst),
                *(_sum(nodes, field) for field in ("throughput_tokens_per_second", "running_requests", "queue_depth")),
                count(sum(each.in_flight for node in nodes for each in node.deployments)),
            ]
        )
    return table_of([*heads, Head("IN FLIGHT", True)], rows)


def _sum(nodes: Sequence[Any], field: str) -> str:
    """The sum over nodes that told it; unknown where none did."""
    told = [getattr(node, field) for node in nodes if node.HasField(field)]
    return count(sum(told)) if told else UNKNOWN


def _matrix(frame: Frame, width: int) -> Any:
    """Models by regions: deployments that can take a request, of all."""
    regions = [region.region_id for region in frame.fleet.regions]
    room = max(1, (min(width, 200) - 42) // REGION_WIDTH)
    shown = regions[:room]
    counts: dict[tuple[str, str], list[int]] = {}
    for node in frame.nodes:
        for each in node.deployments:
            entry = counts.setdefault((each.model_id, node.region_id), [0, 0])
            entry[1] += 1
            closed = enum_word(each.circuit, "state") in ("closed", "half_open", "")
            entry[0] += closed and not each.ejected and enum_word(node, "state") in ROUTABLE
    rows = []
    for model in frame.fleet.models:
        cells = [_share_cell(counts.get((model.model_id, region))) for region in shown]
        more = f"+{len(regions) - room} regions" if len(regions) > room else ""
        rows.append([cell(model.model_id, "bold"), *cells, cell("PANIC" if model.panic else more)])
    return table_of([Head("MODEL"), *(Head(region, True) for region in shown), Head("")], rows)


def _share_cell(entry: list[int] | None) -> Any:
    if entry is None:
        return cell("·", "dim")
    there, total = entry
    return cell(f"{there}/{total}", "green" if there == total else "yellow" if there else "bold red")


def _held(node: Any) -> bool:
    return worst_circuit(node) not in ("closed", UNKNOWN)


def _unwell(nodes: Sequence[Any], total: int) -> Any:
    rows: list[list[Any]] = [
        [
            cell(f"{node.region_id}/{node.node_id}", "bold"),
            cell(enum_word(node, "state")),
            cell(worst_circuit(node)),
            share(node.error_ratio if node.HasField("error_ratio") else None),
            node.reason or UNKNOWN,
        ]
        for node in nodes
    ]
    if total > len(nodes):
        rows.append([cell(f"and {total - len(nodes)} more: fairway health", "dim")])
    heads = [Head("NOT WELL"), Head("STATE"), Head("CIRCUIT"), Head("ERRORS", True, spare=1), Head("WHY", folds=True)]
    return table_of(heads, rows)


def _circuits(circuits: Sequence[Any], total: int) -> Any:
    rows: list[list[Any]] = [
        [
            cell(deployment_name(entry), "bold"),
            cell(enum_word(entry.circuit, "state")),
            duration(span(entry.circuit, "retry_after")),
            f"{entry.circuit.opens_total}x",
            entry.circuit.reason or UNKNOWN,
        ]
        for entry in circuits
    ]
    if total > len(circuits):
        rows.append([cell(f"and {total - len(circuits)} more: fairway circuits list --tripped", "dim")])
    heads = [Head("CIRCUIT NOT CLOSED"), Head("STATE"), Head("TRIAL IN", True), Head("OPENED", True, spare=1)]
    return table_of([*heads, Head("WHY", folds=True)], rows)
