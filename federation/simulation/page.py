"""A comparison as one HTML file that needs nothing else: tables and plots as inline SVG, light and dark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from math import ceil, log10

from federation.simulation.report import HEADS, as_json, rows
from federation.simulation.run import Outcome, Scenario

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 26
MAP_HEIGHT = 330
# Colours that people with any colour vision tell apart (Okabe and Ito), on light and on dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#667;--line:#8884;--page:#fff;--land:#8882}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8ea;--dim:#9aa;--page:#16181c}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1500px;margin:2rem auto;
padding:0 1.2rem}h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .4rem}
p{color:var(--dim);margin:.2rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.25rem .9rem .25rem 0;text-align:right;
border-bottom:1px solid var(--line)}th:first-child,td:first-child{text-align:left}.plots{display:grid;gap:1.2rem;
grid-template-columns:repeat(auto-fit,minmax(420px,1fr))}figure{margin:0}figcaption{color:var(--dim)}
svg{width:100%;height:auto}text{fill:var(--dim);font-size:11px}.axis{stroke:var(--line)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 1em}
"""


def render(scenario: Scenario, outcomes: Sequence[Outcome]) -> str:
    """The page's text; the same outcomes give the same text."""
    faults = ", ".join(str(fault) for fault in scenario.faults) or "none"
    load = f"{scenario.load:.0%} of capacity" if scenario.load else "as in the trace"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{escape(scenario.fleet.name)}</title><style>{STYLE}</style>",
        f"<h1>{escape(scenario.fleet.name)}</h1>",
        f"<p>{len(scenario.fleet.nodes)} nodes, {len(scenario.fleet.gateways)} gateways · load {load} · "
        f"faults {escape(faults)} · seed {scenario.seed} · a failure counts as 60 s</p>",
        _table(outcomes),
        "<h2>Time to first token</h2>",
        _legend([outcome.name for outcome in outcomes]),
        "<div class=plots>",
        _figure("p50, seconds", _lines([(o.name, o.series.p50, o.series.bin_seconds) for o in outcomes], log=True)),
        _figure("p99, seconds", _lines([(o.name, o.series.p99, o.series.bin_seconds) for o in outcomes], log=True)),
        "</div><h2>Cost</h2><div class=plots>",
        _figure(
            "US dollars, summed", _lines([(o.name, _summed(o.series.cost_usd), o.series.bin_seconds) for o in outcomes])
        ),
        "</div>",
    ]
    regions = sorted({node.region_id for node in scenario.fleet.nodes})
    parts += ["<h2>Load per region</h2>", _legend(regions), "<div class=plots>"]
    for outcome in outcomes:
        lines = [(region, outcome.series.tokens_by_region[region], outcome.series.bin_seconds) for region in regions]
        parts.append(_figure(f"{outcome.name}: prompt tokens per second", _lines(lines)))
    parts += ["</div><h2>Flows between regions</h2><div class=plots>"]
    parts += [_figure(outcome.name, _map(scenario, outcome)) for outcome in outcomes]
    data = json.dumps(as_json(scenario, outcomes), sort_keys=True).replace("<", "\\u003c")
    parts += ["</div>", f"<script type=application/json id=data>{data}</script></html>\n"]
    return "\n".join(parts)


def _table(outcomes: Sequence[Outcome]) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in HEADS)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows(outcomes))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _legend(names: Sequence[str]) -> str:
    keys = (f"<span class=key style='background:{_colour(n)}'></span>{escape(name)}" for n, name in enumerate(names))
    return f"<p>{''.join(keys)}</p>"


