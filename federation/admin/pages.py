"""The admin port: /metrics, /livez, /readyz, and a page that tells of them; for loopback or behind a network policy."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from aiohttp import web

# A loop that was away for so long answers no call in time: a restart is the better choice. Short stalls, of a large
# rebuild or a starved machine, must not kill a server that serves.
MAX_LAG_SECONDS = 10.0


def application(
    *,
    metrics: Callable[[str], tuple[bytes, str]],
    loop_lag: Callable[[], float],
    not_ready: Callable[[], str],
    remark: Callable[[], str],
    summary: Callable[[], dict[str, str]],
) -> web.Application:
    """`not_ready` tells why no traffic should come, "" where it may; `remark` what is wrong all the same."""

    async def show_metrics(request: web.Request) -> web.Response:
        body, content_type = metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def livez(request: web.Request) -> web.Response:
        lag = loop_lag()
        if lag > MAX_LAG_SECONDS:
            return web.Response(
                status=503, text=f"event loop lagged {lag:.1f} s; the limit is {MAX_LAG_SECONDS:.0f} s\n"
            )
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        reason = not_ready()
        if reason:
            return web.Response(status=503, text=f"{reason}\n")
        return web.Response(text="".join(f"{line}\n" for line in ("ok", remark()) if line))

    async def index(request: web.Request) -> web.Response:
        rows = "".join(f"<tr><th>{escape(key)}<td>{escape(value)}" for key, value in summary().items())
        links = " · ".join(f'<a href="{path}">{path}</a>' for path in ("/metrics", "/livez", "/readyz"))
        return web.Response(text=PAGE.format(rows=rows, links=links), content_type="text/html", headers=HEADERS)

    app = web.Application(client_max_size=64 * 1024)
    app.router.add_get("/", index)
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    return app


HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Fairway</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 44rem; padding: 0 1rem }}
th {{ text-align: left; padding-right: 2rem; font-weight: 500 }}
</style>
<h1>Fairway</h1><table>{rows}</table><p>{links}
"""
