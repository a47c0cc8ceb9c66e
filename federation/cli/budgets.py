"""`fairway budgets`: what tenants may spend, and what they have spent."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from federation.cli.options import Format, Limit, Remote, output, remote
from federation.cli.output import listing
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="Budgets: what tenants may spend by day and month.")


@command(app, "list", remote=remote, out=output)
def list_budgets(
    remote: Remote,
    out: Format,
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    limit: Limit = 0,
) -> None:
    """List budgets of the running day and month with what is spent of them."""
    from federation.cli.views import BUDGETS
    from federation.v1.fleet_pb2 import ListBudgetsRequest

    with remote.connect() as to:
        pages = to.pages(to.fleet.ListBudgets, ListBudgetsRequest(tenant_id=tenant), "budgets", limit)
        listing(pages, "budgets", out, BUDGETS, _name)


def _name(budget: Any) -> str:
    return f"{budget.policy_id}/{budget.tenant_id}"
