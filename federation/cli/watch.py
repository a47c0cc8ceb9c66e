"""`fairway watch`: changes as they happen, one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer

from federation.cli.failure import usage
from federation.cli.options import Format, Remote, output, remote
from federation.cli.output import plain, print_json_line, print_lines
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="Changes as they happen, one JSON object a line; Ctrl-C ends it.")

Count = Annotated[int, typer.Option("--count", min=0, metavar="N", help="End after so many lines; 0: never.")]


@command(app, "catalog", remote=remote, out=output)
def watch_catalog(
    remote: Remote,
    out: Format,
    after_revision: Annotated[
        int, typer.Option(min=0, help="Go on after this revision; 0: a snapshot first, then the changes.")
    ] = 0,
    count: Count = 0,
) -> None:
    """Follow regions, models and nodes: a snapshot, then every change."""
    from federation.v1.catalog_pb2 import WatchCatalogRequest

    with remote.connect() as to:
        _follow(to.listen(to.catalog.WatchCatalog, WatchCatalogRequest(after_revision=after_revision)), out, count)


@command(app, "fleet", remote=remote, out=output)
def watch_fleet(remote: Remote, out: Format, count: Count = 0) -> None:
    """Follow health: every node, then each whose grade, circuits or ejections change."""
    from federation.v1.fleet_pb2 import WatchFleetRequest

    with remote.connect() as to:
        _follow(to.listen(to.fleet.WatchFleet, WatchFleetRequest()), out, count)


def _follow(events: Iterator[Any], out: Format, count: int) -> None:
    """Prints events until the stream, the count or somebody ends it."""
    if out in (Format.YAML, Format.WIDE):
        raise usage(f"a watch prints lines: -o {out} cannot; use jsonl or name")
    try:
        for event in islice(events, count) if count else events:
            if out is Format.NAME:
                print_lines(_names(event))
            else:
                print_json_line(plain(event))
    except KeyboardInterrupt:
        # This is how a watch ends.
        return


def _names(event: Any) -> list[str]:
    """What an event is about."""
    if event.DESCRIPTOR.name == "WatchFleetResponse":
        return [f"{node.region_id}/{node.node_id}" for node in event.nodes] + list(event.removed)
    return [event.change.name] if event.HasField("change") else []
