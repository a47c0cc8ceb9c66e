"""`fairway nodes`: registration, draining and ejection of the processes that serve models."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from federation.cli import completion
from federation.cli.failure import ExitCode, Failure, note, usage
from federation.cli.options import (
    Etag,
    File,
    Format,
    Limit,
    Remote,
    Replace,
    a_duration,
    output,
    pairs,
    remote,
    split_node,
)
from federation.cli.output import answer, detail, listing, print_lines, written
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="Nodes: processes that serve models, with their deployments.")

NodeName = Annotated[str, typer.Argument(metavar="REGION/NODE", autocompletion=completion.nodes, show_default=False)]
NodeNames = Annotated[
    list[str], typer.Argument(metavar="REGION/NODE...", autocompletion=completion.nodes, show_default=False)
]
# Often enough that a wait ends when it is over, seldom enough that many waiting operators cost nothing.
POLL_SECONDS = 0.5


@command(app, "list", remote=remote, out=output)
def list_nodes(
    remote: Remote,
    out: Format,
    region: Annotated[str, typer.Option(help="Only this region.", autocompletion=completion.regions)] = "",
    model: Annotated[
        str, typer.Option(help="Only nodes that serve this model.", autocompletion=completion.models)
    ] = "",
    limit: Limit = 0,
) -> None:
    """List nodes in the order of their names."""
    from federation.cli.views import NODES, node_name
    from federation.v1.catalog_pb2 import ListNodesRequest

    with remote.connect() as to:
        pages = to.pages(to.catalog.ListNodes, ListNodesRequest(region_id=region, model_id=model), "nodes", limit)
        listing(pages, "nodes", out, NODES, node_name)


@command(app, "get", remote=remote, out=output)
def get_node(remote: Remote, out: Format, name: NodeName) -> None:
    """Show one node with its deployments."""
    from federation.v1.catalog_pb2 import GetNodeRequest

    region, node = split_node(name)
    with remote.connect() as to:
        found = to.ask(to.catalog.GetNode, GetNodeRequest(region_id=region, node_id=node)).node
    detail(found, out, name)


@command(app, "register", remote=remote, out=output)
def register_node(
    remote: Remote,
    out: Format,
    name: Annotated[str, typer.Argument(metavar="[REGION/NODE]", show_default=False)] = "",
    file: File = None,
    endpoint: Annotated[str, typer.Option(help="Where it listens: http://, https://, grpc:// or grpcs://.")] = "",
    engine: Annotated[str, typer.Option(help="vllm, sglang, tgi, triton, trtllm, openai or grpc.")] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model that it serves; repeat for more.", autocompletion=completion.models),
    ] = None,
    zone: Annotated[str, typer.Option(help="Failure domain within the region.")] = "",
    accelerator: Annotated[str, typer.Option(help='Kind of accelerator, as in "H100".')] = "",
    accelerator_count: Annotated[int | None, typer.Option(min=0, help="How many of them.")] = None,
    privacy_level: Annotated[
        str, typer.Option(help="Most sensitive prompt it may serve: public, internal, confidential, restricted.")
    ] = "",
    price_per_hour: Annotated[float | None, typer.Option(min=0, help="US dollars an hour of the whole node.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label; repeat for more.")] = None,
    lease: Annotated[
        float | None,
        typer.Option(metavar="DURATION", parser=a_duration, help="Life without a heartbeat; 0: until deregistered."),
    ] = None,
    capability: Annotated[list[str] | None, typer.Option(help="What its deployments can do; repeat.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only for this tenant; repeat for more.")] = None,
    price_input: Annotated[float | None, typer.Option(min=0, help="USD per million prompt tokens.")] = None,
    price_output: Annotated[float | None, typer.Option(min=0, help="USD per million generated tokens.")] = None,
    price_cached: Annotated[float | None, typer.Option(min=0, help="USD per million cached prompt tokens.")] = None,
    max_concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at once, for each deployment.")] = None,
    etag: Etag = "",
    replace: Replace = False,
) -> None:
    """Register a node and its deployments, from flags or from a file; flags go before the file."""
    from google.protobuf.duration_pb2 import Duration

    from federation.cli.documents import enum_number, load, node_request
    from federation.v1.catalog_pb2 import RegisterNodeRequest
    from federation.v1.types_pb2 import Engine, PrivacyLevel

    request = RegisterNodeRequest() if file is None else node_request(load(file), str(file))
    node = request.node
    if name:
        node.region_id, node.node_id = split_node(name)
    if not node.node_id:
        raise usage("no node named: give REGION/NODE, or --file")
    node.endpoint = endpoint or node.endpoint
    node.zone = zone or node.zone
    node.accelerator = accelerator or node.accelerator
    node.etag = etag or node.etag
    node.labels.update(pairs(label or (), "--label"))
    if engine:
        node.engine = enum_number(Engine.DESCRIPTOR, engine, "--engine")
    if privacy_level:
        node.privacy_level = enum_number(PrivacyLevel.DESCRIPTOR, privacy_level, "--privacy-level")
    if accelerator_count is not None:
        node.accelerator_count = accelerator_count
    if price_per_hour is not None:
        node.price_usd_per_hour = price_per_hour
    if lease is not None:
        node.lease_duration.CopyFrom(Duration(seconds=int(lease), nanos=round(lease % 1 * 1e9)))
    for model_id in model or ():
        deployment = request.deployments.add(model_id=model_id)
        deployment.capabilities.extend(capability or ())
        deployment.tenant_ids.extend(tenant or ())
        for field, value in (
            ("price_usd_per_million_input_tokens", price_input),
            ("price_usd_per_million_output_tokens", price_output),
            ("price_usd_per_million_cached_tokens", price_cached),
            ("max_concurrency", max_concurrency),
        ):
            if value is not None:
                setattr(deployment, field, value)
    with remote.connect() as to:
        stored = to.write(to.catalog.RegisterNode, request, node, replace=replace).node
    written(stored, out, f"{stored.region_id}/{stored.node_id}", "registered")


@command(app, "deregister", remote=remote, out=output)
def deregister_node(remote: Remote, out: Format, names: NodeNames, etag: Etag = "") -> None:
    """Remove nodes with their deployments."""
    from federation.v1.catalog_pb2 import DeregisterNodeRequest

    if etag and len(names) > 1:
        raise usage("--etag names the version of one node: give one node with it")
    with remote.connect() as to:
        for name, (region, node) in [(name, split_node(name)) for name in names]:
            request = DeregisterNodeRequest(region_id=region, node_id=node, etag=etag)
            written(to.ask(to.catalog.DeregisterNode, request), out, name, "deregistered")


@command(app, "drain", remote=remote, out=output)
def drain_node(
    remote: Remote,
    out: Format,
    names: NodeNames,
    wait: Annotated[
        float | None,
        typer.Option(metavar="DURATION", parser=a_duration, help="Wait so long for running requests to end."),
    ] = None,
) -> None:
    """Take nodes out of routing for new requests; what runs may finish."""
    from federation.v1.catalog_pb2 import DrainNodeRequest

    with remote.connect() as to:
        wanted = [(name, *split_node(name)) for name in names]
        for name, region, node in wanted:
            drained = to.ask(to.catalog.DrainNode, DrainNodeRequest(region_id=region, node_id=node)).node
            written(drained, out, name, "draining")
        if wait is not None:
            _wait_until_idle(to, wanted, wait)


def _wait_until_idle(to: Any, wanted: list[tuple[str, str, str]], patience: float) -> None:
    """Returns when nothing that was routed to the nodes is still running. Raises Failure after `patience` seconds."""
    from federation.cli.connection import items
    from federation.v1.fleet_pb2 import ListNodeHealthRequest

    names = {name for name, _, _ in wanted}
    end = time.monotonic() + patience
    while True:
        running = {}
        for region in sorted({region for _, region, _ in wanted}):
            pages = to.pages(to.fleet.ListNodeHealth, ListNodeHealthRequest(region_id=region), "nodes")
            for node in items(pages, "nodes"):
                running[f"{node.region_id}/{node.node_id}"] = sum(each.in_flight for each in node.deployments)
        busy = {name: running[name] for name in sorted(names) if running.get(name)}
        if not busy:
            note("idle: no routed request is left")
            return
        if time.monotonic() >= end:
            raise Failure(
                "requests are still running: " + ", ".join(f"{name} {left}" for name, left in busy.items()),
                ExitCode.UNREACHABLE,
                hint="they may finish: the nodes take nothing new; wait again with a longer --wait",
            )
        time.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))


@command(app, "undrain", remote=remote, out=output)
def undrain_node(remote: Remote, out: Format, names: NodeNames) -> None:
    """Take a drain back."""
    from federation.v1.catalog_pb2 import UndrainNodeRequest

    with remote.connect() as to:
        for name, (region, node) in [(name, split_node(name)) for name in names]:
            stored = to.ask(to.catalog.UndrainNode, UndrainNodeRequest(region_id=region, node_id=node)).node
            written(stored, out, name, "undrained")


@command(app, "eject", remote=remote, out=output)
def eject_node(
    remote: Remote,
    out: Format,
    name: NodeName,
    duration: Annotated[
        float | None, typer.Option("--for", metavar="DURATION", parser=a_duration, help="How long. Default: 5m.")
    ] = None,
) -> None:
    """Leave a node out of routing for a time, as if it were an outlier."""
    from google.protobuf.duration_pb2 import Duration

    from federation.v1.fleet_pb2 import EjectNodeRequest

    region, node = split_node(name)
    request = EjectNodeRequest(region_id=region, node_id=node)
    if duration is not None:
        request.duration.CopyFrom(Duration(seconds=int(duration), nanos=round(duration % 1 * 1e9)))
    with remote.connect() as to:
        health = to.ask(to.fleet.EjectNode, request).node
    _health(health, out, name, "ejected")


@command(app, "restore", remote=remote, out=output)
def restore_node(remote: Remote, out: Format, name: NodeName) -> None:
    """Take an ejection back, whoever made it."""
    from federation.v1.fleet_pb2 import RestoreNodeRequest

    region, node = split_node(name)
    with remote.connect() as to:
        health = to.ask(to.fleet.RestoreNode, RestoreNodeRequest(region_id=region, node_id=node)).node
    _health(health, out, name, "restored")


def _health(health: Any, out: Format, name: str, verb: str) -> None:
    from federation.cli.figures import enum_word

    state = enum_word(health, "state")
    answer(
        health,
        out,
        names=[name],
        people=lambda wide: print_lines([f"{verb} {name}" + (f"  ({state})" if state else "")]),
    )
