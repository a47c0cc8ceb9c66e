"""`fairway regions`: the places with nodes, and what routing has to know of them."""

from __future__ import annotations

from typing import Annotated

import typer

from federation.cli import completion
from federation.cli.failure import usage
from federation.cli.options import Etag, File, Format, Limit, Remote, Replace, a_duration, output, pairs, remote
from federation.cli.output import detail, listing, written
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="Regions: places with nodes.")


@command(app, "list", remote=remote, out=output)
def list_regions(remote: Remote, out: Format, limit: Limit = 0) -> None:
    """List regions in the order of their ids."""
    from federation.cli.views import REGIONS
    from federation.v1.catalog_pb2 import ListRegionsRequest

    with remote.connect() as to:
        pages = to.pages(to.catalog.ListRegions, ListRegionsRequest(), "regions", limit)
        listing(pages, "regions", out, REGIONS, lambda region: str(region.region_id))


@command(app, "get", remote=remote, out=output)
def get_region(
    remote: Remote,
    out: Format,
    region_id: Annotated[str, typer.Argument(metavar="REGION", autocompletion=completion.regions, show_default=False)],
) -> None:
    """Show one region."""
    from federation.v1.catalog_pb2 import GetRegionRequest

    with remote.connect() as to:
        region = to.ask(to.catalog.GetRegion, GetRegionRequest(region_id=region_id)).region
    detail(region, out, region.region_id)


@command(app, "put", remote=remote, out=output)
def put_region(
    remote: Remote,
    out: Format,
    region_id: Annotated[
        str, typer.Argument(metavar="[REGION]", autocompletion=completion.regions, show_default=False)
    ] = "",
    file: File = None,
    provider: Annotated[str, typer.Option(help='The cloud or operator, as in "aws".')] = "",
    jurisdiction: Annotated[
        list[str] | None, typer.Option(help="Country code or group that it belongs to, as in DE, EU; repeat.")
    ] = None,
    latitude: Annotated[float | None, typer.Option(min=-90, max=90, help="Degrees north.")] = None,
    longitude: Annotated[float | None, typer.Option(min=-180, max=180, help="Degrees east.")] = None,
    reach: Annotated[str, typer.Option(help="direct, or gateway (needs --ingress).")] = "",
    ingress: Annotated[str, typer.Option(help="The region's ingress, as in https://eu.example:443.")] = "",
    status: Annotated[str, typer.Option(help="active, draining or offline.")] = "",
    egress_price: Annotated[float | None, typer.Option(min=0, help="US dollars a gigabyte that leaves it.")] = None,
    round_trip: Annotated[
        list[str] | None, typer.Option(metavar="REGION=DURATION", help="Measured, as in us-east-1=82ms; repeat.")
    ] = None,
    etag: Etag = "",
    replace: Replace = False,
) -> None:
    """Store a region's record, from flags or from a file."""
    from federation.cli.documents import enum_number, fill, forget, load_mapping
    from federation.v1.catalog_pb2 import PutRegionRequest
    from federation.v1.types_pb2 import Reach, RegionStatus

    request = PutRegionRequest()
    region = request.region
    if file is not None:
        fill(region, load_mapping(file), str(file))
        forget(region, "owner", "revision")
    for other, measured in pairs(round_trip or (), "--round-trip").items():
        region.round_trips[other].FromNanoseconds(round(a_duration(measured) * 1e9))
    region.region_id = region_id or region.region_id
    if not region.region_id:
        raise usage("no region named: give its id, or --file")
    region.provider = provider or region.provider
    region.ingress_endpoint = ingress or region.ingress_endpoint
    region.jurisdictions.extend(jurisdiction or ())
    if latitude is not None:
        region.latitude = latitude
    if longitude is not None:
        region.longitude = longitude
    if egress_price is not None:
        region.egress_price_usd_per_gb = egress_price
    if reach:
        region.reach = enum_number(Reach.DESCRIPTOR, reach, "--reach")  # type: ignore[assignment]
    if status:
        region.status = enum_number(RegionStatus.DESCRIPTOR, status, "--status")  # type: ignore[assignment]
    region.etag = etag or region.etag
    with remote.connect() as to:
        stored = to.write(to.catalog.PutRegion, request, region, replace=replace).region
    written(stored, out, stored.region_id, "stored")
