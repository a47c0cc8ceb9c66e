"""Writers that remember what they were answered, and what a catalog must look like for it.

Each writer has nodes of its own and one call under way at a time, so what its nodes may look like is known exactly: as
answered last, or, where a call was cut, as before it or after it, whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc

from federation.v1 import catalog_pb2, types_pb2

REGION = "local"
NODES_A_WRITER = 6
MODELS = 8
# Set by the server; all else is what was sent.
SET_BY_SERVER = ("owner", "revision", "etag", "generation", "create_time", "draining", "lease_expired")


@dataclass(frozen=True)
class Write:
    """A registration of one or several nodes, or (with `removed`) the removal of one."""

    request_id: str
    wanted: Mapping[str, types_pb2.Node]
    removed: str = ""


@dataclass
class Writer:
    """`known` is what the catalog holds of its nodes as far as it was told; `doubt` is a call that was cut."""

    number: int
    rng: Random
    known: dict[str, types_pb2.Node] = field(default_factory=dict)
    doubt: Write | None = None
    # (name, revision) of each registration that was answered, since they were last taken.
    acknowledged: list[tuple[str, int]] = field(default_factory=list)
    writes: int = 0
    answered: int = 0

    async def write_until_cut(self, catalog: Any) -> None:
        """Writes one after the other, for as long as there are answers."""
        while self.doubt is None:
            self.doubt = self.next_write()
            try:
                await self.carry_out(catalog)
            except grpc.aio.AioRpcError as e:
                assert e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), e
                return

    async def carry_out(self, catalog: Any) -> None:
        """Makes the call that is in doubt, for the first time or again; its answer ends the doubt."""
        write = self.doubt
        assert write is not None
        if write.removed:
            await self._remove(catalog, write)
        else:
            await self._register(catalog, write)
        self.doubt = None
        self.answered += 1

    async def _register(self, catalog: Any, write: Write) -> None:
        requests = [
            catalog_pb2.RegisterNodeRequest(node=without_deployments(node), deployments=node.deployments)
            for node in write.wanted.values()
        ]
        if len(requests) == 1:
            requests[0].request_id = write.request_id
            answers = [(await catalog.RegisterNode(requests[0])).node]
        else:
            batch = catalog_pb2.RegisterNodesRequest(nodes=requests, request_id=write.request_id)
            answers = list((await catalog.RegisterNodes(batch)).nodes)
        for name, node in zip(write.wanted, answers, strict=True):
            before = self.known.get(name)
            assert spec(node) == spec(write.wanted[name])
            # Once, however often it was sent.
            assert node.generation == (before.generation + 1 if before is not None else 1), (name, before, node)
            assert before is None or node.revision > before.revision
            self.known[name] = node
            self.acknowledged.append((name, node.revision))

    async def _remove(self, catalog: Any, write: Write) -> None:
        region_id, node_id = write.removed.split("/")
        etag = self.known[write.removed].etag
        try:
            answer = await catalog.DeregisterNode(
                catalog_pb2.DeregisterNodeRequest(region_id=region_id, node_id=node_id, etag=etag)
            )
            self.acknowledged.append((write.removed, answer.revision))
        except grpc.aio.AioRpcError as e:
            # It is gone since the call that was cut.
            if e.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        del self.known[write.removed]

    def next_write(self) -> Write:
        self.writes += 1
        chance = self.rng.random()
        if self.known and chance < 0.1:
            return Write("", {}, removed=self.rng.choice(sorted(self.known)))
        count = 3 if chance > 0.7 else 1
        numbers = self.rng.sample(range(NODES_A_WRITER), count)
        wanted = {f"{REGION}/w{self.number}-n{number}": self._a_node(number) for number in numbers}
        return Write(f"w{self.number}-{self.writes}", wanted)

    def _a_node(self, number: int) -> types_pb2.Node:
        node_id = f"w{self.number}-n{number}"
        before = self.known.get(f"{REGION}/{node_id}")
        node = types_pb2.Node(
            region_id=REGION,
            node_id=node_id,
            endpoint=f"http://127.0.0.1:{self.rng.randint(1, 65_535)}",
            engine=types_pb2.ENGINE_VLLM,
            labels={"write": str(self.writes)},
            lease_duration={"seconds": 0},
            etag=before.etag if before is not None else "",
        )
        models = [f"model-{each}" for each in self.rng.sample(range(MODELS), self.rng.randint(1, 4))]
        if self.rng.random() < 0.2:
            # One that nobody has seen; its record comes with the node, or not at all.
            models.append(f"model-w{self.number}-{self.writes}")
        for model_id in sorted(models):
            node.deployments.add(
                model_id=model_id,
                price_usd_per_million_input_tokens=float(self.rng.randint(1, 100)),
                adapters=[f"adapter-{each}" for each in range(self.rng.randint(0, 3))],
            )
        return node

    def check(self, nodes: Mapping[str, types_pb2.Node]) -> None:
        """Whether the catalog's nodes are what this writer knows, and what is in doubt happened whole or not at all."""
        mine = {name: node for name, node in nodes.items() if name.startswith(f"{REGION}/w{self.number}-")}
        touched = set() if self.doubt is None else {*self.doubt.wanted, self.doubt.removed}
        settled = {name: node for name, node in mine.items() if name not in touched}
        assert settled == {name: node for name, node in self.known.items() if name not in touched}
        if self.doubt is None:
            return
        found = {name: spec(node) for name, node in mine.items() if name in touched}
        before = {name: spec(node) for name, node in self.known.items() if name in touched}
        after = {name: spec(node) for name, node in self.doubt.wanted.items()}
        assert found in (before, after), f"half of a write: {self.doubt}, found {found}"


