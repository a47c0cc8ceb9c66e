"""Options that many commands share: where the control plane is, how to print, how to type a duration or a pair."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from federation.cli.failure import usage
from federation.cli.figures import seconds_of

if TYPE_CHECKING:
    from federation.cli.connection import Connection

V = TypeVar("V")
DEFAULT_SERVER = "127.0.0.1:50051"
DEFAULT_TIMEOUT_SECONDS = 5.0
SECURE_SCHEMES = ("grpcs://", "https://")
PLAIN_SCHEMES = ("grpc://", "http://")
CONNECTION = "Connection and output"


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a control plane is, and how long to wait for an answer."""

    server: str = DEFAULT_SERVER
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def secure(self) -> bool:
        """Whether to speak TLS: a scheme or any certificate flag asks for it."""
        return self.server.startswith(SECURE_SCHEMES) or any((self.tls_ca, self.tls_cert, self.tls_key))

    @property
    def address(self) -> str:
        """The server without a scheme."""
        for scheme in SECURE_SCHEMES + PLAIN_SCHEMES:
            if self.server.startswith(scheme):
                return self.server.removeprefix(scheme).rstrip("/")
        return self.server

    def connect(self) -> AbstractContextManager[Connection]:
        """A connection; this is where grpc is imported."""
        # gRPC's own log would stand beside the few lines that say what failed; whoever wants it sets the variable.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from federation.cli.connection import connect

        return connect(self)


def a_duration(text: Any) -> Any:
    """Parses an option that is a duration; options hand in their defaults too, which are seconds already."""
    if not isinstance(text, str):
        return text
    try:
        return seconds_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """The mapping of repeated `key=value`. Raises Failure (usage)."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise usage(f"{option} {text!r}: write key=value")
        found[key] = value
    return found


def split_node(name: str) -> tuple[str, str]:
    """Region and node of `region/node`. Raises Failure (usage)."""
    region, slash, node = name.partition("/")
    if not slash or not region or not node or "/" in node:
        raise usage(f"{name!r} is not a node: write region/node, as in eu-west-1/gpu-7")
    return region, node


def split_deployment(name: str) -> tuple[str, str, str]:
    """Region, node and model of `region/node/model`; the model's id may hold slashes. Raises Failure (usage)."""
    parts = name.split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise usage(f"{name!r} is not a deployment: write region/node/model, as in eu-west-1/gpu-7/llama-3-70b")
    return parts[0], parts[1], parts[2]


Server = Annotated[
    str | None,
    typer.Option("--server", "-s", metavar="HOST:PORT", envvar="FAIRWAY_SERVER", rich_help_panel=CONNECTION,
                 help=f"The control plane; grpcs:// asks for TLS. Default: {DEFAULT_SERVER}."),
]  # fmt: skip
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="DURATION", envvar="FAIRWAY_TIMEOUT", parser=a_duration,
                 rich_help_panel=CONNECTION, help="Longest wait for an answer. Default: 5s."),
]  # fmt: skip
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca", metavar="FILE", rich_help_panel=CONNECTION, help="CA that signed the server's certificate, PEM."
    ),
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", rich_help_panel=CONNECTION, help="Own certificate, PEM.")
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", rich_help_panel=CONNECTION, help="Its key, PEM.")
]
Output = Annotated[
    Format | None,
    typer.Option("--output", "-o", rich_help_panel=CONNECTION, help="How to print the answer. Default: table."),
]
Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="At most so many; 0: all.")]
File = Annotated[
    Path | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Read it from a TOML, YAML or JSON file with the API's field names; - is stdin.",
    ),
]
Etag = Annotated[str, typer.Option("--etag", help="The version that is to be replaced.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace whatever is stored, without naming its version.")]


@dataclass(frozen=True, slots=True)
class Globals:
    """What was typed before the command's name; the same options after it go first."""

    server: str | None = None
    timeout: float | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    output: Format | None = None


def globals_of(ctx: typer.Context) -> Globals:
    """What the root command was told; nothing while completing."""
    told = ctx.find_root().obj
    return told if isinstance(told, Globals) else Globals()


def remote(
    ctx: typer.Context,
    server: Server = None,
    timeout: Timeout = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> Remote:
    """Provider: where the control plane is."""
    told = globals_of(ctx)
    # Both places read the environment, so a flag before the command shows only when it differs from the variable.
    waits = next((each for each in (_typed(ctx, "timeout", timeout), told.timeout, timeout) if each is not None), None)
    if waits is not None and waits <= 0:
        raise usage("--timeout must be over 0, as in 5s")
    return Remote(
        server=_typed(ctx, "server", server) or told.server or server or DEFAULT_SERVER,
        timeout_seconds=waits if waits is not None else DEFAULT_TIMEOUT_SECONDS,
        tls_ca=tls_ca or told.tls_ca,
        tls_cert=tls_cert or told.tls_cert,
        tls_key=tls_key or told.tls_key,
    )


def _typed(ctx: typer.Context, name: str, value: V | None) -> V | None:
    """The value, if it was typed rather than read from the environment."""
    source = ctx.get_parameter_source(name)
    return value if source is not None and source.name == "COMMANDLINE" else None


def output(ctx: typer.Context, output: Output = None) -> Format:
    """Provider: how to print the answer."""
    return output or globals_of(ctx).output or Format.TABLE
