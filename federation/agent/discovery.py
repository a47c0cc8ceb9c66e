"""Which engine answers at an address, and what it serves.

An engine is known by its metrics' names first, then by who it says owns its models, then by paths that only it has.
`recognise` and `read_models` are pure; `Probe` asks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from catalog.types import Engine
from federation.health.engines import DIALECTS
from federation.health.engines.page import EngineMetrics

TIMEOUT_SECONDS = 5.0
# A model list of thousands of adapters stays under this; what is larger is not a model list.
MAX_BODY_BYTES = 8 << 20
ASKED = ("/v1/models", "/version", "/metrics", "/info", "/v2/health/ready")

# Triton goes first: with the vLLM back end its page holds vLLM's families as well.
METRIC_PREFIXES = (
    ("nv_", Engine.TRITON),
    ("vllm:", Engine.VLLM),
    ("sglang:", Engine.SGLANG),
    ("tgi_", Engine.TGI),
    ("trtllm_", Engine.TRTLLM),
)
OWNERS = {"vllm": Engine.VLLM, "sglang": Engine.SGLANG, "tensorrt_llm": Engine.TRTLLM, "trtllm": Engine.TRTLLM}


class NotReady(Exception):
    """The engine does not serve yet; the message says what it answered."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `status` 0 where there was none, and `text` then says why."""

    status: int
    text: str

    @property
    def ok(self) -> bool:
        return self.status == 200

    def json(self) -> Any:
        """The body, or None where it is not JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model by the name that its engine gives it, with the adapters on top of it."""

    name: str
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Discovered:
    """What answers at the address. Two equal ones need no new registration."""

    engine: Engine
    models: tuple[ServedModel, ...]


def recognise(replies: Mapping[str, Reply]) -> Engine | None:
    """The engine that gave these replies (by path); None if nothing that is known did."""
    page = replies.get("/metrics")
    if page is not None and page.ok:
        for prefix, engine in METRIC_PREFIXES:
            if page.text.startswith(prefix) or f"\n{prefix}" in page.text:
                return engine
    listed = replies.get("/v1/models")
    cards = _cards(listed) if listed is not None else None
    for card in cards or ():
        if (owner := OWNERS.get(str(card.get("owned_by", "")).lower())) is not None:
            return owner
    info = replies.get("/info")
    described = info.json() if info is not None and info.ok else None
    if isinstance(described, dict) and "model_id" in described and {"router", "docker_label"} & described.keys():
        return Engine.TGI
    ready = replies.get("/v2/health/ready")
    if ready is not None and ready.ok and cards is None:
        return Engine.TRITON
    return Engine.OPENAI if cards is not None else None


def read_models(engine: Engine, reply: Reply) -> tuple[ServedModel, ...]:
    """What an engine's list says, in order of names. Raises NotReady where it is none, or empty."""
    match engine:
        case Engine.TGI:
            described = reply.json()
            name = described.get("model_id") if isinstance(described, dict) else None
            models = [ServedModel(name)] if isinstance(name, str) and name else []
        case Engine.TRITON:
            index = reply.json()
            entries = [entry for entry in index if isinstance(entry, dict)] if isinstance(index, list) else []
            names = {str(entry["name"]) for entry in entries if entry.get("state") == "READY" and entry.get("name")}
            models = [ServedModel(name) for name in names]
        case _:
            models = _openai_models(reply)
    if not models:
        raise NotReady(f"it lists no model (status {reply.status})")
    return tuple(sorted(models, key=lambda model: model.name))


def _openai_models(reply: Reply) -> list[ServedModel]:
    cards = [card for card in _cards(reply) or () if isinstance(card.get("id"), str) and card["id"]]
    bases = {card["id"] for card in cards if not card.get("parent")}
    adapters: dict[str, set[str]] = {name: set() for name in bases}
    for card in cards:
        parent = card.get("parent")
        if not parent:
            continue
        # An adapter may name its base by another of its names; with one base there is no doubt which is meant.
        base = parent if parent in bases else next(iter(bases)) if len(bases) == 1 else None
        if base is not None:
            adapters[base].add(card["id"])
    return [ServedModel(name, tuple(sorted(found))) for name, found in adapters.items()]


def _cards(reply: Reply) -> list[dict[str, Any]] | None:
    """The entries of an OpenAI model list; None where it is none."""
    body = reply.json() if reply.ok else None
    if not isinstance(body, dict) or not isinstance(body.get("data"), list):
        return None
    return [card for card in body["data"] if isinstance(card, dict)]


class Probe:
    """Asks one engine. Everything is bounded: 5 s, 8 MiB, no redirects."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, *, token: str = "", engine: Engine | None = None
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._token = token
        self._engine = engine

    async def discover(self, grpc_models: tuple[str, ...] = ()) -> Discovered:
        """What answers, once it is healthy and lists models. Raises NotReady until then."""
        if urlsplit(self._url).scheme.startswith("grpc"):
            return Discovered(Engine.GRPC, tuple(ServedModel(name) for name in sorted(grpc_models)))
        engine = self._engine
        if engine is None:
            replies = dict(zip(ASKED, await asyncio.gather(*map(self._ask, ASKED)), strict=True))
            engine = recognise(replies)
            if engine is None:
                shown = ", ".join(f"{path} {_shown(reply)}" for path, reply in replies.items())
                raise NotReady(f"nothing that is known answers: {shown}")
        return await self.look(engine)

    async def look(self, engine: Engine) -> Discovered:
        """What a known engine serves now. Raises NotReady where it is not healthy, or lists nothing."""
        if engine is Engine.GRPC:
            raise NotReady("a gRPC engine lists no models")
        dialect = DIALECTS[engine]
        health = await self._ask(dialect.health_path)
        if not health.ok:
            raise NotReady(f"{dialect.health_path} answers {_shown(health)}")
        # TGI names its one model in its description only.
        path = "/info" if engine is Engine.TGI else dialect.models_path
        return Discovered(engine, read_models(engine, await self._ask(path, dialect.models_method)))

    async def metrics(self, engine: Engine) -> EngineMetrics | None:
        """What the engine's metrics page says; None where it has none or does not answer."""
        dialect = DIALECTS[engine]
        if not dialect.metrics_path:
            return None
        base = self._url
        url = urlsplit(base)
        if url.port is not None and dialect.metrics_ports and url.port in dialect.metrics_ports:
            host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
            base = f"{url.scheme}://{host}:{dialect.metrics_ports[url.port]}"
        reply = await self._ask(dialect.metrics_path, base=base)
        return dialect.parse(reply.text) if reply.ok else None

    async def _ask(self, path: str, method: str = "GET", base: str = "") -> Reply:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token and path.startswith("/v1/") else {}
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                async with self._session.request(
                    method, (base or self._url) + path, headers=headers, allow_redirects=False
                ) as response:
                    body = await response.content.read(MAX_BODY_BYTES + 1)
                    while len(body) <= MAX_BODY_BYTES and (more := await response.content.read(MAX_BODY_BYTES)):
                        body += more
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Reply(0, f"{type(error).__name__}: {error}")
        if len(body) > MAX_BODY_BYTES:
            return Reply(0, f"the body is over {MAX_BODY_BYTES} bytes")
        return Reply(response.status, body.decode(errors="replace"))


def _shown(reply: Reply) -> str:
    return str(reply.status) if reply.status else f"not at all ({reply.text})"
