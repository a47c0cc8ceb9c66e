"""`fairway agent`: the process beside an engine that registers it, renews its lease and reports its load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from federation.cli import completion
from federation.cli.failure import usage
from federation.cli.options import DEFAULT_SERVER, a_duration, pairs
from federation.cli.wiring import command

NODE, PRICE, SECURITY = "The node", "Prices and limits of its deployments", "Security"
SPEED = "Declared speed of its deployments (what is not declared is learned)"


class OnExit(StrEnum):
    """What becomes of the node when its agent is told to end."""

    DRAIN = "drain"
    DEREGISTER = "deregister"


class Privacy(StrEnum):
    """The most sensitive prompt that a node may serve."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


class EngineKind(StrEnum):
    """Which server listens at the engine's address."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TGI = "tgi"
    TRITON = "triton"
    TRTLLM = "trtllm"
    OPENAI = "openai"
    GRPC = "grpc"


def add_to(app: typer.Typer, panel: str) -> None:
    """Adds the command to the root."""
    command(app, "agent", panel=panel)(agent)


def _option(help: str, panel: str, **more: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=panel, **more)


Price = float | None
Texts = list[str] | None


def agent(
    engine_url: Annotated[
        str, typer.Option(metavar="URL", help="Where the engine listens, as in http://127.0.0.1:8000.")
    ],
    region: Annotated[str, typer.Option(metavar="ID", help="The region that it stands in.")],
    control_plane: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT", envvar="FAIRWAY_SERVER", help=f"Repeat for replicas. Default: {DEFAULT_SERVER}."
        ),
    ] = None,
    advertise: Annotated[str, typer.Option(metavar="URL", help="Where gateways reach it. Default: --engine-url.")] = "",
    node: Annotated[str, _option("Its name. Default: host name and port.", NODE, metavar="ID")] = "",
    zone: Annotated[str, _option("Failure domain within the region.", NODE)] = "",
    engine: Annotated[EngineKind | None, _option("Which server it is. Default: found out.", NODE)] = None,
    privacy_level: Annotated[Privacy | None, _option("Most sensitive prompt that it may serve.", NODE)] = None,
    accelerator: Annotated[str, _option('Kind of accelerator, as in "H100".', NODE)] = "",
    accelerator_count: Annotated[int, _option("How many of them.", NODE, min=0)] = 0,
    label: Annotated[Texts, _option("A label; repeat for more.", NODE, metavar="KEY=VALUE")] = None,
    tenant: Annotated[Texts, _option("Only for this tenant; repeat for more.", NODE)] = None,
    model: Annotated[
        Texts,
        _option(
            "Register a served name under another id; repeat.",
            NODE,
            metavar="SERVED[=ID]",
            autocompletion=completion.models,
        ),
    ] = None,
    capability: Annotated[Texts, _option("What its models can do; repeat for more.", NODE)] = None,
    price_per_hour: Annotated[Price, _option("US dollars an hour of the whole node.", PRICE, min=0)] = None,
    price_input: Annotated[Price, _option("USD per million prompt tokens.", PRICE, min=0)] = None,
    price_output: Annotated[Price, _option("USD per million generated tokens.", PRICE, min=0)] = None,
    price_cached: Annotated[Price, _option("USD per million cached prompt tokens.", PRICE, min=0)] = None,
    max_concurrency: Annotated[int | None, _option("Requests at once, for each deployment.", PRICE, min=1)] = None,
    prefill_seconds_per_token: Annotated[float | None, _option("What one prompt token costs.", SPEED, min=0)] = None,
    min_ttft: Annotated[
        float | None,
        _option("Least time to a first token, however short the prompt.", SPEED, metavar="DURATION", parser=a_duration),
    ] = None,
    decode_tokens_per_second: Annotated[
        float | None, _option("Of a request that runs alone.", SPEED, min=0.001)
    ] = None,
    max_batch: Annotated[int | None, _option("Sequences that decode together.", SPEED, min=1)] = None,
    kv_cache_tokens: Annotated[int | None, _option("Tokens that the KV cache holds.", SPEED, min=1)] = None,
    lease: Annotated[
        float,
        typer.Option(
            metavar="DURATION",
            parser=a_duration,
            show_default="30s",
            help="Life without a heartbeat. 0: until deregistered.",
        ),
    ] = 30.0,
    on_exit: Annotated[
        OnExit, typer.Option(help="drain waits for what runs, then deregisters; deregister does it at once.")
    ] = OnExit.DRAIN,
    drain_for: Annotated[
        float, typer.Option(metavar="DURATION", parser=a_duration, show_default="30s", help="Longest wait of a drain.")
    ] = 30.0,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    engine_token_file: Annotated[Path | None, _option("Bearer token for the engine.", SECURITY, metavar="FILE")] = None,
    tls_ca: Annotated[Path | None, _option("CA of the control plane, PEM.", SECURITY, metavar="FILE")] = None,
    tls_cert: Annotated[Path | None, _option("Own certificate, PEM.", SECURITY, metavar="FILE")] = None,
    tls_key: Annotated[Path | None, _option("Its key, PEM.", SECURITY, metavar="FILE")] = None,
) -> None:
    """Register the engine beside it as a node, renew its lease, report its load; Ctrl-C or SIGTERM ends it."""
    import asyncio
    import random
    import time

    from catalog.types import Engine, PrivacyLevel, ServingProfile
    from federation import logs
    from federation.agent import AgentOptions, run_agent
    from federation.agent.options import ALL_MODELS
    from federation.cli.documents import read_text
    from federation.cli.failure import ExitCode
    from federation.cli.settings import loaded
    from federation.edge.service_config import TlsOptions

    try:
        options = AgentOptions(
            engine_url=engine_url,
            control_plane=control_plane or DEFAULT_SERVER,
            region_id=region,
            advertise=advertise,
            node_id=node,
            zone=zone,
            engine=Engine(engine.value) if engine is not None else None,
            privacy_level=PrivacyLevel[privacy_level.name] if privacy_level is not None else None,
            accelerator=accelerator,
            accelerator_count=accelerator_count,
            price_usd_per_hour=price_per_hour,
            labels=pairs(label or (), "--label"),
            tenant_ids=tuple(tenant or ()),
            model_ids={served: given or served for served, _, given in (text.partition("=") for text in model or ())},
            model_capabilities={ALL_MODELS: tuple(capability)} if capability else {},
            price_usd_per_million_input_tokens=price_input,
            price_usd_per_million_output_tokens=price_output,
            price_usd_per_million_cached_tokens=price_cached,
            max_concurrency=max_concurrency,
            profile=ServingProfile(
                prefill_seconds_per_token, min_ttft, decode_tokens_per_second, max_batch, kv_cache_tokens
            ),
            lease_seconds=lease,
            on_exit=on_exit.value,
            drain_seconds=drain_for,
            engine_token=read_text(engine_token_file).strip() if engine_token_file is not None else "",
            tls=TlsOptions(tls_ca, tls_cert, tls_key) if tls_ca or tls_cert or tls_key else None,
        )
    except ValueError as error:
        raise usage(str(error)) from error
    logs.configure(loaded(None, {"telemetry.log_level": log_level}, ExitCode.USAGE).settings.telemetry)
    raise typer.Exit(asyncio.run(run_agent(options, clock=time.monotonic, rng=random.Random())))
