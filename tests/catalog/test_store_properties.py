"""Whatever is done to them, both kinds of store are in the same state, and their logs make their snapshots."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.changes import key_of
from catalog.errors import CatalogError
from catalog.memory import MemoryStore
from catalog.snapshot import EMPTY_SNAPSHOT, FIELD_OF, apply
from catalog.sql import schema
from catalog.sql.store import SqlStore, open_store
from catalog.store import CatalogStore
from catalog.types import DeploymentStatus, Node, Resource, ResourceKind, Snapshot
from tests.catalog.builders import OWNER, Clock, a_deployment, a_model, a_node, a_policy, a_region, contents
from tests.catalog.conftest import PATIENT

DAY = 86_400.0
regions = st.sampled_from(["r1", "r2"])
models = st.sampled_from(["a", "b", "org/c"])
node_names = st.sampled_from(["r1/x", "r1/x-1", "r2/x"])
statuses = st.sampled_from(DeploymentStatus)
few = st.integers(0, 2)


@st.composite
def resources(draw: st.DrawFn) -> Resource:
    """Of few names and contents, so that they meet again."""
    match draw(st.sampled_from(ResourceKind)):
        case ResourceKind.REGION:
            return a_region(draw(regions), latitude=float(draw(few)))
        case ResourceKind.MODEL:
            return a_model(draw(models), context_window_tokens=draw(few))
        case ResourceKind.POLICY:
            return a_policy(draw(st.sampled_from(["p", "q"])), document=str(draw(few)))
        case ResourceKind.NODE:
            name = draw(node_names)
            served = draw(st.lists(st.builds(a_deployment, models, st.just(name), status=statuses), max_size=3))
            return a_node(name, zone=str(draw(few)), labels={"a": str(draw(few))}, deployments=tuple(served))


# A step is data, for hypothesis to shrink: what to do, with what, and which etag and request id to send.
steps = st.one_of(
    st.tuples(
        st.just("put"),
        st.lists(resources(), max_size=3),
        st.sampled_from(["", "current", "stale"]),
        st.sampled_from(["", "r1", "r2"]),
    ),
    st.tuples(st.just("edit"), resources(), st.sampled_from(["drain", "undrain", "expire", "revive", "nothing"])),
    st.tuples(st.just("delete"), resources(), st.sampled_from(["", "current", "stale"])),
    st.tuples(st.just("compact"), st.integers(0, 5)),
    st.tuples(st.just("pass"), st.sampled_from([1.0, DAY])),
)


def found(snapshot: Snapshot, resource: Resource) -> Resource | None:
    kind, name = key_of(resource)
    stored: Resource | None = getattr(snapshot, FIELD_OF[kind]).get(name)
    return stored


def edited(how: str) -> Callable[[Resource], Resource]:
    def change(resource: Resource) -> Resource:
        if not isinstance(resource, Node):
            return resource
        match how:
            case "drain":
                served = tuple(replace(of, status=DeploymentStatus.DRAINING) for of in resource.deployments)
                return replace(resource, draining=True, deployments=served)
            case "undrain":
                served = tuple(replace(of, status=DeploymentStatus.READY) for of in resource.deployments)
                return replace(resource, draining=False, deployments=served)
            case "expire":
                return replace(resource, expired=True, expire_time=7.0)
            case "revive":
                return replace(resource, expired=False, expire_time=0.0)
            case _:
                return resource

    return change


async def take(store: CatalogStore, step: tuple[Any, ...]) -> object:
    """What the step came to: an answer, or an error as text."""
    try:
        snapshot = await store.snapshot()
        match step:
            case "put", wanted, etag, request_id:
                marked = [replace(of, etag=etag_of(snapshot, of, etag)) for of in wanted]
                return await store.put(marked, request_id=request_id, actor="alice")
            case "edit", resource, how:
                return await store.edit(*key_of(resource), edited(how), actor="bob")
            case "delete", resource, etag:
                return await store.delete(*key_of(resource), etag=etag_of(snapshot, resource, etag))
            case "compact", keep:
                return await store.compact(keep)
            case _:
                return None
    except (CatalogError, ValueError) as error:
        return repr(error)


def etag_of(snapshot: Snapshot, resource: Resource, which: str) -> str:
    if which == "current":
        stored = found(snapshot, resource)
        return "" if stored is None else stored.etag
    return which


async def check(story: list[tuple[Any, ...]], memory: MemoryStore, sql: SqlStore, clock: Clock) -> None:
    followed = EMPTY_SNAPSHOT
    for step in story:
        if step[0] == "pass":
            clock.now += step[1]
            continue

        before = await memory.snapshot()
        assert await take(memory, step) == await take(sql, step)
        after = await memory.snapshot()

        assert contents(after) == contents(await sql.snapshot())
        changes = await memory.changes(max(before.revision, await oldest(memory) - 1))
        assert changes == await sql.changes(max(before.revision, await oldest(memory) - 1))
        followed = apply(followed, changes)
        assert contents(followed) == contents(after)
        assert await memory.audit() == await sql.audit()
        for policy_id in ("p", "q"):
            assert await memory.policy_history(policy_id) == await sql.policy_history(policy_id)


async def oldest(store: CatalogStore) -> int:
    return await store.compact(10**9)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with our schema, to copy."""
    file = tmp_path_factory.mktemp("template") / "fairway.db"
    schema.upgrade(f"sqlite:///{file}")
    return file


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(story=st.lists(steps, max_size=15))
def test_both_stores_tell_one_story(template: Path, story: list[tuple[Any, ...]]) -> None:
    async def tell() -> None:
        clock = Clock()
        with TemporaryDirectory() as directory:
            shutil.copy(template, directory)
            url = f"sqlite:///{directory}/{template.name}"
            sql = await open_store(url, owner=OWNER, clock=clock, timeouts=PATIENT)
            try:
                await check(story, MemoryStore(OWNER, clock=clock), sql, clock)
            finally:
                await sql.close()

    anyio.run(tell)
