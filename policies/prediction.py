"""Predicted time to the first token at the caller, and what follows from it.

    round_trip(o, i) + suspicion_i × [ (Q_i · c_i + prefill_i(p)) · d_i + wait_i + full_i ]

Q prompt tokens that we routed there and that have no first token yet · c prefill seconds per token · prefill_i(p) the
prefill of the tokens that are not cached there, at least the node's least time to a first token · d the slow-down by
the batch that decodes beside it · wait what other routers have waiting there · full the wait for a place in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from types import MappingProxyType

import numpy as np

from policies.policy import Assumptions, Policy
from policies.pool import FloatArray, Identity, IntArray, Load, Place, Pool
from policies.types import RouteRequest

EARTH_RADIUS_KM = 6371.0
# Light in fibre covers about 200 km in a millisecond; real routes are about 1.6 times the great circle, there and back.
ROUND_TRIP_SECONDS_PER_KM = 2 * 1.6 / 200_000
# Whole calls stand in for first tokens only so far: long answers and failures, which count as the worst latency, would
# otherwise put a deployment out of reach of its own recovery.
MAX_STAND_IN_SECONDS = 1.0
# Within one region, and the least between two: switches and last miles.
LOCAL_ROUND_TRIP_SECONDS = 0.001
NO_BOUNDS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Ask:
    """A request joined with the policy that decides it, and seen from its origin."""

    request: RouteRequest
    policy: Policy
    input_tokens: int
    output_tokens: int
    # The model asked for, where one was.
    model: Identity | None
    # Seconds from the origin to each place of the table.
    round_trip: FloatArray
    # Index of the origin among the places; -1 where it is none of them.
    origin: int
    zone: str  # "region/zone", "" where it is unknown.
    # Unix seconds, for rules and prices with a time of day.
    unix_time: float = 0.0
    # By place: in which turn the target is looked for there, 0 first; None: everywhere at once. See `spillover.py`.
    turns: IntArray | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What each candidate would do with the request: seconds and tokens per second."""

    round_trip: FloatArray
    at_node: FloatArray
    time_to_first_token: FloatArray
    throughput: FloatArray
    latency: FloatArray
    cost: FloatArray
    # The token price alone, for bounds.
    token_cost: FloatArray


def fill(values: FloatArray, assumed: float) -> FloatArray:
    """The values, with what is assumed where they are unknown."""
    return np.where(np.isnan(values), assumed, values)


def predict(ask: Ask, pool: Pool, load: Load) -> Prediction:
    """The prediction for every candidate of a pool."""
    assume = ask.policy.assume
    per_token = fill(pool.prefill, assume.prefill_seconds_per_token)
    least = fill_least(pool, assume)
    decode = fill(pool.decode, assume.decode_tokens_per_second)
    batch = fill(pool.batch, assume.max_batch_size)

    busy = np.maximum(load.in_flight, load.running)
    slow = 1.0 + ask.policy.batch_slowdown * np.minimum(busy / batch, 1.0)
    full = np.maximum(busy - batch + 1.0, 0.0) * (assume.output_tokens / decode / batch)
    prefill = np.maximum(per_token * (ask.input_tokens - load.cached_tokens), least)
    at_node = load.suspicion * ((load.pending_tokens * per_token + prefill) * slow + load.wait + full)
    round_trip = ask.round_trip[pool.place]
    first = round_trip + at_node
    throughput = decode / slow

    cached_price = np.where(np.isnan(pool.cached_price), pool.input_price, pool.cached_price)
    # A price that is not known does not matter to a request that has no such tokens (embeddings have no answer); one
    # that has no tokens at all is free only where both are known.
    token_cost = np.zeros(len(pool))
    if ask.input_tokens or not ask.output_tokens:
        token_cost += (ask.input_tokens - load.cached_tokens) * pool.input_price + load.cached_tokens * cached_price
    if ask.output_tokens or not ask.input_tokens:
        token_cost += ask.output_tokens * pool.output_price
    # What is committed is paid for whether it is used or not.
    token_cost[load.in_flight < pool.committed] = 0.0
    return Prediction(
        round_trip=round_trip,
        at_node=at_node,
        time_to_first_token=first,
        throughput=throughput,
        latency=first + ask.output_tokens / throughput,
        cost=token_cost + egress_per_token(ask.origin, pool.places, assume)[pool.place] * ask.output_tokens,
        token_cost=token_cost,
    )


