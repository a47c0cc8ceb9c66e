"""`fairway nodes import`: many nodes from one file, in transactions of some hundreds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.cli.failure import Failure, note, usage
from federation.cli.nodes import app
from federation.cli.options import Format, Remote, Replace, output, remote
from federation.cli.output import print_data, print_lines
from federation.cli.wiring import command

if TYPE_CHECKING:
    from federation.cli.connection import Connection

# Large enough that a commit costs little a node, small enough that a call stays well under the message limit and a
# bad node does not undo much.
BATCH = 500
MOST_FAILURES_SHOWN = 20


@command(app, "import", remote=remote, out=output)
def import_nodes(
    remote: Remote,
    out: Format,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, JSON, YAML or TOML; - is stdin.")],
    continue_on_error: Annotated[
        bool, typer.Option("--continue-on-error", help="Leave out what fails and go on; else the first one ends it.")
    ] = False,
    without_etags: Annotated[
        bool, typer.Option("--without-etags", help="Forget the file's etags: it comes from another control plane.")
    ] = False,
    replace: Replace = False,
) -> None:
    """Register many nodes with their deployments, 500 in a transaction."""
    from federation.cli.documents import attempt, node_documents

    requests: list[Any] = []
    failures: list[tuple[str, Failure]] = []
    for index, values in enumerate(node_documents(file), start=1):
        made = attempt(values, f"node {index} of {file}")
        if not isinstance(made, Failure):
            if without_etags:
                made.node.etag = ""
            requests.append(made)
        elif continue_on_error:
            failures.append((f"node {index}", made))
        else:
            raise made
    if not requests and not failures:
        raise usage(f"{file} holds no nodes")
    with remote.connect() as to:
        registered = _register(to, requests, failures, careful=continue_on_error, replace=replace)
    if not print_data({"registered": len(registered), "failed": len(failures)}, out):
        print_lines(registered if out is Format.NAME else [f"registered {len(registered)} of {len(requests)} nodes"])
    if failures:
        for name, failure in failures[:MOST_FAILURES_SHOWN]:
            note(f"left out {name}: {'; '.join((failure.message, *failure.details))}")
        more = len(failures) - MOST_FAILURES_SHOWN
        first = failures[0][1]
        raise Failure(
            f"{len(failures)} nodes were left out" + (f", {more} of them not shown" if more > 0 else ""),
            first.code,
            reason=first.reason,
            hint=first.hint,
        )


def _register(
    to: Connection, requests: Sequence[Any], failures: list[tuple[str, Failure]], *, careful: bool, replace: bool
) -> list[str]:
    """Names of what was registered. With `careful`, what fails lands in `failures`; else it is raised."""
    registered: list[str] = []
    with _progress(len(requests)) as advance:
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            try:
                nodes = _register_batch(to, batch)
            except Failure as failure:
                if not careful and not replace:
                    if registered:
                        note(f"{len(registered)} nodes were registered before this")
                    raise
                # The transaction was undone as a whole; node by node, only the bad ones stay out.
                nodes = _one_by_one(to, batch, failures, failure, careful=careful, replace=replace)
            registered += [f"{node.region_id}/{node.node_id}" for node in nodes]
            advance(len(batch))
    return registered


def _register_batch(to: Connection, batch: Sequence[Any]) -> list[Any]:
    from federation.v1.catalog_pb2 import RegisterNodesRequest

    return list(to.ask(to.catalog.RegisterNodes, RegisterNodesRequest(nodes=batch)).nodes)


def _one_by_one(
    to: Connection,
    batch: Sequence[Any],
    failures: list[tuple[str, Failure]],
    cause: Failure,
    *,
    careful: bool,
    replace: bool,
) -> list[Any]:
    from federation.cli.failure import ExitCode

    if cause.code in (ExitCode.UNREACHABLE, ExitCode.DENIED):
        # It would happen to each of them again.
        raise cause
    nodes = []
    for request in batch:
        try:
            nodes.append(to.write(to.catalog.RegisterNode, request, request.node, replace=replace).node)
        except Failure as failure:
            if not careful:
                raise
            failures.append((f"{request.node.region_id}/{request.node.node_id}", failure))
    return nodes


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A function that moves a bar on; the bar is on stderr, and only while that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("registering", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("registering", total=total)
        yield lambda steps: bar.advance(task, steps)
