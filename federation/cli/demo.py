"""`fairway demo`: three regions with engine stand-ins on this machine, and what becomes of requests."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from federation.cli.failure import ExitCode, Failure
from federation.cli.wiring import command


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the command to the root."""
    command(app, "demo", panel=panel)(demo)


def demo(
    full: Annotated[
        bool,
        typer.Option("--full", help="A control plane for each region, of two replicas on a PostgreSQL of its own."),
    ] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Leave it running until Ctrl-C.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, prompts and answers.")] = 1,
) -> None:
    """Start three regions with nine engine stand-ins on this machine, route, break things, and explain."""
    # It starts processes while it makes calls, and none of them goes on with those.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from federation.simulation.demo import story
    from federation.simulation.demo.full.story import missing

    if full and (lacking := missing()):
        raise Failure(lacking, ExitCode.USAGE)
    raise typer.Exit(story.run(full=full, stay=stay, seed=seed))
