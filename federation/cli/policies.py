"""`fairway policies`: what is preferred, as documents with a history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.cli import completion
from federation.cli.failure import ExitCode, Failure, usage
from federation.cli.options import Etag, Format, Limit, Remote, Replace, output, remote
from federation.cli.output import answer, listing, print_data, print_json, print_lines, print_yaml, written
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="Policies: what is preferred, as documents with a history.")

PolicyId = Annotated[str, typer.Argument(metavar="POLICY", autocompletion=completion.policies, show_default=False)]
Document = Annotated[
    Path, typer.Option("--file", "-f", metavar="FILE", help="The document, TOML, YAML or JSON; - is stdin.")
]


@command(app, "list", remote=remote, out=output)
def list_policies(remote: Remote, out: Format, limit: Limit = 0) -> None:
    """List stored policies and presets."""
    from federation.v1.policy_pb2 import ListPoliciesRequest

    _list(remote, out, ListPoliciesRequest(), limit)


@command(app, "history", remote=remote, out=output)
def history(remote: Remote, out: Format, policy_id: PolicyId, limit: Limit = 0) -> None:
    """List all revisions of a policy, newest first."""
    from federation.v1.policy_pb2 import ListPoliciesRequest

    _list(remote, out, ListPoliciesRequest(history_of=policy_id), limit)


def _list(remote: Remote, out: Format, request: Any, limit: int) -> None:
    from federation.cli.views import POLICIES

    with remote.connect() as to:
        pages = to.pages(to.policy.ListPolicies, request, "policies", limit)
        listing(pages, "policies", out, POLICIES, lambda policy: str(policy.policy_id))


@command(app, "get", remote=remote, out=output)
def get_policy(
    remote: Remote,
    out: Format,
    policy_id: PolicyId,
    revision: Annotated[int, typer.Option(min=0, help="An earlier revision; 0: the current one.")] = 0,
    document: Annotated[
        bool, typer.Option("--document", help="Only the document: YAML, or JSON with -o json. Edit it and put it.")
    ] = False,
) -> None:
    """Show a policy or a preset."""
    from federation.v1.policy_pb2 import GetPolicyRequest

    with remote.connect() as to:
        policy = to.ask(to.policy.GetPolicy, GetPolicyRequest(policy_id=policy_id, revision=revision)).policy
    content = json.loads(policy.document_json or "{}")
    if document:
        (print_json if out in (Format.JSON, Format.JSONL) else print_yaml)(content)
        return

    def people(wide: bool) -> None:
        kind = "preset" if policy.preset else f"revision {policy.revision}, etag {policy.etag}"
        print_lines([f"# {policy.policy_id} ({kind})"])
        print_yaml(content)

    answer(policy, out, names=[policy.policy_id], people=people)


@command(app, "put", remote=remote, out=output)
def put_policy(
    remote: Remote,
    out: Format,
    policy_id: PolicyId,
    file: Document,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only let the server check it.")] = False,
    etag: Etag = "",
    replace: Replace = False,
) -> None:
    """Store a policy as its next revision."""
    from federation.cli.documents import load_mapping
    from federation.v1.policy_pb2 import PutPolicyRequest

    request = PutPolicyRequest(validate_only=dry_run)
    request.policy.policy_id = policy_id
    request.policy.document_json = _canonical(load_mapping(file))
    request.policy.etag = etag
    with remote.connect() as to:
        stored = to.write(to.policy.PutPolicy, request, request.policy, replace=replace).policy
    written(stored, out, policy_id, "the server would store" if dry_run else "stored")


@command(app, "rollback", remote=remote, out=output)
def rollback(
    remote: Remote,
    out: Format,
    policy_id: PolicyId,
    revision: Annotated[int, typer.Argument(min=1, help="The revision to go back to, from `history`.")],
) -> None:
    """Store an earlier revision of a policy again, as its next one."""
    from federation.v1.policy_pb2 import GetPolicyRequest, PutPolicyRequest

    with remote.connect() as to:
        current = to.ask(to.policy.GetPolicy, GetPolicyRequest(policy_id=policy_id)).policy
        past = to.ask(to.policy.GetPolicy, GetPolicyRequest(policy_id=policy_id, revision=revision)).policy
        request = PutPolicyRequest()
        request.policy.policy_id = policy_id
        request.policy.document_json = past.document_json
        # Of the version that was current a moment ago: a change in between is an error, and not lost.
        request.policy.etag = current.etag
        stored = to.ask(to.policy.PutPolicy, request).policy
    written(stored, out, policy_id, f"rolled back to revision {revision}:")


@command(app, "delete", remote=remote, out=output)
def delete_policy(remote: Remote, out: Format, policy_id: PolicyId, etag: Etag = "") -> None:
    """Remove a stored policy; a preset of the same name shows again."""
    from federation.v1.policy_pb2 import DeletePolicyRequest

    with remote.connect() as to:
        done = to.ask(to.policy.DeletePolicy, DeletePolicyRequest(policy_id=policy_id, etag=etag))
    written(done, out, policy_id, "deleted")


@command(app, "preview", remote=remote, out=output)
def preview(
    remote: Remote,
    out: Format,
    policy_id: PolicyId,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="The document. Default: the stored policy.")
    ] = None,
    decisions: Annotated[int, typer.Option(min=1, max=10_000, help="Recent decisions to make again.")] = 1000,
    without_region: Annotated[
        list[str] | None,
        typer.Option(help="As if this region were gone; repeat for more.", autocompletion=completion.regions),
    ] = None,
) -> None:
    """Make recent decisions again under another policy, and tell what would change. Changes nothing."""
    from federation.cli.documents import load_mapping
    from federation.cli.preview import show_preview
    from federation.v1.policy_pb2 import GetPolicyRequest, PreviewPolicyRequest

    request = PreviewPolicyRequest(max_decisions=decisions, without_regions=without_region or ())
    with remote.connect() as to:
        if file is None:
            request.policy.CopyFrom(to.ask(to.policy.GetPolicy, GetPolicyRequest(policy_id=policy_id)).policy)
        else:
            request.policy.policy_id, request.policy.document_json = policy_id, _canonical(load_mapping(file))
        told = to.ask(to.policy.PreviewPolicy, request)
    names = [change.decision_id for change in told.changes]
    answer(told, out, names=names, people=lambda wide: show_preview(policy_id, told))


@command(app, "lint", out=output)
def lint(
    out: Format,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Documents to check, without a server.")],
) -> None:
    """Check documents without a server; exit code 7 where one cannot be used."""
    from federation.cli.documents import load_mapping
    from federation.cli.records import registry
    from policies.document import compile_policy
    from policies.errors import InvalidPolicy

    known = registry()
    found: list[dict[str, Any]] = []
    for file in files:
        violations: tuple[tuple[str, str], ...] = ()
        content = load_mapping(file)
        try:
            compile_policy(_id_from(file), content, revision=0, registry=known)
        except InvalidPolicy as error:
            violations = error.violations
        listed = [{"path": path, "message": message} for path, message in violations]
        found.append({"file": str(file), "ok": not violations, "violations": listed})
    bad = [each for each in found if not each["ok"]]
    if out is Format.JSONL:
        for each in found:
            print_data(each, out)
    elif not print_data({"files": found}, out):
        shown = bad if out is Format.NAME else found
        print_lines(_lint_line(each) if out is not Format.NAME else each["file"] for each in shown)
    if bad:
        raise Failure(
            f"{len(bad)} of {len(found)} documents cannot be used",
            ExitCode.CHECK_FAILED,
            hint="`fairway policies schema` prints what a document may hold",
        )


def _lint_line(found: dict[str, Any]) -> str:
    if found["ok"]:
        return f"ok    {found['file']}"
    lines = [f"FAIL  {found['file']}"]
    lines += [f"      {each['path'] or 'document'}: {each['message']}" for each in found["violations"]]
    return "\n".join(lines)


def _id_from(file: Path) -> str:
    """A name for a document that has none: its file's, as far as it may be a policy's."""
    stem = "".join(sign if sign.isalnum() or sign in "-._" else "-" for sign in file.stem.lower()).strip("-._")
    return stem or "document"


@command(app, "schema")
def schema() -> None:
    """Print the JSON Schema of a document, for editors."""
    from policies.document import json_schema

    print_json(json_schema())


def _canonical(document: dict[str, Any]) -> str:
    """The document as JSON with sorted keys: the same content is the same text. Raises Failure (usage)."""
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise usage(f"the document holds a value that JSON does not know: {error}") from error
