"""`fairway models`: what weights answer to an id."""

from __future__ import annotations

from typing import Annotated

import typer

from federation.cli import completion
from federation.cli.failure import usage
from federation.cli.options import Etag, File, Format, Limit, Remote, Replace, output, remote
from federation.cli.output import detail, listing, written
from federation.cli.wiring import command

app = typer.Typer(no_args_is_help=True, help="Models: what weights answer to an id.")

ModelId = Annotated[str, typer.Argument(metavar="MODEL", autocompletion=completion.models, show_default=False)]


@command(app, "list", remote=remote, out=output)
def list_models(
    remote: Remote,
    out: Format,
    capability: Annotated[str, typer.Option(help="Only models that can do this.")] = "",
    limit: Limit = 0,
) -> None:
    """List models in the order of their ids."""
    from federation.cli.views import MODELS
    from federation.v1.catalog_pb2 import ListModelsRequest

    with remote.connect() as to:
        pages = to.pages(to.catalog.ListModels, ListModelsRequest(capability=capability), "models", limit)
        listing(pages, "models", out, MODELS, lambda model: str(model.model_id))


@command(app, "get", remote=remote, out=output)
def get_model(remote: Remote, out: Format, model_id: ModelId) -> None:
    """Show one model, by id or alias."""
    from federation.v1.catalog_pb2 import GetModelRequest

    with remote.connect() as to:
        model = to.ask(to.catalog.GetModel, GetModelRequest(model_id=model_id)).model
    detail(model, out, model.model_id)


@command(app, "register", remote=remote, out=output)
def register_model(
    remote: Remote,
    out: Format,
    model_id: Annotated[str, typer.Argument(metavar="[MODEL]", show_default=False)] = "",
    file: File = None,
    family: Annotated[str, typer.Option(help='The family, as in "llama".')] = "",
    version: Annotated[str, typer.Option(help='The version within the family, as in "3.1".')] = "",
    quantization: Annotated[str, typer.Option(help='Number format of the weights, as in "fp8".')] = "",
    context_window: Annotated[int | None, typer.Option(min=1, help="Tokens of prompt and answer together.")] = None,
    modality: Annotated[str, typer.Option(help='What goes in and out, as in "text".')] = "",
    tokenizer: Annotated[str, typer.Option(help="The tokenizer's name.")] = "",
    capability: Annotated[list[str] | None, typer.Option(help="What it can do; repeat for more.")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another id for it; repeat for more.")] = None,
    equivalence_class: Annotated[str, typer.Option(help="Models of one class may stand in for each other.")] = "",
    etag: Etag = "",
    replace: Replace = False,
) -> None:
    """Store a model's description, from flags or from a file."""
    from federation.cli.documents import fill, forget, load_mapping
    from federation.v1.catalog_pb2 import RegisterModelRequest

    request = RegisterModelRequest()
    model = request.model
    if file is not None:
        fill(model, load_mapping(file), str(file))
        forget(model, "owner", "revision")
    model.model_id = model_id or model.model_id
    if not model.model_id:
        raise usage("no model named: give its id, or --file")
    model.family = family or model.family
    model.version = version or model.version
    model.quantization = quantization or model.quantization
    model.modality = modality or model.modality
    model.tokenizer = tokenizer or model.tokenizer
    model.equivalence_class = equivalence_class or model.equivalence_class
    if context_window is not None:
        model.context_window_tokens = context_window
    model.capabilities.extend(capability or ())
    model.aliases.extend(alias or ())
    model.etag = etag or model.etag
    with remote.connect() as to:
        stored = to.write(to.catalog.RegisterModel, request, model, replace=replace).model
    written(stored, out, stored.model_id, "registered")


@command(app, "deregister", remote=remote, out=output)
def deregister_model(remote: Remote, out: Format, model_id: ModelId, etag: Etag = "") -> None:
    """Remove a model's description; no node may serve it any more."""
    from federation.v1.catalog_pb2 import DeregisterModelRequest

    with remote.connect() as to:
        answer = to.ask(to.catalog.DeregisterModel, DeregisterModelRequest(model_id=model_id, etag=etag))
    written(answer, out, model_id, "deregistered")