def _figure(caption: str, svg: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _summed(values: Sequence[float]) -> tuple[float, ...]:
    total, found = 0.0, []
    for value in values:
        total += value
        found.append(total)
    return tuple(found)


def _lines(entries: Sequence[tuple[str, Sequence[float], float]], *, log: bool = False) -> str:
    """Curves over time; on a logarithmic scale from 10 ms up where asked."""
    most = max((max(values) for _, values, _ in entries), default=1.0) or 1.0
    end = max(len(values) * width for _, values, width in entries)
    least = 0.01

    def height(value: float) -> float:
        if log:
            low, high = log10(least), max(log10(most), log10(least) + 1)
            share = (log10(max(value, least)) - low) / (high - low)
        else:
            share = value / most
        return TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM)

    parts = [f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img>"]
    marks = [least * 10**n for n in range(ceil(log10(most / least)) + 1)] if log else [most * n / 4 for n in range(5)]
    for mark in marks:
        if mark <= most * 1.0001:
            y = height(mark)
            parts.append(f"<line class=axis x1={LEFT} x2={WIDTH - RIGHT} y1={y:.1f} y2={y:.1f} />")
            parts.append(f"<text x={LEFT - 6} y={y + 4:.1f} text-anchor=end>{_short(mark)}</text>")
    for number in range(5):
        x = LEFT + number / 4 * (WIDTH - LEFT - RIGHT)
        parts.append(f"<text x={x:.1f} y={HEIGHT - 8} text-anchor=middle>{end * number / 4:.0f} s</text>")
    for number, (name, values, width) in enumerate(entries):
        points = " ".join(
            f"{LEFT + (place + 0.5) * width / end * (WIDTH - LEFT - RIGHT):.1f},{height(value):.1f}"
            for place, value in enumerate(values)
        )
        parts.append(
            f"<polyline fill=none stroke='{_colour(number)}' stroke-width=1.8 points='{points}'>"
            f"<title>{escape(name)}</title></polyline>"
        )
    return "".join([*parts, "</svg>"])


def _short(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:.0f}k"
    return f"{value:.3g}"


def _map(scenario: Scenario, outcome: Outcome) -> str:
    """Regions by longitude and latitude (equirectangular), and arcs as wide as the requests that crossed."""
    places = {}
    for region in scenario.fleet.regions:
        assert region.latitude is not None
        assert region.longitude is not None
        x = (region.longitude + 180) / 360 * WIDTH
        y = (75 - region.latitude) / 135 * MAP_HEIGHT
        places[region.region_id] = (x, y)
    parts = [f"<svg viewBox='0 0 {WIDTH} {MAP_HEIGHT}' role=img>"]
    for longitude in range(-180, 181, 30):
        x = (longitude + 180) / 360 * WIDTH
        parts.append(f"<line class=axis x1={x:.0f} x2={x:.0f} y1=0 y2={MAP_HEIGHT} />")
    for latitude in range(-60, 76, 30):
        y = (75 - latitude) / 135 * MAP_HEIGHT
        parts.append(f"<line class=axis x1=0 x2={WIDTH} y1={y:.0f} y2={y:.0f} />")
    total = max(1, outcome.summary.requests)
    own: dict[str, int] = {}
    for pair, count in sorted(outcome.summary.flows.items(), key=lambda item: (-item[1], item[0])):
        source, target = pair.split(" > ")
        if source == target:
            own[source] = count
            continue
        (x1, y1), (x2, y2) = places[source], places[target]
        # Bent to the left of the way, so that there and back are two arcs.
        bend_x, bend_y = (x1 + x2) / 2 + (y2 - y1) * 0.18, (y1 + y2) / 2 - (x2 - x1) * 0.18
        parts.append(
            f"<path d='M{x1:.1f},{y1:.1f} Q{bend_x:.1f},{bend_y:.1f} {x2:.1f},{y2:.1f}' fill=none "
            f"stroke='{_colour(0)}' stroke-opacity=.55 stroke-width={max(0.3, 60 * count / total):.2f}>"
            f"<title>{escape(source)} to {escape(target)}: {count}</title></path>"
        )
    share = outcome.summary.load_by_region
    for name, (x, y) in sorted(places.items()):
        radius = 4 + 26 * share.get(name, 0.0) ** 0.5
        told = f"{name}: {share.get(name, 0.0):.0%} of prompt tokens, {own.get(name, 0)} of its own requests"
        parts.append(
            f"<circle cx={x:.1f} cy={y:.1f} r={radius:.1f} fill='{_colour(1)}' fill-opacity=.6>"
            f"<title>{escape(told)}</title></circle>"
            f"<text x={x:.1f} y={y - radius - 3:.1f} text-anchor=middle>{escape(name)}</text>"
        )
    return "".join([*parts, "</svg>"])
