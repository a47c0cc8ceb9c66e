"""RoutingService over a real channel, with engines that are probed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import grpc
import pytest

from catalog.errors import StoreUnavailable
from federation.v1 import catalog_pb2, fleet_pb2
from federation.v1 import routing_pb2 as pb
from tests.federation.server import Running, engine, failing, heard, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]


@pytest.fixture
async def fairway() -> AsyncIterator[Running]:
    """Five nodes that serve the model "m", all of them healthy."""
    async with running() as server, engine("m") as node:
        for index in range(5):
            await server.register("local", f"n{index}", node.url, "m")
        await server.until_routable("m")
        await until(lambda: bool((server.plane.router.table.pool.status == 0).sum() == 5))
        yield server


async def test_a_decision_tells_where_and_why(fairway: Running) -> None:
    decision = await fairway.route("m", request_id="r", session_id="s")

    assert decision.target.node_id in {f"n{index}" for index in range(5)}
    assert decision.target.served_model_name == "m"
    assert len(decision.alternatives) == 3
    assert len({target.node_id for target in (decision.target, *decision.alternatives)}) == 4
    assert decision.policy_id == "balanced"
    assert decision.candidates_considered == 5
    assert decision.table_revision == fairway.plane.feed.revision
    assert 0 <= decision.table_age.ToSeconds() < 5
    assert [stage.name for stage in decision.stages] == [
        "rules",
        "filters",
        "scorers",
        "affinity",
        "picker",
        "alternatives",
    ]
    assert not decision.candidates
    assert decision.decide_time.seconds > 0


async def test_a_full_explanation_names_every_candidate_with_its_terms(fairway: Running) -> None:
    decision = await fairway.route("m", explain=pb.EXPLAIN_FULL)

    assert len(decision.candidates) == 5
    assert all(candidate.eligible and candidate.terms for candidate in decision.candidates)
    assert "probe" in decision.candidates[0].signal_ages


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (pb.RouteRequest(model_id="absent"), grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN"),
        (pb.RouteRequest(capability="embed"), grpc.StatusCode.NOT_FOUND, "CAPABILITY_UNKNOWN"),
        (pb.RouteRequest(model_id="m", policy_id="absent"), grpc.StatusCode.NOT_FOUND, "POLICY_UNKNOWN"),
        (
            pb.RouteRequest(model_id="m", qos={"privacy_level": "PRIVACY_LEVEL_RESTRICTED"}),
            grpc.StatusCode.FAILED_PRECONDITION,
            "PRIVACY_VIOLATION",
        ),
        (
            pb.RouteRequest(model_id="m", qos={"max_time_to_first_token": {"nanos": 1}}),
            grpc.StatusCode.FAILED_PRECONDITION,
            "QOS_VIOLATION",
        ),
        (
            pb.RouteRequest(model_id="m", placement={"only_regions": ["elsewhere"]}),
            grpc.StatusCode.FAILED_PRECONDITION,
            "QOS_VIOLATION",
        ),
    ],
)
async def test_a_request_without_a_target_is_told_the_reason(
    fairway: Running, request_: pb.RouteRequest, code: grpc.StatusCode, reason: str
) -> None:
    failure = await failing(fairway.routing.Route(request_))

    assert (failure.code, failure.reason, failure.domain) == (code, reason, "federation.v1")
    assert failure.message
    assert failure.pushback is None


async def test_the_counts_of_rejections_are_metadata(fairway: Running) -> None:
    request = pb.RouteRequest(model_id="m", placement={"only_regions": ["elsewhere"]})

    failure = await failing(fairway.routing.Route(request))

    assert failure.metadata == {"rejected_REGION_EXCLUDED": "5"}


async def test_an_ejected_fleet_says_when_to_ask_again(fairway: Running) -> None:
    for index in range(5):
        await fairway.fleet.EjectNode(fleet_pb2.EjectNodeRequest(region_id="local", node_id=f"n{index}"))
    await until(lambda: not (fairway.plane.router.table.pool.status == 0).any())

    failure = await failing(fairway.routing.Route(pb.RouteRequest(model_id="m")))

    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "ALL_NODES_UNHEALTHY")
    assert failure.retry_seconds is not None
    assert failure.retry_seconds >= 1.0
    # gRPC's own retries would hide the reason behind the caller's deadline.
    assert failure.pushback == "-1"


async def test_a_drained_node_gets_nothing_new(fairway: Running) -> None:
    for index in range(4):
        await fairway.catalog.DrainNode(catalog_pb2.DrainNodeRequest(region_id="local", node_id=f"n{index}"))
    await until(lambda: int((fairway.plane.router.table.pool.status == 0).sum()) == 1)

    targets = {(await fairway.route("m")).target.node_id for _ in range(10)}

    assert targets == {"n4"}


async def test_routing_goes_on_from_the_last_table_while_the_store_is_away(fairway: Running) -> None:
    async def gone(*_: object, **__: object) -> None:
        raise StoreUnavailable("gone")

    store = fairway.plane.store
    for method in ("put", "edit", "changes", "wait", "snapshot"):
        setattr(store, method, gone)
    await until(lambda: not fairway.plane.feed.available)

    assert (await fairway.route("m")).target.node_id
    health = fairway.plane.vitals
    await until(lambda: health._told["federation.v1.CatalogService"] is False)
    assert health._told["federation.v1.RoutingService"] is True
    assert health.not_ready() == ""


async def test_one_bad_request_of_a_batch_fails_alone(fairway: Running) -> None:
    requests = [pb.RouteRequest(model_id="m"), pb.RouteRequest(), pb.RouteRequest(model_id="absent")]

    good, invalid, unknown = (await fairway.routing.RouteBatch(pb.RouteBatchRequest(requests=requests))).results

    assert good.decision.target.node_id
    assert (invalid.error.code, invalid.error.reason) == (3, "INVALID_FIELD")
    assert (unknown.error.code, unknown.error.reason) == (5, "MODEL_UNKNOWN")


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_batch_holds_one_to_a_thousand(fairway: Running, count: int) -> None:
    request = pb.RouteBatchRequest(requests=[pb.RouteRequest(model_id="m")] * count)

    failure = await failing(fairway.routing.RouteBatch(request))

    assert "1 to 1,000" in failure.violations["requests"]


async def test_a_stream_answers_each_request_in_order_and_survives_a_bad_one(fairway: Running) -> None:
    stream = fairway.routing.RouteStream()
    answers = []
    for request in (pb.RouteRequest(model_id="m"), pb.RouteRequest(priority=9_999), pb.RouteRequest(model_id="m")):
        await stream.write(pb.RouteStreamRequest(request=request))
        answers.append(await heard(stream))
    await stream.done_writing()

    assert [answer.result.WhichOneof("result") for answer in answers] == ["decision", "error", "decision"]
    assert await heard(stream) is grpc.aio.EOF


async def test_pages_of_candidates_show_one_moment(fairway: Running) -> None:
    request = pb.RouteRequest(model_id="m", placement={"exclude_nodes": ["local/n0"]})
    first = await fairway.routing.GetCandidates(pb.GetCandidatesRequest(request=request, page_size=2))
    await fairway.catalog.DeregisterNode(catalog_pb2.DeregisterNodeRequest(region_id="local", node_id="n4"))
    await until(lambda: len(fairway.plane.router.table.pool) == 4)

    seen = list(first.candidates)
    token = first.next_page_token
    while token:
        page = await fairway.routing.GetCandidates(
            pb.GetCandidatesRequest(request=request, page_size=2, page_token=token)
        )
        assert (page.total_size, page.table_revision) == (5, first.table_revision)
        seen += page.candidates
        token = page.next_page_token

    assert sorted(candidate.target.node_id for candidate in seen) == [f"n{index}" for index in range(5)]
    assert [candidate.eligible for candidate in seen] == [True] * 4 + [False]
    assert seen[-1].rejection.code == pb.REJECTION_CODE_NODE_EXCLUDED
    assert dict(first.rejected) == {"NODE_EXCLUDED": 1}


async def test_a_page_of_another_request_or_too_late_says_to_start_again(fairway: Running) -> None:
    request = pb.RouteRequest(model_id="m")
    ask = pb.GetCandidatesRequest(request=request, page_size=2)
    token = (await fairway.routing.GetCandidates(ask)).next_page_token

    other = await failing(
        fairway.routing.GetCandidates(
            pb.GetCandidatesRequest(request={"model_id": "m", "adapter": "a"}, page_size=2, page_token=token)
        )
    )
    fairway.clock.advance(61)
    late = await failing(
        fairway.routing.GetCandidates(pb.GetCandidatesRequest(request=request, page_size=2, page_token=token))
    )

    assert "start again" in other.violations["page_token"]
    assert "has expired after 60 s" in late.violations["page_token"]


async def test_reading_candidates_changes_no_decision(fairway: Running) -> None:
    before = fairway.plane.router.stats.decisions

    await fairway.routing.GetCandidates(pb.GetCandidatesRequest(request={"model_id": "m"}))

    assert fairway.plane.router.stats.decisions == before
    assert all(fairway.plane.router.load_of(f"local/n{index}/m")[0] <= 1 for index in range(5))


async def test_outcomes_are_counted_once(fairway: Running) -> None:
    decision = await fairway.route("m", prompt={"input_tokens": 1000})
    outcome = pb.Outcome(decision_id=decision.decision_id, result=pb.OUTCOME_RESULT_OK)
    unknown = pb.Outcome(decision_id="other-1", result=pb.OUTCOME_RESULT_OK)
    held = fairway.plane.router.load_of(decision.target.deployment)

    answer = await fairway.routing.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=[outcome, outcome, unknown]))

    assert (answer.accepted, answer.repeated_reports, answer.unknown) == (1, 1, 1)
    assert held >= (1, 1000)
    assert fairway.plane.router.load_of(decision.target.deployment)[0] == held[0] - 1


async def test_outcomes_that_say_too_little_are_told_what_is_missing(fairway: Running) -> None:
    outcomes = [
        pb.Outcome(decision_id="a-1"),
        pb.Outcome(result=pb.OUTCOME_RESULT_OK),
        pb.Outcome(decision_id="a-1", result=pb.OUTCOME_RESULT_OK, node_id="n"),
    ]

    failure = await failing(fairway.routing.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=outcomes)))

    assert set(failure.violations) == {"outcomes[0].result", "outcomes[1].decision_id", "outcomes[2]"}


async def test_a_decision_is_remembered_with_its_candidates_and_outcomes(fairway: Running) -> None:
    decision = await fairway.route("m", request_id="r", labels={"app": "chat"}, qos={"cost_tolerance": 10})
    outcome = pb.Outcome(decision_id=decision.decision_id, result=pb.OUTCOME_RESULT_OK, output_tokens=7)
    await fairway.routing.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=[outcome]))

    found = await fairway.routing.GetDecision(pb.GetDecisionRequest(decision_id=decision.decision_id))

    assert found.decision.target == decision.target
    assert len(found.decision.candidates) == 5
    assert (found.request.request_id, dict(found.request.labels)) == ("r", {"app": "chat"})
    assert found.request.qos.cost_tolerance == 10
    assert [each.output_tokens for each in found.outcomes] == [7]
    assert json.loads(found.record_json)
    absent = await failing(fairway.routing.GetDecision(pb.GetDecisionRequest(decision_id="local-ff")))
    assert (absent.code, absent.reason) == (grpc.StatusCode.NOT_FOUND, "DECISION_UNKNOWN")