def without_deployments(node: types_pb2.Node) -> types_pb2.Node:
    copy = types_pb2.Node()
    copy.CopyFrom(node)
    copy.ClearField("deployments")
    return copy


def spec(node: types_pb2.Node) -> types_pb2.Node:
    """What was asked for: the node without what the server set."""
    copy = types_pb2.Node()
    copy.CopyFrom(node)
    for name in SET_BY_SERVER:
        copy.ClearField(name)
    for deployment in copy.deployments:
        for name in ("region_id", "node_id", "served_model_name", "status", "weight", "profile"):
            deployment.ClearField(name)
    return copy


@dataclass
class Catalog:
    """Everything at one revision, by kind and name, as a watch tells it."""

    revision: int
    resources: dict[tuple[str, str], Any]

    @property
    def nodes(self) -> dict[str, types_pb2.Node]:
        return {name: resource for (kind, name), resource in self.resources.items() if kind == "node"}

    @classmethod
    async def read(cls, stub: Any) -> Catalog:
        """The snapshot that a new watch starts with."""
        resources: dict[tuple[str, str], Any] = {}
        watch = stub.WatchCatalog(catalog_pb2.WatchCatalogRequest())
        try:
            async for told in watch:
                if told.WhichOneof("event") == "snapshot_complete_revision":
                    return cls(told.snapshot_complete_revision, resources)
                kind = told.change.WhichOneof("resource")
                resources[kind, told.change.name] = getattr(told.change, kind)
        finally:
            watch.cancel()
        raise AssertionError("the watch ended before its snapshot was complete")

    async def follow(self, stub: Any, revision: int) -> Sequence[catalog_pb2.CatalogChange]:
        """Applies the changes up to a revision, read by a watch that goes on after this one's; answers them."""
        changes: list[catalog_pb2.CatalogChange] = []
        watch = stub.WatchCatalog(catalog_pb2.WatchCatalogRequest(after_revision=self.revision))
        try:
            while self.revision < revision:
                told = await watch.read()
                assert told is not grpc.aio.EOF
                change = told.change
                assert change.revision > self.revision, "revisions grow"
                kind = change.WhichOneof("resource")
                if change.deleted:
                    del self.resources[kind, change.name]
                else:
                    self.resources[kind, change.name] = getattr(change, kind)
                self.revision = change.revision
                changes.append(change)
        finally:
            watch.cancel()
        return changes

    def check_whole(self) -> None:
        """Every node has its deployments, and every deployment its model."""
        models = {name for kind, name in self.resources if kind == "model"}
        for name, node in self.nodes.items():
            assert node.deployments, name
            for deployment in node.deployments:
                assert f"{deployment.region_id}/{deployment.node_id}" == name
                assert deployment.model_id in models, (name, deployment.model_id)
