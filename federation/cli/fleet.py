"""`fairway fleet` and `fairway health`: what there is, and how it does."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from federation.cli import completion
from federation.cli.figures import count, duration, enum_word, span
from federation.cli.options import Format, Limit, Remote, output, remote
from federation.cli.output import answer, listing
from federation.cli.table import Column, Head, bar, cell, heading, rows_of, show, table_of
from federation.cli.wiring import command

GRADES = ("healthy", "degraded", "unknown", "unhealthy")
# Below these shares of available deployments a line turns red, or yellow.
FEW, LESS = 0.5, 1.0
# A region that is away takes hundreds of nodes with it, all for one reason.
MOST_REASONS = 20


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the commands to the root."""
    command(app, "fleet", panel=panel, remote=remote, out=output)(fleet)
    command(app, "health", panel=panel, remote=remote, out=output)(health)


def fleet(remote: Remote, out: Format) -> None:
    """Sum up the fleet: regions and models, and what of them can take requests now."""
    from federation.v1.fleet_pb2 import GetFleetRequest

    with remote.connect() as to:
        told = to.ask(to.fleet.GetFleet, GetFleetRequest())
    names = [region.region_id for region in told.regions]
    answer(told, out, names=names, people=lambda wide: show_fleet(told, wide=wide))


def show_fleet(told: Any, *, wide: bool = False) -> None:
    """The fleet's tables: regions, then models, with a bar of what is available; widely, the ways to regions too."""
    show(
        heading(f"fleet seen from {told.home_region_id}"),
        cell(
            f"revision {told.revision} · table {duration(span(told, 'table_age'))} old · "
            f"{count(told.decisions_total)} decisions · server {told.version or 'of unknown version'}",
            "dim",
        ),
        cell(""),
    )
    show(regions_table(told, wide=wide), cell(""), models_table(told), wide=wide)


def regions_table(told: Any, *, wide: bool = False) -> Any:
    """One line a region: nodes by grade, and the deployments that can take a request now."""
    heads = [Head("REGION"), Head("NODES", True), *(Head(grade.upper(), True) for grade in GRADES)]
    heads += [Head("OTHER", True), Head("AVAILABLE", True), Head("", spare=1)]
    heads += [Head("ROUND TRIP", True), Head("")] if wide else []
    heads.append(Head(""))
    rows = []
    for region in told.regions:
        by_grade = [region.nodes_by_state.get(grade, 0) for grade in GRADES]
        other = region.nodes - sum(by_grade)
        mark = "imported" if region.imported else "home" if region.region_id == told.home_region_id else ""
        grades = [
            cell(str(number) if number else "-", grade) for grade, number in zip(_styles(), by_grade, strict=True)
        ]
        others = cell(str(other) if other > 0 else "-", "dim")
        name = cell(region.region_id, "bold")
        way = (
            [duration(span(region, "round_trip")), cell(enum_word(region, "round_trip_source"), "dim")] if wide else []
        )
        rows.append([name, str(region.nodes), *grades, others, *_available(region), *way, cell(mark, "dim")])
    return table_of(heads, rows)


def _styles() -> list[str]:
    from federation.cli.table import STYLES

    return [STYLES[grade] for grade in GRADES]


def models_table(told: Any) -> Any:
    """One line a model."""
    rows = [
        [cell(model.model_id, "bold"), *_available(model), cell("PANIC" if model.panic else "")]
        for model in told.models
    ]
    return table_of([Head("MODEL"), Head("AVAILABLE", True), Head("", spare=1), Head("")], rows)


def _available(summary: Any) -> tuple[Any, Any]:
    """ "6 of 8" and its bar."""
    total, there = summary.deployments, summary.available_deployments
    part = there / total if total else 0.0
    style = "red" if part < FEW else "yellow" if part < LESS else "green"
    return cell(f"{there} of {total}", style if total else "dim"), cell(bar(part), style)


def health(
    remote: Remote,
    out: Format,
    region: Annotated[str, typer.Option(help="Only this region.", autocompletion=completion.regions)] = "",
    limit: Limit = 0,
) -> None:
    """Show each node's health: grade, latencies, load, errors, circuit, and how long ago it was seen."""
    from federation.cli.views import HEALTH, node_name
    from federation.v1.fleet_pb2 import ListNodeHealthRequest

    with remote.connect() as to:
        pages = to.pages(to.fleet.ListNodeHealth, ListNodeHealthRequest(region_id=region), "nodes", limit)
        if out not in (Format.TABLE, Format.WIDE):
            listing(pages, "nodes", out, HEALTH, node_name)
            return
        nodes = [node for page in pages for node in page.nodes]
    show_health(nodes, wide=out is Format.WIDE)


def show_health(nodes: list[Any], *, wide: bool) -> None:
    """The table, and below it why each node that is not well has its grade."""
    from federation.cli.views import HEALTH, node_name

    show(rows_of(HEALTH, nodes, wide=wide), wide=wide)
    unwell = [node for node in nodes if node.reason and enum_word(node, "state") != "healthy"]
    unwell_circuits = [
        (f"{node_name(node)}/{each.model_id}", each.circuit)
        for node in nodes
        for each in node.deployments
        if each.circuit.reason and enum_word(each.circuit, "state") != "closed"
    ]
    reasons = [(node_name(node), enum_word(node, "state"), node.reason) for node in unwell]
    reasons += [(name, enum_word(circuit, "state"), circuit.reason) for name, circuit in unwell_circuits]
    if reasons:
        columns = (
            Column("WHY", lambda row: row[0]),
            Column("", lambda row: row[1]),
            Column("", lambda row: row[2], folds=True),
        )
        shown = reasons if wide else reasons[:MOST_REASONS]
        show(cell(""), rows_of(columns, shown), wide=wide)
        if len(shown) < len(reasons):
            show(cell(f"and {len(reasons) - len(shown)} more: -o wide", "dim"))
