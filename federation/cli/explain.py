"""`fairway explain` and `fairway replay`: why a decision was made, and whether it would be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from federation.cli.failure import ExitCode, Failure
from federation.cli.figures import count
from federation.cli.options import Format, Remote, output, remote
from federation.cli.output import answer, print_data, print_json_line, print_lines
from federation.cli.wiring import command

MOST_SHOWN = 20


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the commands to the root."""
    command(app, "explain", panel=panel, remote=remote, out=output)(explain)
    command(app, "replay", panel=panel, out=output)(replay)


def explain(
    remote: Remote,
    out: Format,
    decision_id: Annotated[str, typer.Argument(metavar="DECISION_ID", show_default=False)],
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read it from a decision log; no server is asked.")
    ] = None,
) -> None:
    """Show everything of a decision: each candidate with each term, who was left out and why, what came of it."""
    from federation.cli.why import show_explanation
    from federation.v1.routing_pb2 import GetDecisionRequest

    if log is not None:
        told = _from_log(log, decision_id)
    else:
        with remote.connect() as to:
            told = to.ask(to.routing.GetDecision, GetDecisionRequest(decision_id=decision_id))
    names = [candidate.target.deployment for candidate in told.decision.candidates if candidate.eligible]
    answer(told, out, names=names, people=lambda wide: show_explanation(told, wide=wide))


def _from_log(log: Path, decision_id: str) -> Any:
    from federation.cli.records import UNREADABLE, explanation, records, registry, require_plugins, unreadable

    for number, record in records(log):
        if record.get("decision_id") == decision_id:
            known = registry()
            require_plugins(log, number, record, known)
            try:
                return explanation(record, known)
            except UNREADABLE as error:
                raise unreadable(log, number, error) from error
    raise Failure(
        f"decision {decision_id!r} is not in {log}",
        ExitCode.NOT_FOUND,
        hint="a full log is moved to FILE.1, and with routing.decision_log_sample under 1 not every decision is logged",
    )


def replay(
    out: Format,
    log: Annotated[Path, typer.Option(metavar="FILE", help="A decision log, JSON lines.")],
    assert_identical: Annotated[
        bool, typer.Option("--assert-identical", help="Exit code 7 where a decision comes out differently.")
    ] = False,
) -> None:
    """Make the decisions of a log again, from the values that they read then, and compare."""
    from federation.cli.records import UNREADABLE, records, registry, require_plugins, unreadable
    from federation.routing.replay import replay as again

    total = 0
    different: list[dict[str, Any]] = []
    known = registry()
    for number, record in records(log):
        require_plugins(log, number, record, known)
        try:
            result = again(record, known)
        except UNREADABLE as error:
            raise unreadable(log, number, error) from error
        total += 1
        told = {
            "decision_id": result.decision_id,
            "identical": result.identical,
            "differences": list(result.differences),
        }
        if not result.identical:
            different.append(told)
        if out is Format.JSONL:
            print_json_line(told)
    if out is Format.NAME:
        print_lines(each["decision_id"] for each in different)
    elif out in (Format.TABLE, Format.WIDE):
        shown = different if out is Format.WIDE else different[:MOST_SHOWN]
        print_lines(
            [f"{count(total)} decisions: {count(total - len(different))} identical, {len(different)} different"]
        )
        print_lines(f"{each['decision_id']}  {difference}" for each in shown for difference in each["differences"])
        if len(shown) < len(different):
            print_lines([f"and {len(different) - len(shown)} more: -o wide"])
    elif out is not Format.JSONL:
        print_data({"decisions": total, "identical": total - len(different), "different": different}, out)
    if different and assert_identical:
        raise Failure(
            f"{len(different)} of {count(total)} decisions came out differently",
            ExitCode.CHECK_FAILED,
            hint="another version of this program, or of a scorer, filter or picker that it has loaded, decided them",
        )
