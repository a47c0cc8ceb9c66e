"""`fairway db`: the schema of the catalog's database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from federation.cli.failure import ExitCode, Failure
from federation.cli.options import Format, output
from federation.cli.output import print_data, print_lines
from federation.cli.settings import ConfigFile, loaded
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="The schema of the catalog's database.")


def database(
    url: Annotated[
        str | None, typer.Option("--database", "-d", metavar="URL", help="The database. Default: store.url.")
    ] = None,
    config: ConfigFile = None,
) -> str:
    """Provider: the database's URL, from the flag, or from the configuration."""
    store = loaded(config, {"store.url": url}, ExitCode.USAGE).settings.store
    if url is None and store.url_file is not None:
        try:
            return checked(store.url_file.read_text(encoding="utf-8").strip())
        except OSError as error:
            raise Failure(f"cannot read store.url_file {store.url_file}: {error.strerror}", ExitCode.USAGE) from error
    return checked(store.url)


def checked(url: str) -> str:
    """The URL, if it is one of a database that we know. Raises Failure (usage)."""
    from catalog.sql.engines import parse_url

    try:
        parse_url(url)
    except ValueError as error:
        raise Failure(str(error), ExitCode.USAGE) from error
    return url


@contextmanager
def translated(code: ExitCode) -> Iterator[None]:
    """Turns what the catalog raises into a Failure; a schema that does not fit has the given code."""
    from catalog.errors import SchemaAhead, SchemaBehind, StoreUnavailable

    try:
        yield
    except (SchemaBehind, SchemaAhead) as error:
        raise Failure(str(error), code) from error
    except StoreUnavailable as error:
        raise Failure(str(error), ExitCode.UNREACHABLE, hint="check the URL, and that the database runs") from error


@command(app, "upgrade", url=database)
def upgrade(url: str) -> None:
    """Bring the schema up to date; of several at once, one does it and the others wait."""
    from catalog.sql import schema

    with translated(ExitCode.CONFLICT):
        applied = schema.upgrade(url)
        print_lines([f"{'upgraded to' if applied else 'already at'} {schema.current(url)}"])


@command(app, "check", url=database)
def check(url: str) -> None:
    """Check that the schema fits this program; exit code 7 where it does not."""
    from catalog.sql import schema

    with translated(ExitCode.CHECK_FAILED):
        schema.check(url)
        print_lines([f"ok  schema {schema.current(url)}"])


@command(app, "current", url=database, out=output)
def current(url: str, out: Format) -> None:
    """Print the schema that the database has, and the one that this program needs."""
    from catalog.sql import schema

    with translated(ExitCode.CONFLICT):
        found = schema.current(url)
    if out is Format.NAME:
        print_lines([found] if found else [])
    elif not print_data({"current": found, "needed": schema.head()}, out):
        print_lines([f"database  {found or 'none'}", f"program   {schema.head()}"])
