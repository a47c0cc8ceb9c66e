"""The admin port of a server of several workers: their metrics under a label `worker`, and who of them is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

# Longer than a worker takes that is busy; a scrape waits for the slowest.
ANSWER_SECONDS = 3.0

Ask = Callable[[str], Awaitable[Mapping[int, tuple[int, str]]]]


async def ask_all(sockets: Mapping[int, Path], path: str) -> dict[int, tuple[int, str]]:
    """Each worker's status and text; (0, why) for one that does not answer."""

    async def ask(socket: Path) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=timeout) as http,
                http.get(f"http://worker{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError):
            return 0, "not running\n"
        except TimeoutError:
            return 0, "does not answer\n"

    answers = await asyncio.gather(*(ask(socket) for socket in sockets.values()))
    return dict(zip(sockets, answers, strict=True))


def application(ask: Ask, restarts: Callable[[], Mapping[int, int]]) -> web.Application:
    """`restarts` tells how often each worker was started again."""

    async def readyz(request: web.Request) -> web.Response:
        answers = await ask("/readyz")
        text = "".join(f"worker {number}: {text}" for number, (_, text) in answers.items())
        # One that serves is enough: the others' connections come to it.
        ready = any(status == 200 for status, _ in answers.values())
        return web.Response(status=200 if ready else 503, text=text)

    async def livez(request: web.Request) -> web.Response:
        # A worker that ended is started again from here.
        return web.Response(text="ok\n")

    async def metrics(request: web.Request) -> web.Response:
        answers = await ask("/metrics")
        pages = {number: text for number, (status, text) in answers.items() if status == 200}
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Merged(pages, restarts()))
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application(client_max_size=64 * 1024)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


class _Merged(Collector):
    def __init__(self, pages: Mapping[int, str], restarts: Mapping[int, int]) -> None:
        self._pages = pages
        self._restarts = restarts

    def collect(self) -> Iterable[Metric]:
        answering = GaugeMetricFamily("worker_up", "1 for a worker that answers.", labels=["worker"])
        again = CounterMetricFamily("worker_restarts", "Workers started again after they ended.", labels=["worker"])
        for number, count in self._restarts.items():
            answering.add_metric([str(number)], float(number in self._pages))
            again.add_metric([str(number)], float(count))
        return [answering, again, *merged(self._pages)]


def merged(pages: Mapping[int, str]) -> list[Metric]:
    """The families of all pages, each sample with its worker."""
    families: dict[str, Metric] = {}
    for number, text in pages.items():
        for found in text_string_to_metric_families(text):
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            family.samples += [
                Sample(each.name, {**each.labels, "worker": str(number)}, each.value, each.timestamp)
                for each in found.samples
            ]
    return list(families.values())
