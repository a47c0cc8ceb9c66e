"""`fairway config`: what a control plane would be started with, and where each setting comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.cli.failure import ExitCode, Failure
from federation.cli.options import Format, output
from federation.cli.output import print_data, print_json_line, print_lines
from federation.cli.wiring import command

if TYPE_CHECKING:
    from federation.config import Loaded

app = typer.Typer(no_args_is_help=True, help="Configuration: defaults < file < FAIRWAY_SECTION__KEY < flags.")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", envvar="FAIRWAY_CONFIG", help="The TOML file.")
]


def loaded(path: Path | None, flags: dict[str, object], code: ExitCode) -> Loaded:
    """The settings with their origins. Raises Failure with `code`."""
    from federation.config import ConfigError, load_with_origins

    try:
        return load_with_origins(path, os.environ, flags)
    except ConfigError as error:
        raise Failure(str(error), code) from error


@command(app, "check")
def check(config: ConfigFile = None) -> None:
    """Check the file and the environment; exit code 7 where they cannot be used."""
    found = loaded(config, {}, ExitCode.CHECK_FAILED)
    changed = len(found.origins)
    print_lines([f"ok  {config or 'defaults and environment'}  ({changed} settings are not defaults)"])


@command(app, "show", out=output)
def show(
    out: Format,
    config: ConfigFile = None,
    origin: Annotated[bool, typer.Option("--origin", help="Where each value comes from.")] = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not a default.")] = False,
) -> None:
    """Show every setting; secrets are masked."""
    from federation.cli.table import Column, rows_of
    from federation.cli.table import show as show_table

    rows = [row for row in loaded(config, {}, ExitCode.USAGE).listing() if not changed or row.origin != "default"]
    match out:
        case Format.NAME:
            print_lines(row.key for row in rows)
        case Format.JSONL:
            for row in rows:
                print_json_line({"key": row.key, "value": row.value, "origin": row.origin})
        case Format.JSON | Format.YAML:
            told = {row.key: {"value": row.value, "origin": row.origin} if origin else row.value for row in rows}
            print_data(told, out)
        case _:
            columns = (
                Column("SETTING", lambda row: row.key),
                Column("VALUE", lambda row: row.value or '""', folds=True),
                *((Column("ORIGIN", lambda row: row.origin, folds=True),) if origin or out is Format.WIDE else ()),
            )
            show_table(rows_of(columns, rows))
