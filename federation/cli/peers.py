"""`fairway peers`: other control planes, and how the links to them are."""

from __future__ import annotations

import typer

from federation.cli.options import Format, Remote, output, remote
from federation.cli.output import listing
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="Peers: other regions' control planes.")


@command(app, "list", remote=remote, out=output)
def list_peers(remote: Remote, out: Format) -> None:
    """List peers with their links, lags and leases."""
    from federation.cli.views import PEERS
    from federation.v1.fleet_pb2 import ListPeersRequest

    with remote.connect() as to:
        answer = to.ask(to.fleet.ListPeers, ListPeersRequest())
    listing(iter([answer]), "peers", out, PEERS, lambda peer: str(peer.region_id or peer.address))
