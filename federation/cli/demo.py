"""`fairway demo`: three regions with nine engine stand-ins on this machine, and what becomes of requests."""

from __future__ import annotations

from typing import Annotated

import typer

from federation.cli.wiring import command


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the command to the root."""
    command(app, "demo", panel=panel)(demo)


def demo(
    stay: Annotated[bool, typer.Option("--stay", help="Leave it running until Ctrl-C.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, prompts and answers.")] = 1,
) -> None:
    """Start three regions with nine engine stand-ins on this machine, route, break things, and explain."""
    from federation.simulation.demo import story

    raise typer.Exit(story.run(stay=stay, seed=seed))
