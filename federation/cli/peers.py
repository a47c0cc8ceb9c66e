"""`fairway peers`: other control planes and sibling replicas, and how the links to them are."""

from __future__ import annotations

import typer

from federation.cli.options import Format, Remote, output, remote
from federation.cli.output import listing
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="Peers: other regions' control planes, and replicas.")


@command(app, "list", remote=remote, out=output)
def list_peers(remote: Remote, out: Format) -> None:
    """List peers and sibling replicas with their links, lags and leases."""
    from federation.cli.views import PEERS
    from federation.v1.fleet_pb2 import ListPeersRequest

    with remote.connect() as to:
        answer = to.ask(to.fleet.ListPeers, ListPeersRequest())
    listing(iter([answer]), "peers", out, PEERS, lambda peer: str(peer.replica_id or peer.region_id or peer.address))
