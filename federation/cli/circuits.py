"""`fairway circuits`: which deployments are held back because calls to them failed."""

from __future__ import annotations

from typing import Annotated

import typer

from federation.cli import completion
from federation.cli.failure import usage
from federation.cli.options import Format, Limit, Remote, output, remote
from federation.cli.output import answer, listing, print_lines
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="Circuits: deployments that are held back because calls failed.")


@command(app, "list", remote=remote, out=output)
def list_circuits(
    remote: Remote,
    out: Format,
    tripped: Annotated[bool, typer.Option("--tripped", help="Only those that are not closed.")] = False,
    limit: Limit = 0,
) -> None:
    """List circuits in the order of their deployments."""
    from federation.cli.views import CIRCUITS, deployment_name
    from federation.v1.fleet_pb2 import ListCircuitsRequest

    with remote.connect() as to:
        pages = to.pages(to.fleet.ListCircuits, ListCircuitsRequest(tripped_only=tripped), "circuits", limit)
        listing(pages, "circuits", out, CIRCUITS, deployment_name)


@command(app, "reset", remote=remote, out=output)
def reset_circuit(
    remote: Remote,
    out: Format,
    name: Annotated[
        str, typer.Argument(metavar="REGION/NODE[/MODEL]", autocompletion=completion.deployments, show_default=False)
    ],
) -> None:
    """Close a circuit, or all of a node's, and forget the failures."""
    from federation.cli.views import deployment_name
    from federation.v1.fleet_pb2 import ResetCircuitRequest

    region, _, rest = name.partition("/")
    node, _, model = rest.partition("/")
    if not region or not node:
        raise usage(f"{name!r} is not a circuit: write region/node/model, or region/node for all of a node's")
    with remote.connect() as to:
        done = to.ask(to.fleet.ResetCircuit, ResetCircuitRequest(region_id=region, node_id=node, model_id=model))
    names = [deployment_name(each) for each in done.circuits]
    answer(
        done,
        out,
        names=names,
        people=lambda wide: print_lines([f"reset {each}" for each in names] or [f"no circuit of {name} was open"]),
    )
