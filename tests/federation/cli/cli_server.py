"""A real gRPC server on a real port that answers with the canned fleet and remembers what it was asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from cli_canned import (
    BUDGETS,
    CANDIDATES,
    CIRCUITS,
    DECISION,
    DECISION_ID,
    DEPLOYMENTS,
    FLEET,
    HEALTH,
    MODELS,
    NODES,
    OUTCOMES,
    PEERS,
    POLICIES,
    REGIONS,
    REQUEST,
)
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from federation.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    routing_pb2,
    routing_pb2_grpc,
)


async def fail(
    context: Any,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    metadata: dict[str, str] | None = None,
    violations: Sequence[tuple[str, str]] = (),
) -> Any:
    """Ends the call as the product does: a status with one ErrorInfo, and BadRequest where fields are wrong."""
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain="federation.v1", metadata=metadata or {})
    packed = any_pb2.Any()
    packed.Pack(info)
    status.details.append(packed)
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, text in violations:
            bad.field_violations.add(field=field, description=text)
        packed = any_pb2.Any()
        packed.Pack(bad)
        status.details.append(packed)
    await context.abort_with_status(rpc_status.to_status(status))


def page(items: Sequence[Any], request: Any) -> tuple[list[Any], str]:
    """One page; the token is where the next one starts."""
    start = int(request.page_token or 0)
    end = min(start + (request.page_size or 100), start + PAGE)
    return list(items[start:end]), str(end) if end < len(items) else ""


# Small, so that every list takes several pages.
PAGE = 2


class Asked:
    """What the servicers were asked, in order."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def add(self, request: Any) -> None:
        """Keeps a copy: a servicer may fill in the one that it got, for its answer."""
        kept = type(request)()
        kept.CopyFrom(request)
        self.requests.append(kept)

    def of(self, kind: type) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]


