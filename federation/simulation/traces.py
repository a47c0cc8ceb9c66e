"""Traces: which requests come when, how long they are, and what they share; from CSV or JSON lines, gzip or not.

Columns are recognized by their names, those of public traces included: Azure's LLM inference traces (`t_s` or
`TIMESTAMP`, `context_tokens`, `generated_tokens`) and Mooncake's (`timestamp` in milliseconds, `input_length`,
`output_length`, `hash_ids`).  Our own are `arrival_seconds`, `input_tokens`, `output_tokens` and, where known,
`prefix_hashes`, `session_id` and `priority`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from federation.simulation.batching import BatchProfile, ContinuousBatch
from federation.simulation.fleet import Fleet, FleetInvalid, FleetNode, read_shipped
from policies import chance

# Requests that measure a capacity; more change it by under 1 % on the public traces.
CAPACITY_REQUESTS = 1_500
# Requests kept waiting while a capacity is measured: enough that neither batch nor prefill ever lacks work.
CAPACITY_BACKLOG = 200


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request: seconds from the start of the trace, tokens, hashes of its prompt's blocks."""

    arrival: float
    input_tokens: int
    output_tokens: int
    prefix_hashes: tuple[int, ...] = ()
    session_id: str = ""
    priority: int = 0


# Field of ours -> names it goes by, and what its unit is multiplied with.
NAMES: Mapping[str, tuple[tuple[str, float], ...]] = {
    "arrival": (("arrival_seconds", 1.0), ("t_s", 1.0), ("timestamp", 0.001), ("TIMESTAMP", 1.0)),
    "input": (("input_tokens", 1), ("context_tokens", 1), ("ContextTokens", 1), ("input_length", 1)),
    "output": (("output_tokens", 1), ("generated_tokens", 1), ("GeneratedTokens", 1), ("output_length", 1)),
    "hashes": (("prefix_hashes", 1), ("hash_ids", 1)),
}


def load_trace(path: str) -> tuple[TraceRequest, ...]:
    """A trace by file, or by the name of one that ships with the program, in order of arrival. Raises FleetInvalid."""
    data, origin = read_shipped(path, "csv" if not path.endswith(".gz") else "gz", "trace")
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        # Spreadsheets put a mark before the first name.
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FleetInvalid(f"{origin} cannot be read: {error}") from error
    lines: Iterable[object]
    if text.lstrip()[:1] == "{":
        lines = (json.loads(line) for line in text.splitlines() if line.strip())
    else:
        lines = csv.DictReader(io.StringIO(text))
    found: list[TraceRequest] = []
    try:
        found.extend(_request(row, f"{origin}: request {number}") for number, row in enumerate(lines, 1))
    except json.JSONDecodeError as error:
        raise FleetInvalid(f"{origin} has a line that is no JSON after request {len(found)}: {error}") from error
    if not found:
        raise FleetInvalid(f"{origin} holds no request")
    found.sort(key=lambda request: request.arrival)
    start = found[0].arrival
    return tuple(replace(request, arrival=request.arrival - start) for request in found)


def _request(row: object, where: str) -> TraceRequest:
    if not isinstance(row, Mapping):
        raise FleetInvalid(f"{where} is no object with fields, but {row!r:.60}")

    def value(field: str) -> tuple[Any, float]:
        for name, unit in NAMES[field]:
            if row.get(name) not in (None, ""):
                return row[name], unit
        names = " or ".join(name for name, _ in NAMES[field])
        raise FleetInvalid(f"{where} has no {names}")

    try:
        moment, unit = value("arrival")
        text = str(moment)
        arrival = (
            datetime.fromisoformat(text[:26]).timestamp() if "-" in text[1:] and ":" in text else float(text) * unit
        )
        if not math.isfinite(arrival):
            raise ValueError(f"it arrives at {text}")
        hashes = row.get("prefix_hashes") or row.get("hash_ids") or ()
        if isinstance(hashes, str):
            hashes = hashes.split()
        return TraceRequest(
            arrival,
            max(1, int(value("input")[0])),
            max(1, int(value("output")[0])),
            tuple(prefix_chain(tuple(int(each) for each in hashes))),
            str(row.get("session_id") or ""),
            int(row.get("priority") or 0),
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, FleetInvalid):
            raise
        raise FleetInvalid(f"{where} has a value that is no number, or no time: {error}") from error


def prefix_chain(blocks: Sequence[int]) -> Iterable[int]:
    """Hashes of prefixes from hashes of blocks: each covers its block and all before it, as routers expect."""
    value = 0
    for block in blocks:
        value = chance.mix(value ^ chance.mix(block + 1))
        yield value


