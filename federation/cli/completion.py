"""Names for the shell's completion: one list call, bounded, and silence when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

# A shell that waits longer than this for a Tab feels broken.
PATIENCE_SECONDS = 0.3
MOST_NAMES = 1000


def _names(ctx: typer.Context, service: str, method: str, field: str, name: Callable[[Any], str]) -> list[str]:
    """Names of all items of a list call; none where the control plane does not answer in time."""
    from federation.cli.failure import Failure
    from federation.cli.options import DEFAULT_SERVER, Remote
    from federation.v1 import catalog_pb2, policy_pb2

    values = {**ctx.find_root().params, **{key: value for key, value in ctx.params.items() if value is not None}}
    remote = Remote(
        server=values.get("server") or DEFAULT_SERVER,
        timeout_seconds=PATIENCE_SECONDS,
        tls_ca=values.get("tls_ca"),
        tls_cert=values.get("tls_cert"),
        tls_key=values.get("tls_key"),
    )
    messages: Any = {"catalog": catalog_pb2, "policy": policy_pb2}[service]
    request = getattr(messages, f"{method}Request")(page_size=MOST_NAMES)
    try:
        with remote.connect() as connection:
            page = connection.ask(getattr(getattr(connection, service), method), request)
    except Failure:
        # There is no place for a message while somebody types.
        return []
    return [name(each) for each in getattr(page, field)]


def _starting(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    return _starting(_names(ctx, "catalog", "ListModels", "models", lambda m: str(m.model_id)), incomplete)


def regions(ctx: typer.Context, incomplete: str) -> list[str]:
    return _starting(_names(ctx, "catalog", "ListRegions", "regions", lambda r: str(r.region_id)), incomplete)


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    return _starting(_names(ctx, "catalog", "ListNodes", "nodes", lambda n: f"{n.region_id}/{n.node_id}"), incomplete)


def deployments(ctx: typer.Context, incomplete: str) -> list[str]:
    names = _names(
        ctx, "catalog", "ListDeployments", "deployments", lambda d: f"{d.region_id}/{d.node_id}/{d.model_id}"
    )
    return _starting(names, incomplete)


def policies(ctx: typer.Context, incomplete: str) -> list[str]:
    return _starting(_names(ctx, "policy", "ListPolicies", "policies", lambda p: str(p.policy_id)), incomplete)
