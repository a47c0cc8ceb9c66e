"""The root of the command line: every group on one screen."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from federation.cli import (
    agent,
    budgets,
    circuits,
    database,
    demo,
    deployments,
    doctor,
    explain,
    fleet,
    imports,  # noqa: F401 - adds `import` to the group of nodes
    models,
    nodes,
    peers,
    policies,
    preview,
    regions,
    routing,
    serve,
    settings,
    simulate,
    top,
    watch,
)
from federation.cli.options import Format, Globals, Output, Server, Timeout, TlsCa, TlsCert, TlsKey, output
from federation.cli.output import print_data, print_lines
from federation.cli.wiring import command

PROGRAM = "fairway"
EPILOG = (
    "Exit codes: 0 ok · 1 unexpected · 2 usage · 3 not found · 4 unreachable or deadline · 5 denied · "
    "6 conflict or failed precondition · 7 a check failed · 8 nothing eligible"
)

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Decides where an inference request should run when models are served on many nodes in many regions.",
    epilog=EPILOG,
)
RUN, ASK, RECORDS, OPERATE = "Run", "Route and explain", "What there is", "Operate"


class Shell(StrEnum):
    """Shells that completion is written for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def version_of() -> str:
    """The version of this program."""
    from importlib.metadata import version

    return version(PROGRAM)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_lines([f"{PROGRAM} {version_of()}"])
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    server: Server = None,
    timeout: Timeout = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    output: Output = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Keeps what was typed before the command for whatever command follows."""
    ctx.obj = Globals(server, timeout, tls_ca, tls_cert, tls_key, output)


serve.add_to(app, RUN)
demo.add_to(app, RUN)
agent.add_to(app, RUN)
routing.add_to(app, ASK)
explain.add_to(app, ASK)
preview.add_to(app, ASK)
simulate.add_to(app, ASK)
fleet.add_to(app, OPERATE)
top.add_to(app, OPERATE)
doctor.add_to(app, OPERATE)


@command(app, "version", panel=OPERATE, out=output)
def version(out: Format) -> None:
    """Print the version."""
    if out is Format.NAME:
        print_lines([version_of()])
    elif not print_data({"name": PROGRAM, "version": version_of(), "python": sys.version.split()[0]}, out):
        print_lines([f"{PROGRAM} {version_of()}"])


@command(app, "completion", panel=OPERATE)
def completion(shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.", show_default=False)]) -> None:
    """Print the completion script of a shell: `source <(fairway completion bash)`."""
    os.environ[f"_{PROGRAM.upper()}_COMPLETE"] = f"source_{shell.value}"
    app([], prog_name=PROGRAM)


for group, name, panel in (
    (models.app, "models", RECORDS),
    (nodes.app, "nodes", RECORDS),
    (deployments.app, "deployments", RECORDS),
    (regions.app, "regions", RECORDS),
    (policies.app, "policies", RECORDS),
    (budgets.app, "budgets", OPERATE),
    (circuits.app, "circuits", OPERATE),
    (peers.app, "peers", OPERATE),
    (watch.app, "watch", OPERATE),
    (settings.app, "config", OPERATE),
    (database.app, "db", OPERATE),
):
    app.add_typer(group, name=name, rich_help_panel=panel)