def part(requests: Sequence[TraceRequest], which: str) -> tuple[TraceRequest, ...]:
    """`all`, or the `first` or `second` half of a trace by time; constants are chosen on one, reported on the other."""
    if which == "all":
        return tuple(requests)
    middle = requests[-1].arrival / 2
    if which == "first":
        return tuple(request for request in requests if request.arrival < middle)
    if which == "second":
        later = [request for request in requests if request.arrival >= middle]
        return tuple(replace(request, arrival=request.arrival - later[0].arrival) for request in later)
    raise FleetInvalid(f"part {which!r} of a trace; there are all, first and second")


def evened(requests: Sequence[TraceRequest], window_seconds: float) -> tuple[TraceRequest, ...]:
    """The same requests with equal work in equal time: each window lasts as long as its share of all prompt tokens."""
    if not requests:
        return ()
    length = requests[-1].arrival
    count = int(length // window_seconds) + 1
    work = [0.0] * count
    for request in requests:
        work[int(request.arrival // window_seconds)] += request.input_tokens
    total = sum(work)
    starts = [0.0]
    for amount in work:
        starts.append(starts[-1] + length * amount / total)
    result = []
    for request in requests:
        window = int(request.arrival // window_seconds)
        share = request.arrival / window_seconds - window
        result.append(replace(request, arrival=starts[window] + share * (starts[window + 1] - starts[window])))
    return tuple(result)


def at_rate(requests: Sequence[TraceRequest], per_second: float) -> tuple[TraceRequest, ...]:
    """The same requests, faster or slower, so that their mean rate is as given."""
    length = max(requests[-1].arrival, 1e-9)
    factor = (len(requests) / per_second) / length
    return tuple(replace(request, arrival=request.arrival * factor) for request in requests)


def with_burst(requests: Sequence[TraceRequest], factor: float, begin: float, end: float) -> tuple[TraceRequest, ...]:
    """The same requests, `factor` times as dense from `begin` to `end`; what comes later comes earlier by the rest."""
    saved = (end - begin) * (1.0 - 1.0 / factor)

    def moved(at: float) -> float:
        if at <= begin:
            return at
        return begin + (at - begin) / factor if at < end else at - saved

    return tuple(replace(request, arrival=moved(request.arrival)) for request in requests)


def with_priorities(requests: Sequence[TraceRequest], seed: int) -> tuple[TraceRequest, ...]:
    """Priorities for a trace that has none: one in five is 1, three in ten are -1, the others 0."""
    result = []
    for number, request in enumerate(requests):
        drawn = chance.uniform(seed, number)
        result.append(replace(request, priority=1 if drawn < 0.2 else -1 if drawn < 0.5 else 0))
    return tuple(result)


def capacity(fleet: Fleet, requests: Sequence[TraceRequest]) -> float:
    """Requests per second that the fleet finishes of this mix when no engine ever lacks work; no prefix is cached."""
    step = max(1, len(requests) // CAPACITY_REQUESTS)
    sample = [requests[number] for number in range(0, len(requests), step)]
    per_make: dict[BatchProfile, float] = {}
    total = 0.0
    for node in fleet.nodes:
        if node.profile not in per_make:
            per_make[node.profile] = _saturated(node, sample)
        total += per_make[node.profile]
    return total


def _saturated(node: FleetNode, sample: Sequence[TraceRequest]) -> float:
    profile = replace(node.profile, max_waiting=len(sample) + 1)
    batch = ContinuousBatch(profile)
    fitting = [r for r in sample if r.input_tokens + r.output_tokens <= profile.kv_cache_tokens]
    if not fitting:
        raise FleetInvalid(
            f"no request of the trace fits the KV cache of {node.name} ({profile.kv_cache_tokens} tokens)"
        )
    now, number = 0.0, 0
    done: list[float] = []
    while len(done) < len(fitting):
        while number < len(fitting) and batch.waiting < CAPACITY_BACKLOG:
            request = fitting[number]
            batch.submit(str(number), request.input_tokens, request.output_tokens, 0, now)
            number += 1
        at = batch.next_event_at()
        if at is None:
            break
        now = max(now, at)
        done += [event.at for event in batch.advance(now) if event.kind.value == "finished"]
    # Without the end, at which the batch runs empty.
    steady = done[: max(1, int(len(done) * 0.9))]
    gaps = sum(b - a for a, b in pairwise(steady))
    return (len(steady) - 1) / gaps if gaps > 0 else len(done) / max(now, 1e-9)