def fill_least(pool: Pool, assume: Assumptions) -> FloatArray:
    """The least time to a first token; of two that nobody knows it of, the one that answers sooner comes first."""
    answers = np.minimum(np.nan_to_num(pool.latency), MAX_STAND_IN_SECONDS)
    return np.where(np.isnan(pool.least), assume.min_time_to_first_token_seconds + answers, pool.least)


def egress_per_token(origin: int, places: Sequence[Place], assume: Assumptions) -> FloatArray:
    """US dollars for carrying one token of an answer out of each place to the origin."""
    home = places[origin].region_id if origin >= 0 else ""
    per_gigabyte = np.array(
        [0.0 if index == origin else egress_price(place, home, assume) for index, place in enumerate(places)]
    )
    return per_gigabyte * (assume.egress_bytes_per_output_token / 1e9)


def egress_price(place: Place, destination: str, assume: Assumptions) -> float:
    """US dollars per gigabyte from a place to another region: of the pair, else of the place, else assumed."""
    price = place.egress_prices_usd_per_gb.get(destination, place.egress_price_usd_per_gb)
    return assume.egress_price_usd_per_gb if price is None else price


def round_trips(
    origin: str, places: Sequence[Place], assume: Assumptions, bounds: Mapping[str, float] = NO_BOUNDS
) -> tuple[FloatArray, int]:
    """Seconds from an origin region to each place, and the origin's index (-1: not among them).

    Measured where either side measured it, else estimated from coordinates, else assumed, and then no longer than
    `bounds` says, by region.
    """
    known, home = _known(origin, places)
    assumed = assume.round_trip_seconds
    return np.array(
        [
            max(LOCAL_ROUND_TRIP_SECONDS, min(assumed, bounds.get(place.region_id, assumed))) if each is None else each
            for place, each in zip(places, known, strict=True)
        ]
    ), home


def assumed_only(origin: str, places: Sequence[Place]) -> tuple[str, ...]:
    """The regions to which no round trip is known from an origin, but only assumed."""
    known, _ = _known(origin, places)
    return tuple(place.region_id for place, each in zip(places, known, strict=True) if each is None)


def stated(origin: str, places: Sequence[Place]) -> frozenset[str]:
    """The regions to which either side says the round trip from an origin, measured or declared."""
    here = next((place for place in places if place.region_id == origin), None)
    return frozenset(place.region_id for place in places if _stated(origin, here, place) is not None)


def _known(origin: str, places: Sequence[Place]) -> tuple[list[float | None], int]:
    index = {place.region_id: number for number, place in enumerate(places)}
    home = index.get(origin, -1)
    here = places[home] if home >= 0 else None
    return [_known_round_trip(origin, here, place) for place in places], home


def _known_round_trip(origin: str, here: Place | None, there: Place) -> float | None:
    if there.region_id == origin:
        return LOCAL_ROUND_TRIP_SECONDS
    said = _stated(origin, here, there)
    if said is not None:
        return said
    if here is None or here.latitude is None or here.longitude is None:
        return None
    if there.latitude is None or there.longitude is None:
        return None
    kilometres = great_circle_km(here.latitude, here.longitude, there.latitude, there.longitude)
    return LOCAL_ROUND_TRIP_SECONDS + kilometres * ROUND_TRIP_SECONDS_PER_KM


def _stated(origin: str, here: Place | None, there: Place) -> float | None:
    measured: Mapping[str, float] = there.round_trip_seconds or {}
    if origin in measured:
        return measured[origin]
    return None if here is None else (here.round_trip_seconds or {}).get(there.region_id)


def great_circle_km(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Distance over the sphere by the haversine formula."""
    a = (
        sin(radians(lat2 - lat1) / 2) ** 2
        + cos(radians(lat1)) * cos(radians(lat2)) * sin(radians(lon2 - lon1) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * asin(sqrt(min(1.0, a)))
