"""`fairway deployments`: one model on one node, what a request is routed to."""

from __future__ import annotations

from typing import Annotated

import typer

from federation.cli import completion
from federation.cli.options import Format, Limit, Remote, output, remote, split_deployment
from federation.cli.output import listing, written
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="Deployments: one model on one node, what a request is routed to.")

Name = Annotated[
    str, typer.Argument(metavar="REGION/NODE/MODEL", autocompletion=completion.deployments, show_default=False)
]


@command(app, "list", remote=remote, out=output)
def list_deployments(
    remote: Remote,
    out: Format,
    region: Annotated[str, typer.Option(help="Only this region.", autocompletion=completion.regions)] = "",
    model: Annotated[str, typer.Option(help="Only this model.", autocompletion=completion.models)] = "",
    limit: Limit = 0,
) -> None:
    """List deployments in the order of their names."""
    from federation.cli.views import DEPLOYMENTS, deployment_name
    from federation.v1.catalog_pb2 import ListDeploymentsRequest

    request = ListDeploymentsRequest(region_id=region, model_id=model)
    with remote.connect() as to:
        pages = to.pages(to.catalog.ListDeployments, request, "deployments", limit)
        listing(pages, "deployments", out, DEPLOYMENTS, deployment_name)


@command(app, "drain", remote=remote, out=output)
def drain_deployment(remote: Remote, out: Format, name: Name) -> None:
    """Take one deployment out of routing for new requests; what runs may finish."""
    from federation.v1.catalog_pb2 import DrainDeploymentRequest

    region, node, model = split_deployment(name)
    with remote.connect() as to:
        request = DrainDeploymentRequest(region_id=region, node_id=node, model_id=model)
        written(to.ask(to.catalog.DrainDeployment, request).deployment, out, name, "draining")


@command(app, "undrain", remote=remote, out=output)
def undrain_deployment(remote: Remote, out: Format, name: Name) -> None:
    """Take a deployment's drain back."""
    from federation.v1.catalog_pb2 import UndrainDeploymentRequest

    region, node, model = split_deployment(name)
    with remote.connect() as to:
        request = UndrainDeploymentRequest(region_id=region, node_id=node, model_id=model)
        written(to.ask(to.catalog.UndrainDeployment, request).deployment, out, name, "undrained")
