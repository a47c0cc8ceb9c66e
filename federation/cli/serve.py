"""`fairway serve`: run a control plane."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from federation.cli.failure import ExitCode
from federation.cli.settings import ConfigFile, loaded
from federation.cli.wiring import command

SECURITY = "Security"


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the command to the root."""
    command(app, "serve", panel=panel)(serve)


def serve(
    config: ConfigFile = None,
    region: Annotated[str | None, typer.Option(metavar="ID", help="Its own region. Default: local.")] = None,
    owns: Annotated[
        list[str] | None,
        typer.Option(metavar="REGION", help="A region that only it writes; repeat. Needed with --peer."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="gRPC; port 0 takes a free one. Default: 127.0.0.1:50051.")
    ] = None,
    admin: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Metrics and readiness. Default: 127.0.0.1:8080.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="Where it keeps the catalog. Default: sqlite:///fairway.db.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Processes that share the port.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PORT", help="Another control plane; repeat for more.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Policy of requests that name none. Default: balanced.")] = None,
    decision_log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write decisions there, JSON lines, for explain and replay.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", rich_help_panel=SECURITY, help="Allow plain text on an address that is not loopback."
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", rich_help_panel=SECURITY, help="Server certificate, PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", rich_help_panel=SECURITY, help="Its key, PEM.")
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=SECURITY, help="CA of clients: their certificates are needed then."
        ),
    ] = None,
) -> None:
    """Run a control plane. Flags go before FAIRWAY_SECTION__KEY variables, those before the file."""
    flags: dict[str, Any] = {
        "region.id": region,
        "region.owns": tuple(owns) if owns else None,
        "server.listen": listen,
        "server.admin": admin,
        "server.workers": workers,
        "server.insecure": insecure or None,
        "store.url": database,
        "peering.peers": tuple(peer) if peer else None,
        "routing.policy": policy,
        "routing.decision_log": decision_log,
        "security.tls_certificate": tls_cert,
        "security.tls_key": tls_key,
        "security.tls_client_ca": tls_client_ca,
        "telemetry.log_level": log_level,
    }
    settings = loaded(config, flags, ExitCode.USAGE).settings
    from federation import process

    raise typer.Exit(process.run(settings))
