"""The short look at a RouteRequest never lets through what the rules of the protos refuse."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.api import validation
from federation.api.convert import decisions
from federation.api.convert.requests import RequestReader
from federation.api.errors import InvalidFields
from federation.v1 import routing_pb2
from policies.types import RouteRequest


def texts(longest: int) -> st.SearchStrategy[str]:
    """Texts about the length of a bound, of characters of one byte and of several."""
    lengths = st.sampled_from([0, 1, 1, longest, longest + 1])
    return st.builds(lambda length, character: character * length, lengths, st.sampled_from(["a", "ñ", "\0"]))


def numbers(least: int, most: int) -> st.SearchStrategy[int]:
    return st.sampled_from([least - 1, least, 1, 1, most, most + 1])


SPANS = st.builds(lambda seconds: {"seconds": seconds}, st.sampled_from([-1, 0, 1, 86_400, 86_401]))
FIGURES = st.sampled_from([-1.0, 0.0, 100.0, 100.5, float("inf"), float("nan")])
LABELS = st.dictionaries(texts(63), texts(255), max_size=2)


def some(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Any of the fields, most often few of them, so that many requests break one rule or none."""
    return st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=3).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in names})
    )


REQUESTS = some(
    request_id=texts(128),
    model_id=texts(255),
    capability=texts(127),
    adapter=texts(255),
    origin=some(region_id=texts(63), zone=texts(63)),
    tenant_id=texts(63),
    session_id=texts(255),
    priority=numbers(-1000, 1000),
    labels=LABELS,
    qos=some(
        max_latency=SPANS,
        max_time_to_first_token=SPANS,
        min_throughput=FIGURES,
        privacy_level=numbers(0, 4),
        cost_tolerance=FIGURES,
        max_price_usd_per_million_tokens=FIGURES,
    ),
    prompt=some(
        input_tokens=numbers(0, 100_000_000),
        max_output_tokens=numbers(0, 100_000_000),
        prefix_hashes=st.sampled_from([[], [1], [1] * 4_096, [1] * 4_097]),
        prefix_block_tokens=numbers(0, 65_536),
    ),
    placement=some(
        only_regions=st.lists(texts(63), max_size=2),
        jurisdictions=st.lists(texts(32), max_size=2),
        exclude_nodes=st.lists(texts(127), max_size=2),
        node_labels=LABELS,
    ),
    policy_id=texts(63),
    max_alternatives=numbers(0, 16),
    explain=numbers(0, 3),
    hops=numbers(0, 1),
)


def test_every_field_of_a_request_is_among_those_that_are_tried() -> None:
    tried = {
        *("request_id", "model_id", "capability", "adapter", "origin", "tenant_id", "session_id", "priority"),
        *("labels", "qos", "prompt", "placement", "policy_id", "max_alternatives", "explain", "hops"),
    }

    # A new one must be looked at in `sound`, and stand in REQUESTS.
    assert set(routing_pb2.RouteRequest.DESCRIPTOR.fields_by_name) == tried


@given(REQUESTS)
def test_what_looks_sound_breaks_no_rule(fields: dict[str, object]) -> None:
    request = routing_pb2.RouteRequest(**{"model_id": "m", **fields})  # type: ignore[arg-type]

    if validation.sound(request):
        assert validation.field_violations(request) == []


@given(REQUESTS)
def test_a_check_finds_what_the_rules_find(fields: dict[str, object]) -> None:
    request = routing_pb2.RouteRequest(**fields)  # type: ignore[arg-type]
    expected = validation.field_violations(request)

    try:
        validation.check(request)
    except InvalidFields as e:
        assert list(e.violations) == expected
    else:
        assert expected == []


READER = RequestReader()


@given(REQUESTS, st.sampled_from(["m", "other"]))
def test_a_request_is_read_as_it_would_be_without_those_before_it(fields: dict[str, object], model_id: str) -> None:
    message = routing_pb2.RouteRequest(**{"model_id": model_id, **fields})  # type: ignore[arg-type]
    violations = validation.field_violations(message)
    expected = None if violations else decisions.request_from(message)

    for _ in range(2):
        repeated = routing_pb2.RouteRequest.FromString(message.SerializeToString())
        try:
            found = READER.read(repeated)
        except InvalidFields as e:
            assert list(e.violations) == violations
            assert repeated == message
        else:
            assert found == expected
            assert (type(found), found.shape) == (RouteRequest, expected.shape)
            with pytest.raises(FrozenInstanceError):
                found.model_id = "changed"  # type: ignore[misc]


@pytest.mark.parametrize(
    "fields",
    [
        {"model_id": "m"},
        {"capability": "code", "request_id": "r" * 128, "session_id": "s", "tenant_id": "t", "policy_id": "p"},
        {"model_id": "m", "origin": {"region_id": "r0", "zone": "z"}, "prompt": {"input_tokens": 5}},
        {"model_id": "m", "qos": {"max_latency": {"seconds": 2}}, "placement": {"only_regions": ["r0"]}},
    ],
)
def test_what_gateways_usually_send_is_seen_to_be_sound(fields: dict[str, object]) -> None:
    assert validation.sound(routing_pb2.RouteRequest(**fields))  # type: ignore[arg-type]


def test_a_request_is_known_to_be_unsound_by_every_part() -> None:
    for fields in (
        {},
        {"model_id": "m" * 256},
        {"model_id": "m", "request_id": "a\0"},
        {"model_id": "m", "qos": {"cost_tolerance": 101.0}},
        {"model_id": "m", "origin": {"zone": "z" * 64}},
        {"model_id": "m", "max_alternatives": 17},
        {"model_id": "m", "hops": 2},
    ):
        assert not validation.sound(routing_pb2.RouteRequest(**fields))  # type: ignore[arg-type]
