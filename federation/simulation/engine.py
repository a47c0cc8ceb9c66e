"""The stand-in engine as a process: the OpenAI HTTP API, health, and vLLM's metrics page over a modelled batch.

    python -m federation.simulation.engine --model ORG/NAME [--listen 127.0.0.1:0] [--help]

For demos, tests and benchmarks on machines without accelerators. It prints one JSON line once it listens.
POST /control (JSON, from loopback only) changes it while it runs:

    speed 0.1          ten times slower           fail "500"|"hang"|"reset"|null   how requests fail
    reset true         as after a restart         fail_ratio 0..1                  the share that fails, default 1
    load_seconds 5     loads again for so long    fail_scope "all"|"inference"     "inference" leaves probes alone
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from aiohttp import web

from federation.simulation.batching import BatchProfile
from federation.simulation.openai_api import (
    BadRequest,
    Generation,
    answer,
    chunk,
    read_generation,
    sse_event,
    usage,
    word,
)
from federation.simulation.stand_in import Interrupted, Overloaded, StandIn, Ticket

VERSION = "0.30.0"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Faults:
    """How the engine misbehaves at the moment."""

    ready_at: float
    fail: str | None = None
    ratio: float = 1.0
    scope: str = "all"


def error_response(status: int, kind: str, message: str, **headers: str) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return web.json_response(body, status=status, headers=headers)


class EngineServer:
    """Routes of one stand-in. `app` is ready to be served; `engine.run` runs with it."""

    def __init__(
        self,
        engine: StandIn,
        model: str,
        *,
        served_names: Sequence[str] = (),
        max_model_len: int = 32_768,
        load_seconds: float = 0.0,
        rng: Random,
    ) -> None:
        self.engine = engine
        self.served_names = tuple(served_names) or (model,)
        self._model = model
        self._max_model_len = max_model_len
        self._load_seconds = load_seconds
        self._rng = rng
        self._initial_speed = engine.clock.speed
        self._faults = Faults(engine.clock.now() + load_seconds)
        self.app = web.Application(middlewares=[self._misbehave], client_max_size=16 << 20)
        self.app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/ping", self._health),
                web.get("/version", self._version),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._complete),
                web.post("/v1/load_lora_adapter", self._load_adapter),
                web.post("/v1/unload_lora_adapter", self._unload_adapter),
                web.post("/control", self._control),
            ]
        )
        self.app.cleanup_ctx.append(self._driver)

    async def _driver(self, _: web.Application) -> Any:
        task = asyncio.create_task(self.engine.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        faults = self._faults
        if request.path == "/control":
            return await handler(request)
        inference = request.path.startswith("/v1/") and request.path != "/v1/models"
        if faults.fail and (faults.scope == "all" or inference) and self._rng.random() < faults.ratio:
            match faults.fail:
                case "hang":
                    # Ends when the client gives up: the server cancels handlers whose client went away.
                    await asyncio.Event().wait()
                case "reset" if request.transport is not None:
                    request.transport.abort()
            return error_response(500, "InternalServerError", "the engine was told to fail")
        if request.path != "/version" and self.engine.clock.now() < faults.ready_at:
            return error_response(503, "ServiceUnavailableError", "the model is being loaded")
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.engine.page.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _models(self, _: web.Request) -> web.Response:
        base = {"object": "model", "created": 1_790_000_000, "owned_by": "vllm"}
        cards = [
            {**base, "id": name, "root": self._model, "parent": None, "max_model_len": self._max_model_len}
            for name in self.served_names
        ]
        adapter = {**base, "parent": self.served_names[0], "max_model_len": None}
        cards += [{**adapter, "id": name, "root": name} for name in sorted(self.engine.adapters)]
        return web.json_response({"object": "list", "data": cards})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        ticket = None
        try:
            models = (*self.served_names, *self.engine.adapters)
            asked = read_generation(await _json(request), chat, models, self._max_model_len)
            ticket = self.engine.submit(asked.prompt, asked.prompt_tokens, asked.max_tokens, asked.min_tokens)
            if asked.stream:
                return await self._stream(request, asked, ticket)
            await self.engine.completed(ticket)
            return web.json_response(answer(asked, ticket), headers=self._load_report(request))
        except BadRequest as error:
            return error_response(error.status, error.kind, str(error))
        except Overloaded as error:
            return error_response(429, "TooManyRequestsError", str(error), **{"Retry-After": "1"})
        except Interrupted as error:
            return error_response(500, "InternalServerError", str(error))
        finally:
            if ticket is not None:
                self.engine.cancel(ticket)

    async def _stream(self, request: web.Request, asked: Generation, ticket: Ticket) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        sent = 0
        try:
            # Headers wait for the first token, so that a rejection still gets its own status.
            async for count in self.engine.tokens(ticket):
                if not response.prepared:
                    response.headers.update(self._load_report(request))
                    await response.prepare(request)
                    if asked.chat:
                        await response.write(sse_event(chunk(asked, ticket, {"role": "assistant", "content": ""})))
                # One event a token, one write for all that came since the last.
                words = (word(ticket, sent + offset) for offset in range(count))
                await response.write(b"".join(sse_event(chunk(asked, ticket, {"content": text})) for text in words))
                sent += count
        except Interrupted:
            if not response.prepared:
                raise
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write(sse_event(chunk(asked, ticket, {}, ticket.finish_reason)))
        if asked.include_usage:
            await response.write(sse_event({**chunk(asked, ticket, {}), "choices": [], "usage": usage(ticket)}))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _load_report(self, request: web.Request) -> dict[str, str]:
        """ORCA's load report in an answer's headers, for callers that ask for it."""
        wanted = request.headers.get("endpoint-load-metrics-format", "").upper()
        running, waiting, usage = self.engine.load
        metrics = {"kv_cache_usage_perc": usage, "num_requests_running": running, "num_requests_waiting": waiting}
        match wanted:
            case "TEXT":
                text = ", ".join(f"named_metrics.{name}={value:g}" for name, value in metrics.items())
                return {"endpoint-load-metrics": f"TEXT {text}"}
            case "JSON":
                return {"endpoint-load-metrics": f"JSON {json.dumps({'named_metrics': metrics})}"}
            case _:
                return {}

    async def _load_adapter(self, request: web.Request) -> web.Response:
        name = _text(await _json(request), "lora_name")
        self.engine.adapters[name] = time.time()
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload_adapter(self, request: web.Request) -> web.Response:
        name = _text(await _json(request), "lora_name")
        if self.engine.adapters.pop(name, None) is None:
            return error_response(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _control(self, request: web.Request) -> web.Response:
        remote = ipaddress.ip_address((request.remote or "0.0.0.0").partition("%")[0])
        # A JSON content type cannot be sent by a web page without asking first, so browsers stay out as well.
        if not remote.is_loopback or request.content_type != "application/json":
            return error_response(403, "Forbidden", "/control takes application/json from loopback addresses only")
        try:
            self._apply(await _json(request))
        except (BadRequest, ValueError) as error:
            return error_response(400, "BadRequestError", str(error))
        faults = self._faults
        return web.json_response({"speed": self.engine.clock.speed, "fail": faults.fail, "fail_ratio": faults.ratio})

    def _apply(self, change: object) -> None:
        known = {"speed", "fail", "fail_ratio", "fail_scope", "load_seconds", "reset"}
        if not isinstance(change, dict) or not change.keys() <= known:
            raise BadRequest(f"the body must be an object with some of: {', '.join(sorted(known))}")
        faults = Faults(self._faults.ready_at, self._faults.fail, self._faults.ratio, self._faults.scope)
        if change.get("reset"):
            faults = Faults(self.engine.clock.now() + self._load_seconds)
        if "load_seconds" in change:
            faults.ready_at = self.engine.clock.now() + float(change["load_seconds"])
        faults.fail = change.get("fail", faults.fail)
        faults.ratio = float(change.get("fail_ratio", faults.ratio))
        faults.scope = change.get("fail_scope", faults.scope)
        if faults.fail not in (None, "500", "hang", "reset"):
            raise BadRequest(f'fail is {faults.fail!r}; it must be "500", "hang", "reset" or null')
        if not 0 <= faults.ratio <= 1 or faults.scope not in ("all", "inference"):
            raise BadRequest('fail_ratio must be between 0 and 1, fail_scope "all" or "inference"')
        speed = float(change.get("speed", self._initial_speed if change.get("reset") else self.engine.clock.speed))
        self.engine.set_speed(speed)
        if change.get("reset"):
            self.engine.reset()
        self._faults = faults


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def _text(body: object, name: str) -> str:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise web.HTTPBadRequest(text=f"{name} must be a string that is not empty")
    return value


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m federation.simulation.engine", description="A stand-in engine.")
    add = parser.add_argument
    add("--listen", default="127.0.0.1:0", help="host:port; port 0 takes a free one")
    add("--model", required=True, help="the model's id")
    add(
        "--served-name", action="append", default=[], help="name in requests; may be repeated (default: the model's id)"
    )
    add("--prefill-seconds-per-token", type=float, default=0.0001)
    add("--min-ttft", type=float, default=0.03, help="least seconds to a first token")
    add("--decode-tokens-per-second", type=float, default=60.0, help="of a request that runs alone")
    add("--max-batch", type=int, default=64, help="sequences that run together")
    add("--kv-cache-tokens", type=int, default=200_000)
    add("--max-waiting", type=int, default=1_000, help="requests that may wait; more are answered with 429")
    add("--max-model-len", type=int, default=32_768, help="tokens of prompt and answer together")
    add("--mean-output-tokens", type=float, default=128.0, help="mean length of answers that no limit ends")
    add("--speed", type=float, default=1.0, help="how many times faster than the profile says")
    add("--load-seconds", type=float, default=0.0, help="how long it answers 503 at first")
    add("--seed", type=int, default=0, help="of answer lengths and fault draws")
    add("--ready-file", type=Path, help="also write the JSON line here once it listens")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    profile = BatchProfile(
        prefill_seconds_per_token=options.prefill_seconds_per_token,
        min_time_to_first_token_seconds=options.min_ttft,
        decode_tokens_per_second=options.decode_tokens_per_second,
        max_batch_size=options.max_batch,
        kv_cache_tokens=options.kv_cache_tokens,
        max_waiting=options.max_waiting,
    )
    names = options.served_name or [options.model]
    engine = StandIn(
        profile,
        names[0],
        clock=loop.time,
        rng=Random(options.seed),
        speed=options.speed,
        mean_output_tokens=options.mean_output_tokens,
    )
    server = EngineServer(
        engine,
        options.model,
        served_names=names,
        max_model_len=options.max_model_len,
        load_seconds=options.load_seconds,
        rng=Random(options.seed + 1),
    )
    host, _, port = options.listen.rpartition(":")
    runner = web.AppRunner(server.app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, host.strip("[]"), int(port)).start()
    bound = runner.addresses[0]
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    line = json.dumps(
        {"event": "listening", "address": f"http://{shown}:{bound[1]}", "models": names, "pid": os.getpid()}
    )
    if options.ready_file is not None:
        # Renamed into place: who waits for the file never reads half of it.
        partial = options.ready_file.with_suffix(".partial")
        partial.write_text(line + "\n")
        partial.replace(options.ready_file)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    asyncio.run(serve(parse_arguments(sys.argv[1:])))


if __name__ == "__main__":
    main()