class Catalog(catalog_pb2_grpc.CatalogServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    async def ListModels(self, request, context):
        items, token = page(MODELS, request)
        return catalog_pb2.ListModelsResponse(models=items, next_page_token=token, revision=57)

    async def GetModel(self, request, context):
        for model in MODELS:
            if request.model_id in (model.model_id, *model.aliases):
                return catalog_pb2.GetModelResponse(model=model)
        return await fail(
            context, grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN", f"model '{request.model_id}' does not exist"
        )

    async def RegisterModel(self, request, context):
        self.asked.add(request)
        return catalog_pb2.RegisterModelResponse(model=request.model)

    async def DeregisterModel(self, request, context):
        message = f"model '{request.model_id}' is served by node 'eu-west-1/gpu-7'; deregister its nodes first"
        await fail(context, grpc.StatusCode.FAILED_PRECONDITION, "MODEL_IN_USE", message)

    async def ListNodes(self, request, context):
        chosen = [node for node in NODES if request.region_id in ("", node.region_id)]
        items, token = page(chosen, request)
        return catalog_pb2.ListNodesResponse(nodes=items, next_page_token=token, revision=57)

    async def GetNode(self, request, context):
        for node in NODES:
            if (node.region_id, node.node_id) == (request.region_id, request.node_id):
                return catalog_pb2.GetNodeResponse(node=node)
        message = f"node '{request.region_id}/{request.node_id}' does not exist"
        return await fail(context, grpc.StatusCode.NOT_FOUND, "NODE_UNKNOWN", message)

    async def RegisterNode(self, request, context):
        self.asked.add(request)
        node = request.node
        if node.node_id == "taken" and node.etag != "n11":
            message = "node 'eu-west-1/taken' is registered with other content; send its etag 'n11' to replace it"
            await fail(context, grpc.StatusCode.ALREADY_EXISTS, "NODE_CONFLICT", message, {"etag": "n11"})
        if not node.endpoint:
            fields = [("node.endpoint", "must have a length of 1 at least"), ("node.engine", "must not be 0")]
            await fail(
                context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "the request breaks its rules", None, fields
            )
        if node.region_id == "mars-1":
            message = "'mars-1/a' is owned by control plane 'mars'; write it there"
            await fail(context, grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWNER", message)
        node.revision, node.etag = 58, "n58"
        node.deployments.extend(request.deployments)
        return catalog_pb2.RegisterNodeResponse(node=node)

    async def RegisterNodes(self, request, context):
        self.asked.add(request)
        if any(each.node.region_id == "mars-1" for each in request.nodes):
            message = "'mars-1/a' is owned by control plane 'mars'; write it there"
            await fail(context, grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWNER", message)
        return catalog_pb2.RegisterNodesResponse(nodes=[each.node for each in request.nodes])

    async def DeregisterNode(self, request, context):
        self.asked.add(request)
        return catalog_pb2.DeregisterNodeResponse(revision=59)

    async def DrainNode(self, request, context):
        self.asked.add(request)
        return catalog_pb2.DrainNodeResponse(node=NODES[2])

    async def UndrainNode(self, request, context):
        self.asked.add(request)
        return catalog_pb2.UndrainNodeResponse(node=NODES[1])

    async def ListDeployments(self, request, context):
        items, token = page(DEPLOYMENTS, request)
        return catalog_pb2.ListDeploymentsResponse(deployments=items, next_page_token=token, revision=57)

    async def DrainDeployment(self, request, context):
        self.asked.add(request)
        return catalog_pb2.DrainDeploymentResponse(deployment=DEPLOYMENTS[0])

    async def UndrainDeployment(self, request, context):
        self.asked.add(request)
        return catalog_pb2.UndrainDeploymentResponse(deployment=DEPLOYMENTS[0])

    async def PutRegion(self, request, context):
        self.asked.add(request)
        return catalog_pb2.PutRegionResponse(region=request.region)

    async def GetRegion(self, request, context):
        return catalog_pb2.GetRegionResponse(
            region=next(each for each in REGIONS if each.region_id == request.region_id)
        )

    async def ListRegions(self, request, context):
        items, token = page(REGIONS, request)
        return catalog_pb2.ListRegionsResponse(regions=items, next_page_token=token, revision=57)

    async def WatchCatalog(self, request, context) -> AsyncIterator[Any]:
        told = catalog_pb2.WatchCatalogResponse(change=catalog_pb2.CatalogChange(name="eu-west-1", region=REGIONS[1]))
        told.send_time.GetCurrentTime()
        yield told
        told = catalog_pb2.WatchCatalogResponse(snapshot_complete_revision=57)
        told.send_time.GetCurrentTime()
        yield told
        await context_ends(context)


async def context_ends(context: Any) -> None:
    """A watch lives until its caller goes."""
    ended = asyncio.Event()
    context.add_done_callback(lambda _: ended.set())
    await ended.wait()


class Routing(routing_pb2_grpc.RoutingServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    async def Route(self, request, context):
        self.asked.add(request)
        codes = {
            "full": (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY"),
            "sick": (grpc.StatusCode.UNAVAILABLE, "ALL_NODES_UNHEALTHY"),
            "late": (grpc.StatusCode.FAILED_PRECONDITION, "QOS_VIOLATION"),
            "secret": (grpc.StatusCode.FAILED_PRECONDITION, "PRIVACY_VIOLATION"),
            "forbidden": (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"),
            "broken": (grpc.StatusCode.INTERNAL, "INTERNAL"),
        }
        if request.model_id in codes:
            code, reason = codes[request.model_id]
            await fail(context, code, reason, f"no place for {request.model_id}", {"rejected_TTFT_BOUND": "3"})
        if request.model_id == "slow":
            await context_ends(context)
        decision = routing_pb2.RouteDecision()
        decision.CopyFrom(DECISION)
        if request.explain == routing_pb2.EXPLAIN_FULL:
            decision.candidates.extend(CANDIDATES)
        return routing_pb2.RouteResponse(decision=decision)

    async def GetCandidates(self, request, context):
        self.asked.add(request)
        items, token = page(CANDIDATES, request)
        return routing_pb2.GetCandidatesResponse(
            candidates=items, next_page_token=token, total_size=len(CANDIDATES), table_revision=57,
            rejected={"TTFT_BOUND": 1, "UNHEALTHY": 1},
        )  # fmt: skip

    async def GetDecision(self, request, context):
        if request.decision_id != DECISION_ID:
            message = f"decision '{request.decision_id}' is not remembered"
            await fail(context, grpc.StatusCode.NOT_FOUND, "DECISION_UNKNOWN", message)
        told = routing_pb2.GetDecisionResponse(decision=DECISION, request=REQUEST, outcomes=OUTCOMES)
        told.decision.candidates.extend(CANDIDATES)
        return told

    async def ReportOutcomes(self, request, context):
        self.asked.add(request)
        known = request.outcomes[0].decision_id == DECISION_ID
        return routing_pb2.ReportOutcomesResponse(accepted=int(known), unknown=int(not known))


class Policy(policy_pb2_grpc.PolicyServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    async def ListPolicies(self, request, context):
        items, token = page(POLICIES, request)
        return policy_pb2.ListPoliciesResponse(policies=items, next_page_token=token)

    async def GetPolicy(self, request, context):
        found = policy_pb2.Policy()
        found.CopyFrom(next(each for each in POLICIES if each.policy_id == request.policy_id))
        if request.revision:
            found.revision, found.document_json, found.etag = request.revision, '{"picker":"round_robin"}', "old"
        return policy_pb2.GetPolicyResponse(policy=found)

    async def PutPolicy(self, request, context):
        self.asked.add(request)
        request.policy.revision = 10
        return policy_pb2.PutPolicyResponse(policy=request.policy)

    async def DeletePolicy(self, request, context):
        return policy_pb2.DeletePolicyResponse(revision=60)

    async def PreviewPolicy(self, request, context):
        self.asked.add(request)
        return policy_pb2.PreviewPolicyResponse(
            decisions=200, moved=36, mean_cost_usd_before=0.0004, mean_cost_usd_after=0.0003,
            region_share_before={"eu-west-1": 1.0}, region_share_after={"eu-west-1": 0.82, "us-east-1": 0.18},
        )  # fmt: skip


class Fleet(fleet_pb2_grpc.FleetServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    async def GetFleet(self, request, context):
        return FLEET

    async def ListNodeHealth(self, request, context):
        items, token = page([each for each in HEALTH if request.region_id in ("", each.region_id)], request)
        return fleet_pb2.ListNodeHealthResponse(nodes=items, next_page_token=token)

    async def ListCircuits(self, request, context):
        items, token = page([each for each in CIRCUITS if each.circuit.reason or not request.tripped_only], request)
        return fleet_pb2.ListCircuitsResponse(circuits=items, next_page_token=token)

    async def ResetCircuit(self, request, context):
        self.asked.add(request)
        return fleet_pb2.ResetCircuitResponse(circuits=[CIRCUITS[1]])

    async def EjectNode(self, request, context):
        self.asked.add(request)
        return fleet_pb2.EjectNodeResponse(node=HEALTH[1])

    async def RestoreNode(self, request, context):
        self.asked.add(request)
        return fleet_pb2.RestoreNodeResponse(node=HEALTH[1])

    async def ListBudgets(self, request, context):
        items, token = page([each for each in BUDGETS if request.tenant_id in ("", each.tenant_id)], request)
        return fleet_pb2.ListBudgetsResponse(budgets=items, next_page_token=token)

    async def ListPeers(self, request, context):
        return fleet_pb2.ListPeersResponse(peers=PEERS)

    async def WatchFleet(self, request, context) -> AsyncIterator[Any]:
        yield fleet_pb2.WatchFleetResponse(nodes=HEALTH)
        yield fleet_pb2.WatchFleetResponse(nodes=HEALTH[:1], removed=["us-east-1/cpu-1"])
        await context_ends(context)


class Served:
    """Where the server is, and what it was asked."""

    def __init__(self) -> None:
        self.asked = Asked()
        self.address = ""


@contextmanager
def serving(credentials: grpc.ServerCredentials | None = None) -> Iterator[Served]:
    """A server on a free port, in a loop and a thread of its own, until the block ends."""
    served = Served()
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        server = grpc.aio.server()
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(served.asked), server)
        routing_pb2_grpc.add_RoutingServiceServicer_to_server(Routing(served.asked), server)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(Policy(served.asked), server)
        fleet_pb2_grpc.add_FleetServiceServicer_to_server(Fleet(served.asked), server)
        alive = health.aio.HealthServicer()
        for service in ("", *(f"federation.v1.{name}Service" for name in ("Catalog", "Routing", "Policy", "Fleet"))):
            await alive.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(alive, server)
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        served.address = f"127.0.0.1:{port}"
        ready.set()
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(10), "the server did not start within 10 s"
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
