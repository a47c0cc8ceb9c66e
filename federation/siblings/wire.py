"""What replicas say, as messages of peering.proto and back. It comes from outside: ValueError names what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from federation.api.convert.decisions import outcome_from, outcome_to
from federation.api.convert.health import load_from
from federation.api.convert.times import duration, seconds_of
from federation.health.engines.page import EngineMetrics, Histogram
from federation.health.records import Load, Probe
from federation.health.sharing import CircuitWord, EjectionWord
from federation.peering.messages import Goodbye
from federation.siblings.messages import Beat, Hello, Life, Message, News, Sum, Witnessed
from federation.v1 import catalog_pb2
from federation.v1 import peering_pb2 as pb
from policies.ageing import MAX_SUSPICION

# Figures of a page that are one number, named alike in the message.
FIGURES = (
    "queue_depth",
    "running_requests",
    "kv_cache_utilization",
    "max_kv_cache_utilization",
    "gpu_utilization",
    "throughput_tokens_per_second",
    "prompt_tokens_total",
    "generation_tokens_total",
    "max_batch_size",
    "kv_cache_tokens",
)
HISTOGRAMS = ("time_to_first_token", "time_per_output_token", "end_to_end")
LOADS = (
    "running_requests",
    "queue_depth",
    "kv_cache_utilization",
    "gpu_utilization",
    "throughput_tokens_per_second",
)


def request_to(message: Message) -> pb.ExchangeRequest:
    """As the side says it that opened the stream."""
    return pb.ExchangeRequest(**_to(message))  # type: ignore[arg-type]  # one field of the oneof


def response_to(message: Message) -> pb.ExchangeResponse:
    """As the side says it that accepted the stream."""
    return pb.ExchangeResponse(**_to(message))  # type: ignore[arg-type]


def _to(message: Message) -> dict[str, object]:
    match message:
        case Hello(me, to_incarnation):
            return {
                "sibling_hello": pb.SiblingHello(
                    replica_id=me.replica_id, incarnation=me.incarnation, to_incarnation=to_incarnation
                )
            }
        case News():
            return {"sibling_news": _news_to(message)}
        case Goodbye(reason, refused):
            return {"goodbye": pb.PeerGoodbye(reason=reason, refused=refused)}


def message_from(message: pb.ExchangeRequest | pb.ExchangeResponse) -> Message:
    """The value of a message. ValueError where it is none of a replica."""
    match message.WhichOneof("message"):
        case "sibling_hello":
            hello = message.sibling_hello
            if not hello.replica_id or not hello.incarnation:
                raise ValueError("a hello without replica_id or incarnation")
            return Hello(Life(hello.replica_id, hello.incarnation), hello.to_incarnation)
        case "sibling_news":
            return _news_from(message.sibling_news)
        case "goodbye":
            return Goodbye(message.goodbye.reason, message.goodbye.refused)
        case _:
            raise ValueError("a message that is none between replicas; upgrade the older one")


def _news_to(news: News) -> pb.SiblingNews:
    return pb.SiblingNews(
        sequence=news.sequence,
        echo=news.echo,
        sent_seconds=news.sent_at,
        beats=map(_beat_to, news.beats),
        probes=map(_probe_to, news.probes),
        metrics=[_metrics_to(node, metrics) for node, metrics in news.metrics],
        outcomes=[
            pb.SiblingOutcome(deployment=each.deployment, outcome=outcome_to(each.outcome)) for each in news.outcomes
        ],
        answers=[pb.SiblingAnswers(deployment=name, count=count) for name, count in news.answers],
        circuits=map(_circuit_to, news.circuits),
        ejections=map(_ejection_to, news.ejections),
        suspicions=[pb.SiblingSuspicion(deployment=name, level=level) for name, level in news.suspicions],
        sums=[
            pb.SiblingSum(deployment=each.deployment, pending_tokens=each.pending_tokens, in_flight=each.in_flight)
            for each in news.sums
        ],
        trials=news.trials,
        turns=news.turns,
        reports=map(outcome_to, news.reports),
    )


def _news_from(news: pb.SiblingNews) -> News:
    if news.sequence < 1 or not math.isfinite(news.sent_seconds):
        raise ValueError("news without a number or a time")
    return News(
        sequence=news.sequence,
        echo=news.echo,
        sent_at=news.sent_seconds,
        beats=tuple(Beat(each.node, load_from(each.load) if each.HasField("load") else None) for each in news.beats),
        probes=tuple(map(_probe_from, news.probes)),
        metrics=tuple((each.node, _metrics_from(each)) for each in news.metrics),
        outcomes=tuple(Witnessed(each.deployment, outcome_from(each.outcome)) for each in news.outcomes),
        answers=tuple((each.deployment, min(each.count, 100_000)) for each in news.answers),
        circuits=tuple(map(_circuit_from, news.circuits)),
        ejections=tuple(map(_ejection_from, news.ejections)),
        suspicions=tuple(
            (each.deployment, min(each.level, MAX_SUSPICION)) for each in news.suspicions if each.level > 1.0
        ),
        sums=tuple(Sum(each.deployment, each.pending_tokens, each.in_flight) for each in news.sums),
        trials=tuple(news.trials),
        turns=tuple(news.turns),
        reports=tuple(map(outcome_from, news.reports)),
    )


def _beat_to(beat: Beat) -> pb.SiblingBeat:
    return pb.SiblingBeat(node=beat.node, load=None if beat.load is None else _load_to(beat.load))


def _load_to(load: Load) -> catalog_pb2.NodeLoad:
    return catalog_pb2.NodeLoad(**{name: getattr(load, name) for name in LOADS})


def _probe_to(probe: Probe) -> pb.SiblingProbe:
    return pb.SiblingProbe(
        node=probe.node,
        ok=probe.ok,
        latency_seconds=probe.latency_seconds,
        models=sorted(probe.models or ()),
        lists_models=probe.models is not None,
        error=probe.error,
        loading=probe.loading,
    )


def _probe_from(probe: pb.SiblingProbe) -> Probe:
    latency = probe.latency_seconds
    return Probe(
        probe.node,
        probe.ok,
        latency if 0.0 <= latency < math.inf else 0.0,
        frozenset(probe.models) if probe.lists_models else None,
        probe.error,
        probe.loading,
    )


def _metrics_to(node: str, metrics: EngineMetrics) -> pb.SiblingMetrics:
    told = pb.SiblingMetrics(node=node, **{name: getattr(metrics, name) for name in FIGURES})
    for name in HISTOGRAMS:
        known: Histogram | None = getattr(metrics, name)
        if known is not None:
            getattr(told, name).CopyFrom(pb.SiblingHistogram(bounds=known.bounds, counts=known.counts, sum=known.sum))
    return told


def _metrics_from(told: pb.SiblingMetrics) -> EngineMetrics:
    return EngineMetrics(
        **{name: _finite(getattr(told, name)) for name in FIGURES if told.HasField(name)},  # type: ignore[arg-type]
        **{name: _histogram_from(getattr(told, name)) for name in HISTOGRAMS if told.HasField(name)},  # type: ignore[arg-type]
    )


def _finite(value: float) -> float | None:
    return value if 0.0 <= value < math.inf else None


def _histogram_from(told: pb.SiblingHistogram) -> Histogram | None:
    bounds, counts = tuple(told.bounds), tuple(told.counts)
    if not bounds or len(bounds) != len(counts) or not _rising(bounds) or not _rising(counts):
        return None
    return Histogram(bounds, counts, told.sum)


def _rising(values: Sequence[float]) -> bool:
    return all(low <= high for low, high in pairwise(values))


def _circuit_to(word: CircuitWord) -> pb.SiblingCircuit:
    return pb.SiblingCircuit(
        deployment=word.deployment,
        epoch=word.epoch,
        open=word.open,
        remaining=duration(word.remaining_seconds),
        trips=word.trips,
        opens_total=word.opens_total,
        reason=word.reason,
    )


def _circuit_from(told: pb.SiblingCircuit) -> CircuitWord:
    return CircuitWord(
        told.deployment,
        told.epoch,
        told.open,
        max(0.0, seconds_of(told.remaining)),
        told.trips,
        told.opens_total,
        told.reason,
    )


def _ejection_to(word: EjectionWord) -> pb.SiblingEjection:
    return pb.SiblingEjection(
        name=word.name,
        epoch=word.epoch,
        remaining=duration(word.remaining_seconds),
        ejections=word.ejections,
        reason=word.reason,
    )


def _ejection_from(told: pb.SiblingEjection) -> EjectionWord:
    return EjectionWord(told.name, told.epoch, max(0.0, seconds_of(told.remaining)), told.ejections, told.reason)
