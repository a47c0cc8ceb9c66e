"""CatalogService: registration, reading and watching of what exists.

Reads and watches are served from the feed's snapshot, also while the store is away. A write returns once the feed
shows it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

from catalog.errors import NotFound
from catalog.store import CatalogStore
from catalog.turns import Steps, each, in_turns
from catalog.types import Deployment, DeploymentStatus, Model, Node, Region, Resource, ResourceKind, Snapshot
from federation.api import pages, validation
from federation.api.calls import Context
from federation.api.convert import resources as convert
from federation.api.convert.health import load_from
from federation.api.convert.times import duration, timestamp
from federation.api.errors import InvalidFields, RevisionAhead
from federation.feed import CatalogFeed
from federation.health.monitor import Monitor
from federation.health.records import Load
from federation.leases import LeaseKeeper
from federation.v1 import catalog_pb2 as pb
from federation.v1 import catalog_pb2_grpc, types_pb2


class CatalogService(catalog_pb2_grpc.CatalogServiceServicer):
    """Serves one store; `kick` has a node probed at once."""

    def __init__(
        self,
        store: CatalogStore,
        feed: CatalogFeed,
        leases: LeaseKeeper,
        monitor: Monitor,
        *,
        owns: Sequence[str],
        owner_of: Callable[[str], str],
        allowed_schemes: Sequence[str],
        kick: Callable[[str], None],
        on_beat: Callable[[str, Load | None], None],
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._feed = feed
        self._leases = leases
        self._monitor = monitor
        self._owns = owns
        self._owner_of = owner_of
        self._allowed_schemes = allowed_schemes
        self._kick = kick
        self._on_beat = on_beat
        self._monotonic = monotonic
        self._wall = wall

    # Models.

    async def RegisterModel(self, request: pb.RegisterModelRequest, context: Context) -> pb.RegisterModelResponse:
        model = convert.model_from(request.model)
        if request.update_mask.paths:
            validation.check_mask("update_mask", request.update_mask.paths, convert.MODEL_FIELDS)
            stored = cast(Model, await self._store.get(ResourceKind.MODEL, model.model_id))
            model = convert.merged(stored, model, request.update_mask.paths, convert.MODEL_FIELDS)
        found = validation.model_violations(convert.model_to(model), self._taken_by_another(model.model_id))
        if found:
            raise InvalidFields(*found)
        (put,) = await self._store.put([model], request_id=request.request_id, actor=context.peer())
        await self._feed.reached(put.revision)
        return pb.RegisterModelResponse(model=convert.model_to(put))

    def _taken_by_another(self, model_id: str) -> Callable[[str], str]:
        def other(name: str) -> str:
            owner = self._feed.model_id(name)
            return owner if owner != model_id else ""

        return other

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        model_id = self._feed.model_id(request.model_id)
        if not model_id:
            raise NotFound("model", request.model_id)
        return pb.GetModelResponse(model=convert.model_to(self._feed.snapshot.models[model_id]))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        scope = ("models", request.capability)
        after = pages.position(scope, request.page_token)
        snapshot = self._feed.snapshot
        items = (
            (name, snapshot.models[name])
            for name in self._feed.names(ResourceKind.MODEL, after)
            if not request.capability or request.capability in snapshot.models[name].capabilities
        )
        page, next_token = pages.page(items, scope, request.page_size, convert.model_to)
        return pb.ListModelsResponse(
            models=page,
            next_page_token=next_token,
            revision=snapshot.revision,
        )

    async def DeregisterModel(self, request: pb.DeregisterModelRequest, context: Context) -> pb.DeregisterModelResponse:
        revision = await self._store.delete(
            ResourceKind.MODEL, request.model_id, etag=request.etag, actor=context.peer()
        )
        await self._feed.reached(revision)
        return pb.DeregisterModelResponse(revision=revision)

    # Nodes.

    async def RegisterNode(self, request: pb.RegisterNodeRequest, context: Context) -> pb.RegisterNodeResponse:
        (node,) = await self._register(request, [request], context, prefix="")
        return pb.RegisterNodeResponse(node=convert.node_to(node))

    async def RegisterNodes(self, request: pb.RegisterNodesRequest, context: Context) -> pb.RegisterNodesResponse:
        nodes = await self._register(request, request.nodes, context, prefix="nodes[{}].")
        return pb.RegisterNodesResponse(nodes=await in_turns(each(convert.node_to, nodes)))

    async def _register(
        self,
        message: pb.RegisterNodeRequest | pb.RegisterNodesRequest,
        requests: Sequence[pb.RegisterNodeRequest],
        context: Context,
        *,
        prefix: str,
    ) -> tuple[Node, ...]:
        found = validation.registration_violations(message, requests)
        found += await in_turns(self._violations(requests, prefix))
        if found:
            raise InvalidFields(*found)
        validation.check_owned((request.node.region_id for request in requests), self._owns, self._owner_of)
        nodes = await in_turns(each(lambda request: convert.node_from(request.node, request.deployments), requests))
        nodes = [await self._merged(request, node) for request, node in zip(requests, nodes, strict=True)]
        for index, (request, merged) in enumerate(zip(requests, nodes, strict=True)):
            if request.update_mask.paths:
                found += self._endpoint_violations(prefix.format(index), convert.node_to(merged))
        if found:
            raise InvalidFields(*found)
        put = await self._store.put(nodes, request_id=message.request_id, actor=context.peer())
        await self._feed.reached(max(stored.revision for stored in put))
        self._leases.sync()
        for stored in put:
            self._leases.beat(stored.name, self._monotonic())
            self._kick(stored.name)
        return put

    def _violations(self, requests: Sequence[pb.RegisterNodeRequest], prefix: str) -> Steps[list[validation.Violation]]:
        """What is wrong with registrations beside each other and what there is."""
        found: list[validation.Violation] = []
        first: dict[str, int] = {}
        for index, request in enumerate(requests):
            yield
            path = prefix.format(index)
            node = request.node
            name = f"{node.region_id}/{node.node_id}"
            found += validation.deployment_violations(path, request, self._feed.model_id)
            found += validation.mask_violations(f"{path}update_mask", request.update_mask.paths, convert.NODE_FIELDS)
            if not request.update_mask.paths:
                found += self._endpoint_violations(path, node)
            if first.setdefault(name, index) != index:
                found.append((f"{path}node.node_id", f"node {name!r} stands in nodes[{first[name]}] too; send it once"))
        return found

    def _endpoint_violations(self, prefix: str, node: types_pb2.Node) -> list[validation.Violation]:
        return validation.endpoint_violations(
            f"{prefix}node.endpoint", node.endpoint, node.engine, self._allowed_schemes
        )

    async def _merged(self, request: pb.RegisterNodeRequest, node: Node) -> Node:
        """The node with what is stored of it where the mask leaves it as it is."""
        if not request.update_mask.paths:
            return node
        stored = cast(Node, await self._store.get(ResourceKind.NODE, node.name))
        return convert.merged(stored, node, request.update_mask.paths, convert.NODE_FIELDS)

    async def GetNode(self, request: pb.GetNodeRequest, context: Context) -> pb.GetNodeResponse:
        return pb.GetNodeResponse(node=convert.node_to(self._node(request.region_id, request.node_id)))

    def _node(self, region_id: str, node_id: str) -> Node:
        node = self._feed.snapshot.nodes.get(f"{region_id}/{node_id}")
        if node is None:
            raise NotFound("node", f"{region_id}/{node_id}")
        return node

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        scope = ("nodes", request.region_id, request.model_id)
        after = pages.position(scope, request.page_token)
        snapshot = self._feed.snapshot
        model_id = self._feed.model_id(request.model_id) or request.model_id
        items = _nodes(snapshot, self._feed, after, request.region_id, model_id)
        page, next_token = pages.page(items, scope, request.page_size, convert.node_to)
        return pb.ListNodesResponse(nodes=page, next_page_token=next_token, revision=snapshot.revision)

    async def DeregisterNode(self, request: pb.DeregisterNodeRequest, context: Context) -> pb.DeregisterNodeResponse:
        self._not_a_peers(request.region_id, request.node_id)
        name = f"{request.region_id}/{request.node_id}"
        revision = await self._store.delete(ResourceKind.NODE, name, etag=request.etag, actor=context.peer())
        await self._feed.reached(revision)
        return pb.DeregisterNodeResponse(revision=revision)

    def _not_a_peers(self, region_id: str, node_id: str) -> None:
        """NotOwner for a node in a region that a peer owns: "not found" would look like a typing error.

        What was registered here before the region had another owner can still be taken back.
        """
        if self._owner_of(region_id) and f"{region_id}/{node_id}" not in self._feed.snapshot.nodes:
            validation.check_owned([region_id], self._owns, self._owner_of)

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Context) -> pb.DrainNodeResponse:
        node = await self._edit_node(request.region_id, request.node_id, _set_draining(True), context)
        return pb.DrainNodeResponse(node=convert.node_to(node))

    async def UndrainNode(self, request: pb.UndrainNodeRequest, context: Context) -> pb.UndrainNodeResponse:
        node = await self._edit_node(request.region_id, request.node_id, _set_draining(False), context)
        return pb.UndrainNodeResponse(node=convert.node_to(node))

    async def _edit_node(self, region_id: str, node_id: str, change: Callable[[Node], Node], context: Context) -> Node:
        def changed(resource: Resource) -> Resource:
            return change(cast(Node, resource))

        self._not_a_peers(region_id, node_id)
        name = f"{region_id}/{node_id}"
        stored = cast(Node, await self._store.edit(ResourceKind.NODE, name, changed, actor=context.peer()))
        await self._feed.reached(stored.revision)
        return stored

    # Deployments.

    async def ListDeployments(self, request: pb.ListDeploymentsRequest, context: Context) -> pb.ListDeploymentsResponse:
        scope = ("deployments", request.region_id, request.model_id)
        after = pages.position(scope, request.page_token)
        snapshot = self._feed.snapshot
        model_id = self._feed.model_id(request.model_id) or request.model_id
        items = (
            (deployment.name, deployment)
            for deployment in _deployments(snapshot, self._feed, after, request.region_id)
            if not model_id or deployment.model_id == model_id
        )
        page, next_token = pages.page(items, scope, request.page_size, convert.deployment_to)
        return pb.ListDeploymentsResponse(
            deployments=page,
            next_page_token=next_token,
            revision=snapshot.revision,
        )

    async def DrainDeployment(self, request: pb.DrainDeploymentRequest, context: Context) -> pb.DrainDeploymentResponse:
        return pb.DrainDeploymentResponse(
            deployment=await self._set_status(
                request.region_id, request.node_id, request.model_id, DeploymentStatus.DRAINING, context
            )
        )

    async def UndrainDeployment(
        self, request: pb.UndrainDeploymentRequest, context: Context
    ) -> pb.UndrainDeploymentResponse:
        return pb.UndrainDeploymentResponse(
            deployment=await self._set_status(
                request.region_id, request.node_id, request.model_id, DeploymentStatus.READY, context
            )
        )

    async def _set_status(
        self, region_id: str, node_id: str, model_name: str, status: DeploymentStatus, context: Context
    ) -> types_pb2.Deployment:
        model_id = self._feed.model_id(model_name) or model_name

        def change(node: Node) -> Node:
            if all(deployment.model_id != model_id for deployment in node.deployments):
                raise NotFound("deployment", f"{node.name}/{model_id}")
            return replace(node, deployments=tuple(_with_status(each, model_id, status) for each in node.deployments))

        node = await self._edit_node(region_id, node_id, change, context)
        return convert.deployment_to(next(each for each in node.deployments if each.model_id == model_id))

    # Regions.

    async def PutRegion(self, request: pb.PutRegionRequest, context: Context) -> pb.PutRegionResponse:
        region = convert.region_from(request.region)
        validation.check_owned([region.region_id], self._owns, self._owner_of)
        if request.update_mask.paths:
            validation.check_mask("update_mask", request.update_mask.paths, convert.REGION_FIELDS)
            stored = cast(Region, await self._store.get(ResourceKind.REGION, region.region_id))
            region = convert.merged(stored, region, request.update_mask.paths, convert.REGION_FIELDS)
        found = validation.region_violations(convert.region_to(region))
        if found:
            raise InvalidFields(*found)
        (put,) = await self._store.put([region], request_id=request.request_id, actor=context.peer())
        await self._feed.reached(put.revision)
        return pb.PutRegionResponse(region=convert.region_to(put))

    async def GetRegion(self, request: pb.GetRegionRequest, context: Context) -> pb.GetRegionResponse:
        region = self._feed.snapshot.regions.get(request.region_id)
        if region is None:
            raise NotFound("region", request.region_id)
        return pb.GetRegionResponse(region=convert.region_to(region))

    async def ListRegions(self, request: pb.ListRegionsRequest, context: Context) -> pb.ListRegionsResponse:
        scope = ("regions",)
        after = pages.position(scope, request.page_token)
        snapshot = self._feed.snapshot
        items = ((name, snapshot.regions[name]) for name in self._feed.names(ResourceKind.REGION, after))
        page, next_token = pages.page(items, scope, request.page_size, convert.region_to)
        return pb.ListRegionsResponse(
            regions=page,
            next_page_token=next_token,
            revision=snapshot.revision,
        )

    # Streams.

    async def Heartbeat(
        self, requests: AsyncIterator[pb.HeartbeatRequest], context: Context
    ) -> AsyncIterator[pb.HeartbeatResponse]:
        async for request in requests:
            validation.check(request)
            now = self._monotonic()
            response = pb.HeartbeatResponse()
            for beat in request.beats:
                name = f"{beat.region_id}/{beat.node_id}"
                node = self._leases.beat(name, now)
                result = response.results.add(region_id=beat.region_id, node_id=beat.node_id, known=node is not None)
                if node is not None:
                    result.lease_duration.CopyFrom(duration(node.lease_seconds))
                    load = load_from(beat.load) if beat.HasField("load") else None
                    if load is not None:
                        self._monitor.observe_load(name, load, now)
                    self._on_beat(name, load)
            yield response

    async def WatchCatalog(
        self, request: pb.WatchCatalogRequest, context: Context
    ) -> AsyncIterator[pb.WatchCatalogResponse]:
        after = request.after_revision
        if after > self._feed.revision:
            # Another replica may have told the caller of it a moment ago.
            await self._feed.pull()
            if after > self._feed.revision:
                raise RevisionAhead(after, self._feed.revision)
        if after == 0:
            snapshot = self._feed.snapshot
            for resource in _in_order(snapshot):
                yield self._told(convert.resource_change(resource, 0))
            after = snapshot.revision
            yield pb.WatchCatalogResponse(snapshot_complete_revision=after, send_time=timestamp(self._wall()))
        while True:
            for change in await self._feed.since(after):
                after = change.revision
                told = convert.change_to(change)
                if told is not None:
                    yield self._told(told)
            await self._feed.moved(after)

    def _told(self, change: pb.CatalogChange | None) -> pb.WatchCatalogResponse:
        return pb.WatchCatalogResponse(change=change, send_time=timestamp(self._wall()))


def _set_draining(draining: bool) -> Callable[[Node], Node]:
    return lambda node: replace(node, draining=draining)


def _with_status(deployment: Deployment, model_id: str, status: DeploymentStatus) -> Deployment:
    if deployment.model_id != model_id:
        return deployment
    # Taking a drain back leaves one alone that loads, or is gone.
    if status is DeploymentStatus.READY and deployment.status is not DeploymentStatus.DRAINING:
        return deployment
    return replace(deployment, status=status)


def _in_order(snapshot: Snapshot) -> Iterator[Resource]:
    """Regions, models, nodes: what is named stands before what names it."""
    for of in (snapshot.regions, snapshot.models, snapshot.nodes):
        for name in sorted(of):
            yield of[name]


def _nodes(
    snapshot: Snapshot, feed: CatalogFeed, after: str, region_id: str, model_id: str
) -> Iterator[tuple[str, Node]]:
    prefix = f"{region_id}/" if region_id else ""
    for name in feed.names(ResourceKind.NODE, max(after, prefix)):
        if not name.startswith(prefix):
            return
        node = snapshot.nodes[name]
        if not model_id or any(deployment.model_id == model_id for deployment in node.deployments):
            yield name, node


def _deployments(snapshot: Snapshot, feed: CatalogFeed, after: str, region_id: str) -> Iterator[Deployment]:
    prefix = f"{region_id}/" if region_id else ""
    # The node that the page before ended in comes again; what it told already is passed over.
    node_path = "/".join(after.split("/", 2)[:2]) + "/" if after else ""
    paths = feed.node_paths(max(node_path, prefix))
    if node_path and node_path[:-1] in snapshot.nodes:
        paths.insert(0, node_path)
    for path in paths:
        if not path.startswith(prefix):
            return
        for deployment in snapshot.nodes[path[:-1]].deployments:
            if deployment.name > after:
                yield deployment
