"""`fairway route`, `candidates`, `outcome`: ask for a decision, look at what it chooses from, tell how it went."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from federation.cli.failure import ExitCode, Failure
from federation.cli.options import Format, Remote, a_duration, output, remote
from federation.cli.output import answer, print_lines
from federation.cli.requests import request
from federation.cli.wiring import command


class Explain(StrEnum):
    """How much of a decision's reasons to ask for."""

    NONE = "none"
    SUMMARY = "summary"
    FULL = "full"


class Result(StrEnum):
    """How an attempt went."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    OVERLOADED = "overloaded"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """Which part of a request's life is told of."""

    STARTED = "started"
    FIRST_TOKEN = "first_token"
    FINISHED = "finished"


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the commands to the root."""
    command(app, "route", panel=panel, remote=remote, out=output, request=request)(route)
    command(app, "candidates", panel=panel, remote=remote, out=output, request=request)(candidates)
    command(app, "outcome", panel=panel, remote=remote, out=output)(outcome)


def route(
    remote: Remote,
    out: Format,
    request: Any,
    alternatives: Annotated[
        int | None, typer.Option(min=0, max=16, help="How many alternatives to name. Default: 3.")
    ] = None,
    explain: Annotated[Explain, typer.Option(help="How much of the reasons.")] = Explain.SUMMARY,
) -> None:
    """Decide where a request should run, and reserve room for it there."""
    from federation.cli.why import show_decision, show_route
    from federation.v1 import routing_pb2

    if alternatives is not None:
        request.max_alternatives = alternatives
    request.explain = routing_pb2.Explain.Value(f"EXPLAIN_{explain.name}")
    with remote.connect() as to:
        decision = to.ask(to.routing.Route, request).decision

    def people(wide: bool) -> None:
        show_route(decision)
        if decision.candidates:
            print_lines([""])
            show_decision(decision, wide=wide)

    answer(decision, out, names=[decision.target.deployment], people=people)


def candidates(
    remote: Remote,
    out: Format,
    request: Any,
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="At most so many; 0: all.")] = 0,
) -> None:
    """Show every candidate of a request, ranked, and why the others are left out. Changes nothing."""
    from federation.cli.output import listing
    from federation.cli.why import show_candidates
    from federation.v1.routing_pb2 import GetCandidatesRequest

    with remote.connect() as to:
        pages = to.pages(to.routing.GetCandidates, GetCandidatesRequest(request=request), "candidates", limit)
        if out not in (Format.TABLE, Format.WIDE):
            listing(pages, "candidates", out, (), lambda each: str(each.target.deployment))
            return
        told = list(pages)
    found = [each for page in told for each in page.candidates]
    show_candidates(request, found, total=told[0].total_size, revision=told[0].table_revision, wide=out is Format.WIDE)


def outcome(
    remote: Remote,
    out: Format,
    decision_id: Annotated[str, typer.Argument(metavar="DECISION_ID", show_default=False)],
    result: Annotated[Result | None, typer.Option(help="How it went; needed when it is finished.")] = None,
    phase: Annotated[Phase, typer.Option(help="Which part of its life this tells of.")] = Phase.FINISHED,
    attempt: Annotated[int, typer.Option(min=0, max=16, help="0: the target, 1: the first alternative, ...")] = 0,
    latency: Annotated[
        float | None, typer.Option(metavar="DURATION", parser=a_duration, help="From the request to the last token.")
    ] = None,
    ttft: Annotated[
        float | None, typer.Option(metavar="DURATION", parser=a_duration, help="From the request to the first token.")
    ] = None,
    input_tokens: Annotated[int | None, typer.Option(min=0, help="Prompt tokens as the engine counted them.")] = None,
    cached_tokens: Annotated[int | None, typer.Option(min=0, help="Prompt tokens that were cached.")] = None,
    output_tokens: Annotated[int | None, typer.Option(min=0, help="Generated tokens.")] = None,
) -> None:
    """Report by hand how a decided request went."""
    from federation.cli.failure import usage
    from federation.v1 import routing_pb2

    if phase is Phase.FINISHED and result is None:
        raise usage("--result is needed when a request is finished: one of " + ", ".join(Result))
    told = routing_pb2.Outcome(
        decision_id=decision_id,
        attempt=attempt,
        phase=f"OUTCOME_PHASE_{phase.name}",
        input_tokens=input_tokens,
        cached_tokens=cached_tokens,
        output_tokens=output_tokens,
    )
    if result is not None:
        told.MergeFrom(routing_pb2.Outcome(result=f"OUTCOME_RESULT_{result.name}"))
    if latency is not None:
        told.latency.FromNanoseconds(round(latency * 1e9))
    if ttft is not None:
        told.time_to_first_token.FromNanoseconds(round(ttft * 1e9))
    with remote.connect() as to:
        taken = to.ask(to.routing.ReportOutcomes, routing_pb2.ReportOutcomesRequest(outcomes=[told]))
    if taken.unknown:
        raise Failure(
            f"decision {decision_id!r} is not known there, so the outcome counted for nothing",
            ExitCode.NOT_FOUND,
            hint="a server forgets old decisions, and knows only those that it or its siblings made",
        )
    word = "taken" if taken.accepted else "already reported; counted once"
    answer(taken, out, names=[decision_id], people=lambda wide: print_lines([f"{word}  {decision_id}"]))
