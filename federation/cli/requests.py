"""The request that `route` and `candidates` ask about: from flags, from a file, or from a file that flags change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from federation.cli import completion
from federation.cli.failure import usage
from federation.cli.options import a_duration, pairs

NEEDS = "What the caller needs (hard bounds)"
WHERE = "Where it may run (hard rules)"
SHAPE = "What is known of the prompt"


def _option(help: str, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=panel, **more)


Texts = list[str] | None
Model = Annotated[
    str, typer.Option("--model", "-m", help="The model, by id or alias.", autocompletion=completion.models)
]
Seconds = float | None


def request(
    model: Model = "",
    capability: Annotated[str, _option("What it must be able to do, as in generate or embed.")] = "",
    adapter: Annotated[str, _option("The adapter (LoRA) that must be there.")] = "",
    origin: Annotated[
        str,
        _option(
            "Where it comes from. Default: the control plane's region.",
            metavar="REGION[/ZONE]",
            autocompletion=completion.regions,
        ),
    ] = "",
    tenant: Annotated[str, _option("On whose behalf.")] = "",
    session: Annotated[str, _option("Requests of one session stay together.")] = "",
    priority: Annotated[int | None, _option("Higher goes first when room is short.", min=-1000, max=1000)] = None,
    label: Annotated[Texts, _option("For rules and logs; repeat for more.", metavar="KEY=VALUE")] = None,
    policy: Annotated[
        str, _option("The policy to decide by. Default: the server's.", autocompletion=completion.policies)
    ] = "",
    request_id: Annotated[str, _option("The caller's name for it.")] = "",
    privacy: Annotated[str, _option("public, internal (default), confidential or restricted.", NEEDS)] = "",
    max_ttft: Annotated[
        Seconds, _option("Longest time to the first token.", NEEDS, metavar="DURATION", parser=a_duration)
    ] = None,
    max_latency: Annotated[
        Seconds, _option("Longest time to the last token.", NEEDS, metavar="DURATION", parser=a_duration)
    ] = None,
    max_price: Annotated[
        float | None, _option("USD per million tokens, input and output blended.", NEEDS, min=0)
    ] = None,
    min_throughput: Annotated[float | None, _option("Least tokens per second.", NEEDS, min=0)] = None,
    cost_tolerance: Annotated[
        float | None, _option("How little price matters, 0 to 100; 50 is the policy's word.", NEEDS, min=0, max=100)
    ] = None,
    prefer_gpu: Annotated[bool, _option("Rank nodes without accelerators lower.", NEEDS)] = False,
    input_tokens: Annotated[int | None, _option("Tokens of the prompt.", SHAPE, min=0)] = None,
    output_tokens: Annotated[int | None, _option("Most tokens of the answer.", SHAPE, min=0)] = None,
    only_region: Annotated[
        Texts, _option("Only this region; repeat for more.", WHERE, autocompletion=completion.regions)
    ] = None,
    exclude_region: Annotated[
        Texts, _option("Not this region; repeat for more.", WHERE, autocompletion=completion.regions)
    ] = None,
    jurisdiction: Annotated[Texts, _option("Only there, as in DE or EU; repeat for more.", WHERE)] = None,
    exclude_node: Annotated[
        Texts,
        _option("Not this node; repeat for more.", WHERE, metavar="REGION/NODE", autocompletion=completion.nodes),
    ] = None,
    node_label: Annotated[
        Texts, _option("Only nodes with this label; repeat for more.", WHERE, metavar="KEY=VALUE")
    ] = None,
    allow_substitutes: Annotated[
        bool, _option("Another model of the same equivalence class may answer.", WHERE)
    ] = False,
    request_file: Annotated[
        Path | None,
        typer.Option(
            "--request", metavar="FILE", help="A RouteRequest in TOML, YAML or JSON; - is stdin. Flags change it."
        ),
    ] = None,
) -> Any:
    """Provider: the RouteRequest. Raises Failure (usage)."""
    from federation.cli.documents import enum_number, fill, load_mapping
    from federation.v1.routing_pb2 import RouteRequest
    from federation.v1.types_pb2 import PrivacyLevel

    made = RouteRequest()
    if request_file is not None:
        fill(made, load_mapping(request_file), str(request_file))
    region, _, zone = origin.partition("/")
    for field, text in {
        "model_id": model,
        "capability": capability,
        "adapter": adapter,
        "tenant_id": tenant,
        "session_id": session,
        "policy_id": policy,
        "request_id": request_id,
    }.items():
        if text:
            setattr(made, field, text)
    if region:
        made.origin.region_id, made.origin.zone = region, zone
    if priority is not None:
        made.priority = priority
    for part, field, number in (
        (made.qos, "max_price_usd_per_million_tokens", max_price),
        (made.qos, "min_throughput", min_throughput),
        (made.qos, "cost_tolerance", cost_tolerance),
        (made.prompt, "input_tokens", input_tokens),
        (made.prompt, "max_output_tokens", output_tokens),
    ):
        if number is not None:
            setattr(part, field, number)
    for field, seconds in (("max_time_to_first_token", max_ttft), ("max_latency", max_latency)):
        if seconds is not None:
            getattr(made.qos, field).FromNanoseconds(round(seconds * 1e9))
    if privacy:
        made.qos.privacy_level = enum_number(PrivacyLevel.DESCRIPTOR, privacy, "--privacy")  # type: ignore[assignment]
    if prefer_gpu:
        made.qos.prefer_gpu = True
    if allow_substitutes:
        made.placement.allow_substitutes = True
    made.labels.update(pairs(label or (), "--label"))
    made.placement.node_labels.update(pairs(node_label or (), "--node-label"))
    made.placement.only_regions.extend(only_region or ())
    made.placement.exclude_regions.extend(exclude_region or ())
    made.placement.jurisdictions.extend(jurisdiction or ())
    made.placement.exclude_nodes.extend(exclude_node or ())
    if not made.model_id and not made.capability:
        raise usage(
            "nothing asked for: give --model, or --capability, or both",
            hint="`fairway models list` shows what there is",
        )
    return made
