"""RoutingService: decisions, their candidates, and what became of them.

Between a request's conversion and its answer's there is no await, lock, SQL or I/O.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from federation.api import errors, pages, validation
from federation.api.calls import Context
from federation.api.convert import decisions as convert
from federation.api.convert.records import RecordWriter
from federation.api.convert.requests import RequestReader
from federation.api.convert.runs import RunWriter
from federation.api.convert.targets import framed
from federation.api.errors import InvalidFields, NotOffered
from federation.feed import CatalogFeed
from federation.routing.deciding import CandidateList
from federation.routing.decisions import Record
from federation.routing.replay import entry
from federation.routing.router import Reported, Router
from federation.telemetry import Histogram
from federation.v1 import routing_pb2 as pb
from federation.v1 import routing_pb2_grpc
from policies.errors import NoCandidate
from policies.types import Outcome, RouteRequest

# Later pages of candidates read the moment of the first one, which has to be kept for them: for as long as a person
# takes to ask for the next, and not more of them than a few operators make.
CANDIDATES_SECONDS = 60.0
CANDIDATES_KEPT = 32
# A table follows the catalog within this time.
INSTALL_SECONDS = 0.1
# Seconds that a batch goes on for; then other calls have their turn. Requests that it decides in one go until it is
# known how long they take, and at most.
TURN_SECONDS = 0.002
AT_FIRST = 32
AT_MOST = 500
# Tag of field 1 with a message: RouteResponse.decision, RouteBatchResponse.results, RouteStreamResponse.result and
# RouteResult.decision.
FIELD_1 = b"\x0a"


@dataclass(frozen=True, slots=True)
class Kept:
    """The candidates of one moment, for later pages."""

    candidates: CandidateList
    until: float


class RoutingService(routing_pb2_grpc.RoutingServiceServicer):
    """Route, RouteBatch and RouteStream answer with their encoded messages, which the edge passes on as they are."""

    def __init__(
        self,
        router: Router,
        feed: CatalogFeed,
        *,
        report: Callable[[Outcome, float], Reported],
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """`report` takes an outcome, whoever made its decision."""
        self._router = router
        self._feed = feed
        self._report = report
        self._monotonic = monotonic
        self._new_id = new_id
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._reader = RequestReader()
        self._writer = RecordWriter()
        self._runs = RunWriter(self._writer)
        self.durations = Histogram()

    async def Route(self, request: pb.RouteRequest, context: Context) -> bytes:
        started = self._monotonic()
        try:
            record = self._router.place(self._reader.read(request), started)
            return framed(FIELD_1, self._writer.encoded(record))
        except NoCandidate as e:
            raise self._or_soon(e, request) from None
        finally:
            self.durations.observe(self._monotonic() - started)

    async def RouteBatch(self, request: pb.RouteBatchRequest, context: Context) -> bytes:
        count = len(request.requests)
        if not 1 <= count <= 1000:
            raise InvalidFields(("requests", f"must hold 1 to 1,000 requests; got {count:,}"))
        results: list[bytes] = []
        several = AT_FIRST
        while len(results) < count:
            if results:
                await asyncio.sleep(0)
            started = self._monotonic()
            results += self._results(request.requests[len(results) : len(results) + several])
            took = max(1e-6, self._monotonic() - started)
            several = max(1, min(AT_MOST, int(several * TURN_SECONDS / took)))
        return b"".join(results)

    async def RouteStream(
        self, requests: AsyncIterator[pb.RouteStreamRequest], context: Context
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            yield self._results((request.request,))[0]

    def _results(self, messages: Sequence[pb.RouteRequest]) -> list[bytes]:
        """By message a decision, or what Route would have failed with, as field 1 that holds an encoded RouteResult;
        an unexpected error fails the call."""
        read: list[RouteRequest] = []
        invalid: dict[int, InvalidFields] = {}
        for index, message in enumerate(messages):
            try:
                read.append(self._reader.read(message))
            except InvalidFields as e:
                invalid[index] = e
        placed = self._router.place_many(read, self._monotonic())
        written: dict[int, bytes] = {}
        for run, places in placed.runs():
            told = self._runs.encoded(run, places)
            written.update((run.begin + place, result) for place, result in told.items())
        results: list[bytes] = []
        number = -1
        for index, message in enumerate(messages):
            if index in invalid:
                found: Record | NoCandidate | InvalidFields = invalid[index]
            else:
                number += 1
                if number in written:
                    results.append(written[number])
                    continue
                found = placed[number]
            if isinstance(found, Record):
                result = framed(FIELD_1, self._writer.encoded(found))
            else:
                status = errors.status_of(self._or_soon(found, message) if isinstance(found, NoCandidate) else found)
                assert status is not None
                result = pb.RouteResult(error=convert.error_to(status)).SerializeToString()
            results.append(framed(FIELD_1, result))
        return results

    def _or_soon(self, error: NoCandidate, request: pb.RouteRequest) -> NoCandidate:
        """The error; or, where the catalog has what the table does not yet, that it will be there in a moment.

        NOT_FOUND would have callers give up on what they registered a tenth of a second ago.
        """
        snapshot, compiled = self._feed.snapshot, self._router.table.compiled
        match error.reason:
            case "MODEL_UNKNOWN":
                name, known = f"model_id {request.model_id!r}", bool(self._feed.model_id(request.model_id))
                known = known and request.model_id not in compiled.model_ids
            case "CAPABILITY_UNKNOWN" if request.capability not in compiled.capabilities:
                name = f"capability {request.capability!r}"
                known = any(request.capability in model.capabilities for model in snapshot.models.values())
            case "POLICY_UNKNOWN":
                name, known = f"policy_id {request.policy_id!r}", request.policy_id in snapshot.policies
            case _:
                return error
        if not known or snapshot.revision <= self._router.table.revision:
            return error
        return NoCandidate(
            "ALL_NODES_UNHEALTHY",
            f"{name} was registered a moment ago and the routing table does not show it yet; retry",
            retry_after_seconds=INSTALL_SECONDS,
        )

    async def GetCandidates(self, request: pb.GetCandidatesRequest, context: Context) -> pb.GetCandidatesResponse:
        now = self._monotonic()
        while self._kept and next(iter(self._kept.values())).until <= now:
            self._kept.popitem(last=False)
        asked = request.request.SerializeToString(deterministic=True)
        scope = ("candidates", hashlib.blake2s(asked).hexdigest())
        position = pages.position(scope, request.page_token)
        if position:
            list_id, _, start = position.partition(":")
            kept = self._kept.get(list_id)
            if kept is None:
                raise InvalidFields(
                    (
                        "page_token",
                        f"has expired after {CANDIDATES_SECONDS:.0f} s, or is of another replica; "
                        "start again without page_token",
                    )
                )
            found, first = kept.candidates, int(start)
        else:
            first, list_id = 0, ""
            try:
                found = self._router.candidates(convert.request_from(request.request), now)
            except NoCandidate as e:
                raise self._or_soon(e, request.request) from None
        end = first + pages.size_of(request.page_size)
        total = len(found.candidates)
        if end < total and not list_id:
            list_id = self._new_id()
            self._kept[list_id] = Kept(found, now + CANDIDATES_SECONDS)
            if len(self._kept) > CANDIDATES_KEPT:
                self._kept.popitem(last=False)
        return pb.GetCandidatesResponse(
            candidates=[convert.candidate_to(candidate) for candidate in found.candidates[first:end]],
            next_page_token=pages.token(scope, f"{list_id}:{end}") if end < total else "",
            total_size=total,
            table_revision=found.table_revision,
            rejected=dict(found.rejected),
        )

    async def ReportOutcomes(self, request: pb.ReportOutcomesRequest, context: Context) -> pb.ReportOutcomesResponse:
        found = validation.outcome_violations(request.outcomes)
        if found:
            raise InvalidFields(*found)
        now = self._monotonic()
        counts = dict.fromkeys(Reported, 0)
        for outcome in request.outcomes:
            counts[self._report(convert.outcome_from(outcome), now)] += 1
        return pb.ReportOutcomesResponse(
            accepted=counts[Reported.ACCEPTED],
            repeated_reports=counts[Reported.REPEATED],
            unknown=counts[Reported.UNKNOWN],
        )

    async def GetDecision(self, request: pb.GetDecisionRequest, context: Context) -> pb.GetDecisionResponse:
        record = self._router.decision(request.decision_id)
        return pb.GetDecisionResponse(
            decision=convert.decision_to(record.decision),
            request=convert.request_to(record.request),
            outcomes=[convert.outcome_to(outcome) for outcome in record.outcomes],
            record_json=json.dumps(entry(record), separators=(",", ":")),
        )

    async def WatchLeases(self, request: pb.WatchLeasesRequest, context: Context) -> NoReturn:
        raise NotOffered("WatchLeases is not served by this version; ask Route, or RouteBatch for many at once")
