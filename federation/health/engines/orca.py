"""ORCA load reports as they travel on answers: in a header as text, JSON or base64, or in a binary trailer.

    endpoint-load-metrics: TEXT named_metrics.kv_cache_usage_perc=0.4, cpu_utilization=0.9
    endpoint-load-metrics: JSON {"named_metrics": {"kv_cache_usage_perc": 0.4}}
    endpoint-load-metrics: BIN <base64 of xds.data.orca.v3.OrcaLoadReport>
    endpoint-load-metrics-bin: <the message itself>

Some servers leave the word in front out. What cannot be read is left out; a report never fails the answer it is on.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from federation.health.engines.page import EngineMetrics, as_share, is_amount

HEADER = "endpoint-load-metrics"
BINARY_HEADER = "endpoint-load-metrics-bin"
JSON_HEADER = "endpoint-load-metrics-json"

MAX_REPORT_CHARS = 16 << 10
_SCALARS = ("cpu_utilization", "mem_utilization", "rps_fractional", "eps", "application_utilization")
_MAPS = ("request_cost", "utilization", "named_metrics")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


# Protobuf's own JSON writes `namedMetrics`.
_CAMEL = {_camel(name): name for name in (*_SCALARS, *_MAPS)}


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a report holds, under the field names of OrcaLoadReport; only sensible numbers."""

    scalars: dict[str, float] = field(default_factory=dict)
    utilization: dict[str, float] = field(default_factory=dict)
    named_metrics: dict[str, float] = field(default_factory=dict)
    request_cost: dict[str, float] = field(default_factory=dict)


def parse_header(value: str) -> LoadReport:
    """Any of the header's forms; an empty report where it is none."""
    value = value.strip()
    if len(value) > MAX_REPORT_CHARS:
        return LoadReport()
    word, _, rest = value.partition(" ")
    match word:
        case "TEXT":
            return _parse_text(rest)
        case "JSON":
            return _parse_json(rest)
        case "BIN":
            try:
                return parse_binary(base64.b64decode(rest.strip(), validate=True))
            except (binascii.Error, ValueError):
                return LoadReport()
        case _:
            return _parse_json(value) if value.startswith("{") else _parse_text(value)


def parse_binary(data: bytes) -> LoadReport:
    """The serialised message."""
    if len(data) > MAX_REPORT_CHARS:
        return LoadReport()
    report = _MESSAGE()
    try:
        report.ParseFromString(data)
    except message.DecodeError:
        return LoadReport()
    pairs = [(name, getattr(report, name)) for name in _SCALARS if getattr(report, name)]
    for name in _MAPS:
        pairs += [(f"{name}.{key}", value) for key, value in getattr(report, name).items()]
    return _collect(pairs)


def to_metrics(report: LoadReport) -> EngineMetrics:
    """What inference engines put into a report, by the names that they use."""
    named = report.named_metrics
    kv = _first(named, "kv_cache_usage_perc", "kv_cache_utilization", "gpu_cache_usage_perc", "token_usage")
    share = None if kv is None else as_share(kv)
    gpu = _first(report.utilization, "gpu", "gpu_utilization")
    return EngineMetrics(
        queue_depth=_first(named, "num_requests_waiting", "num_queue_reqs", "queue_depth"),
        running_requests=_first(named, "num_requests_running", "num_running_reqs"),
        kv_cache_utilization=share,
        max_kv_cache_utilization=share,
        gpu_utilization=None if gpu is None else as_share(gpu),
    )


def _parse_text(text: str) -> LoadReport:
    pairs: list[tuple[str, object]] = []
    for entry in text.split(","):
        mark = "=" if "=" in entry else ":"
        name, found, value = entry.partition(mark)
        if found:
            pairs.append((name.strip(), value.strip()))
    return _collect(pairs)


def _parse_json(text: str) -> LoadReport:
    try:
        parsed = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return LoadReport()
    pairs: list[tuple[str, object]] = []
    for entry in parsed if isinstance(parsed, list) else ():
        if not isinstance(entry, tuple):
            return LoadReport()  # a JSON array, not an object
        name, value = str(_CAMEL.get(entry[0], entry[0])), entry[1]
        if isinstance(value, list):
            pairs += [(f"{name}.{item[0]}", item[1]) for item in value if isinstance(item, tuple)]
        else:
            pairs.append((name, value))
    return _collect(pairs)


def _collect(pairs: list[tuple[str, object]]) -> LoadReport:
    """Numbers of known fields. A name that comes twice is left out: nobody can say which one holds."""
    report = LoadReport()
    seen: set[str] = set()
    for name, raw in pairs:
        group, _, key = name.partition(".")
        values = getattr(report, group) if group in _MAPS and key else report.scalars
        key = key if group in _MAPS else name
        if name in seen:
            values.pop(key, None)
            continue
        seen.add(name)
        value = _number(raw)
        if value is not None and (group in _MAPS or name in _SCALARS) and key:
            values[key] = value
    return report


def _number(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return value if is_amount(value) else None


def _first(values: dict[str, float], *names: str) -> float | None:
    return next((values[name] for name in names if name in values), None)


def _message_class() -> type[message.Message]:
    """OrcaLoadReport by its wire numbers, in a pool of its own: the xds package may bring the real one as well."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="fairway/orca.proto", package="fairway.orca", syntax="proto3")
    report = file.message_type.add(name="Report")
    numbers = {"cpu_utilization": 1, "mem_utilization": 2, "rps_fractional": 6, "eps": 7, "application_utilization": 9}
    for name, number in numbers.items():
        report.field.add(name=name, number=number, type=kind.TYPE_DOUBLE, label=kind.LABEL_OPTIONAL)
    for name, number in {"request_cost": 4, "utilization": 5, "named_metrics": 8}.items():
        camel = _camel(name)
        entry_name = camel[0].upper() + camel[1:] + "Entry"
        entry = report.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
        entry.field.add(name="value", number=2, type=kind.TYPE_DOUBLE, label=kind.LABEL_OPTIONAL)
        report.field.add(
            name=name,
            number=number,
            type=kind.TYPE_MESSAGE,
            label=kind.LABEL_REPEATED,
            type_name=f".fairway.orca.Report.{entry_name}",
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("fairway.orca.Report"))


_MESSAGE = _message_class()
