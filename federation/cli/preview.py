"""`fairway preview`: what another policy, other prices or the loss of a region would have changed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli.failure import ExitCode, Failure, usage
from federation.cli.figures import UNKNOWN, duration, money, optional, share, span
from federation.cli.options import Format, output
from federation.cli.output import answer
from federation.cli.table import Column, cell, heading, rows_of, show
from federation.cli.wiring import command

if TYPE_CHECKING:
    from federation.routing.preview import TokenPrice
    from policies.policy import Policy
    from policies.registry import Registry


def show_preview(policy_id: str, told: Any) -> None:
    """Sums before and after, the regions' shares, and the first decisions that would go elsewhere."""
    if not told.decisions:
        show(cell("no recent decision to make again: route something first"))
        return
    sums = [
        ("moved", "", f"{told.moved} of {told.decisions} ({share(told.moved / told.decisions)})"),
        ("refused", "", str(told.refused)),
        ("broken bounds", "", str(told.violations)),
        ("mean cost", money(optional(told, "mean_cost_usd_before")), money(optional(told, "mean_cost_usd_after"))),
        (
            "mean first token",
            duration(span(told, "mean_time_to_first_token_before")),
            duration(span(told, "mean_time_to_first_token_after")),
        ),
    ]
    for region in sorted({*told.region_share_before, *told.region_share_after}):
        before, after = told.region_share_before.get(region, 0.0), told.region_share_after.get(region, 0.0)
        sums.append((f"share of {region}", share(before), share(after)))
    columns = (
        Column("", lambda row: row[0]),
        Column("BEFORE", lambda row: row[1], right=True),
        Column("AFTER", lambda row: row[2], right=True),
    )
    show(heading(f"policy {policy_id} on {told.decisions} recent decisions"), cell(""), rows_of(columns, sums))
    if told.changes:
        changes = (
            Column("DECISION", lambda each: each.decision_id),
            Column("MODEL", lambda each: each.model_id),
            Column("BEFORE", lambda each: each.before.deployment if each.HasField("before") else UNKNOWN),
            Column("AFTER", lambda each: each.after.deployment if each.HasField("after") else each.reason or UNKNOWN),
        )
        show(cell(""), rows_of(changes, told.changes))
    if told.violations:
        show(cell(""), cell("a target after the change breaks a bound: this is a defect, please report it", "bold red"))


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the command to the root."""
    command(app, "preview", panel=panel, out=output)(preview)


def preview(
    out: Format,
    log: Annotated[Path, typer.Option(metavar="FILE", help="A decision log, JSON lines.")],
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The policy to try. Default: each decision's own.")
    ] = None,
    without_region: Annotated[
        list[str] | None, typer.Option(help="As if this region were gone; repeat for more.")
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV with the columns deployment (a glob), input, output, cached: USD per million tokens.",
        ),
    ] = None,
    fail_if: Annotated[
        str, typer.Option(metavar="CONDITION", help="Exit code 7 where it holds: 'cost > +5% or violations > 0'.")
    ] = "",
) -> None:
    """Make the decisions of a log again under another policy, other prices or without a region. Asks no server."""
    from federation.api.convert.previews import preview_to
    from federation.cli.conditions import failing
    from federation.cli.records import UNREADABLE, records, registry, require_plugins, unreadable
    from federation.routing.preview import Preview, WhatIf, decide_again

    known = registry()
    what_if = WhatIf(_policy(policy, known), frozenset(without_region or ()), _prices(prices))
    found = Preview()
    try:
        failing(fail_if, found.figures()) if fail_if else ""
    except ValueError as error:
        raise usage(f"--fail-if: {error}") from error
    for number, record in records(log):
        require_plugins(log, number, record, known)
        try:
            found.add(decide_again(record, what_if, known))
        except UNREADABLE as error:
            raise unreadable(log, number, error) from error
    told = preview_to(found)
    name = policy.stem if policy is not None else "as recorded"
    answer(told, out, names=[each.decision_id for each in told.changes], people=lambda wide: show_preview(name, told))
    holds = failing(fail_if, found.figures()) if fail_if else ""
    if holds:
        raise Failure(f"{holds} holds", ExitCode.CHECK_FAILED)


def _policy(file: Path | None, known: Registry) -> Policy | None:
    from federation.cli.documents import load_mapping
    from policies.document import compile_policy
    from policies.errors import InvalidPolicy

    if file is None:
        return None
    try:
        return compile_policy(file.stem, load_mapping(file), registry=known)
    except InvalidPolicy as error:
        told = [f"{path}: {message}" for path, message in error.violations]
        raise Failure(f"{file} is no policy that can be used", ExitCode.USAGE, details=told) from error


def _prices(file: Path | None) -> tuple[TokenPrice, ...]:
    """A price table; an empty cell leaves that price as it was."""
    from federation.routing.preview import TokenPrice

    if file is None:
        return ()
    found = []
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for number, row in enumerate(csv.DictReader(lines), start=2):
                try:
                    values = [float(row[name]) if row[name] else None for name in ("input", "output", "cached")]
                    found.append(TokenPrice(row["deployment"], *values))
                except (KeyError, TypeError, ValueError) as error:
                    raise usage(
                        f"{file} line {number} is no price: {error}",
                        hint="its first line must be deployment,input,output,cached; prices are numbers or empty",
                    ) from error
    except OSError as error:
        raise usage(f"cannot read {file}: {error.strerror}") from error
    return tuple(found)
