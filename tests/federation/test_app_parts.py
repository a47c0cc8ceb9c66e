"""What keeps a control plane going: the feed, tasks that fail, addresses and certificates."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import grpc
import pytest
import structlog

from catalog.errors import RevisionCompacted
from catalog.memory import MemoryStore
from catalog.sql import schema
from catalog.sql.store import open_store
from catalog.types import Model, Region, ResourceKind
from federation import feed as feed_module
from federation.api.listening import Certificates, StartError, parse_address
from federation.app import control_plane
from federation.config import ConfigError, Settings, load
from federation.feed import CatalogFeed
from federation.logs import RateLimited
from federation.v1 import catalog_pb2, routing_pb2, routing_pb2_grpc
from tests.federation.certificates import an_authority, write_pair
from tests.federation.server import engine, failing, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]
QUIET = structlog.wrap_logger(structlog.ReturnLogger())


async def a_feed(store: MemoryStore) -> CatalogFeed:
    feed = CatalogFeed(store, log=QUIET, monotonic=lambda: 0.0)
    await feed.start()
    return feed


def a_store() -> MemoryStore:
    return MemoryStore("local", clock=lambda: 0.0)


# The feed.


async def test_the_feed_keeps_names_in_order_as_they_come_and_go() -> None:
    store = a_store()
    feed = await a_feed(store)
    for region_id in ("c", "a", "b"):
        await store.put([Region(region_id)])
    await store.delete(ResourceKind.REGION, "b")

    await feed.pull()

    assert feed.names(ResourceKind.REGION) == ["a", "c"]
    assert feed.names(ResourceKind.REGION, after="a") == ["c"]
    assert feed.names(ResourceKind.REGION, limit=1) == ["a"]


async def test_the_feed_finds_models_by_their_aliases() -> None:
    store = a_store()
    feed = await a_feed(store)
    await store.put([Model("m", aliases=("n",))])

    await feed.pull()

    assert (feed.model_id("m"), feed.model_id("n"), feed.model_id("o")) == ("m", "m", "")


async def test_changes_that_memory_forgot_come_from_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "RECENT_CHANGES", 2)
    store = a_store()
    feed = CatalogFeed(store, log=QUIET, monotonic=lambda: 0.0)
    feed._recent = type(feed._recent)(maxlen=2)
    await feed.start()
    for region_id in ("a", "b", "c", "d"):
        await store.put([Region(region_id)])
    await feed.pull()

    assert [change.name for change in await feed.since(0)] == ["a", "b", "c", "d"]
    assert [change.name for change in await feed.since(2)] == ["c", "d"]
    assert await feed.since(4) == ()
    await store.compact(2)
    with pytest.raises(RevisionCompacted):
        await feed.since(0)


async def test_a_feed_that_fell_behind_the_log_takes_a_snapshot() -> None:
    store = a_store()
    feed = await a_feed(store)
    for region_id in ("a", "b", "c"):
        await store.put([Region(region_id)])
    await store.compact(1)

    await feed.pull()

    assert sorted(feed.snapshot.regions) == ["a", "b", "c"]
    assert feed.revision == 3


async def test_who_waits_for_a_revision_is_woken_by_it() -> None:
    store = a_store()
    feed = await a_feed(store)
    waiting = asyncio.ensure_future(feed.moved(0))
    await asyncio.sleep(0)
    assert not waiting.done()

    await store.put([Region("a")])
    await feed.pull()

    await asyncio.wait_for(waiting, 5)


# Tasks.


async def test_a_background_task_that_fails_is_seen_and_started_again() -> None:
    async with running() as fairway:
        installer = fairway.plane.installer
        sound = installer.follow

        def broken() -> None:
            installer.follow = sound  # type: ignore[method-assign]
            raise RuntimeError("a defect")

        installer.follow = broken  # type: ignore[method-assign]
        await until(lambda: fairway.plane.task_failures["installer"] == 1)
        built = installer.builds_total
        await until(lambda: installer.builds_total > built)

        (line,) = [line for line in fairway.logged if line["event"].startswith("background task failed")]
        assert line["task"] == "installer"


async def test_registering_a_node_that_is_well_anew_does_not_probe_it_again() -> None:
    async with running({"health.probe_interval_seconds": 86_400}) as fairway, engine("m", "other") as node:
        registered = await fairway.register("local", "n1", node.url, "m")
        await fairway.until_routable("m")
        queue = fairway.plane.prober._due
        # Probed, and not asked for again before tomorrow.
        await until(lambda: queue.get("local/n1", 0.0) > fairway.clock.monotonic() + 3_600)
        planned = queue["local/n1"]

        await fairway.register("local", "n1", node.url, "m", zone="z2", etag=registered.etag)
        again = queue.get("local/n1")
        registered = await fairway.catalog.GetNode(catalog_pb2.GetNodeRequest(region_id="local", node_id="n1"))
        await fairway.register("local", "n1", node.url, "m", "other", etag=registered.node.etag)

        assert again == planned
        await fairway.until_routable("other")


def test_a_flood_of_one_event_is_limited_and_counted() -> None:
    now = 0.0
    limit = RateLimited(2, lambda: now)

    admitted = [limit.admit() for _ in range(5)]
    now = 1.0
    admitted.append(limit.admit())

    assert admitted == [True, True, False, False, False, True]
    assert (limit.taken(), limit.taken()) == (3, 0)


# Addresses.


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("[::1]:50051", "::1", 50051, True),
        ("localhost:1", "localhost", 1, True),
        ("0.0.0.0:1", "0.0.0.0", 1, False),
        ("[::]:1", "::", 1, False),
        ("db.example:1", "db.example", 1, False),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int, loopback: bool) -> None:
    address = parse_address("server.listen", text)

    assert (address.host, address.port, address.is_loopback, str(address)) == (host, port, loopback, text)


@pytest.mark.parametrize("text", ["", "x", ":1", "x:", "x:y", "x:-1", "x:65536", "::1:2", "[]:1", "x:1²"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.listen: .* is not HOST:PORT"):
        parse_address("server.listen", text)


# What a server does not start with.

LOCAL = {"server.listen": "127.0.0.1:0", "server.admin": "127.0.0.1:0"}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"server.listen": "nonsense"}, "server.listen: 'nonsense' is not HOST:PORT"),
        ({"server.admin": "127.0.0.1"}, "server.admin: '127.0.0.1' is not HOST:PORT"),
        ({"server.listen": "0.0.0.0:0"}, "say server.insecure (--insecure) to serve plain text"),
        ({"security.tls_certificate": "absent", "security.tls_key": "absent"}, "absent: No such file or directory"),
        ({"store.url": "mysql://h/d"}, "store.url starts with mysql://"),
        ({"store.url_file": "absent"}, "store.url_file: absent: No such file"),
    ],
)
async def test_settings_that_cannot_be_used_are_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, object], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(None, {}, {**LOCAL, **flags})

    with pytest.raises(ConfigError) as refused:
        await enter(settings)

    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"store.url": "sqlite:///absent/fairway.db"}, "store.url: sqlite:///absent/fairway.db"),
        ({"store.url": "sqlite:///text.db"}, "store.url: sqlite:///text.db"),
        ({"store.migrate": False}, "fairway db upgrade"),
        ({"routing.decision_log": "text.db/log"}, "routing.decision_log: text.db/log"),
        ({"server.listen": "host.invalid:0", "server.insecure": True}, "server.listen: host 'host.invalid'"),
    ],
)
async def test_what_keeps_a_server_from_starting_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, object], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("not a database, and long enough to be sure of that" * 100)
    settings = load(None, {}, {**LOCAL, **flags})

    with pytest.raises(StartError) as refused:
        await enter(settings)

    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_region_of_another_owner_is_told_at_the_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'fairway.db'}"
    schema.upgrade(url)
    other = await open_store(url, owner="other", clock=lambda: 0.0)
    await other.put([Region("local")])
    await other.close()

    with pytest.raises(StartError, match=r"region\.id: 'local' is owned by control plane 'other'"):
        await enter(load(None, {}, {**LOCAL, "store.url": url}))


async def enter(settings: Settings) -> None:
    async with control_plane(settings, log=QUIET):
        raise AssertionError("it started")


# TLS.


async def routed(target: str, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    """The status of a call that an open door answers with NOT_FOUND."""
    async with grpc.aio.secure_channel(target, credentials) as channel:
        stub = routing_pb2_grpc.RoutingServiceStub(channel)  # type: ignore[no-untyped-call]
        failure = await failing(stub.Route(routing_pb2.RouteRequest(model_id="absent"), timeout=10))
    code: grpc.StatusCode = failure.code
    return code


async def test_only_clients_with_a_certificate_of_the_ca_get_in(tmp_path: Path) -> None:
    ours, theirs = an_authority(), an_authority()
    certificate, key = write_pair(tmp_path, ours.issue("server"))
    (tmp_path / "ca.crt").write_bytes(ours.pem)
    flags = {
        "security.tls_certificate": certificate,
        "security.tls_key": key,
        "security.tls_client_ca": tmp_path / "ca.crt",
    }

    async with running(flags) as fairway:
        target = f"localhost:{fairway.plane.address.port}"
        good, bad = ours.issue("client"), theirs.issue("client")
        codes = [
            await routed(target, grpc.ssl_channel_credentials(ours.pem, good[1], good[0])),
            await routed(target, grpc.ssl_channel_credentials(ours.pem, bad[1], bad[0])),
            await routed(target, grpc.ssl_channel_credentials(ours.pem)),
        ]
        expiry = fairway.plane.certificates

    assert codes == [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]
    assert expiry is not None
    assert expiry.expires_at is not None


async def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    old, new = an_authority(), an_authority()
    certificate, key = write_pair(tmp_path, old.issue("server"))

    async with running({"security.tls_certificate": certificate, "security.tls_key": key}) as fairway:
        target = f"localhost:{fairway.plane.address.port}"
        before = await routed(target, grpc.ssl_channel_credentials(old.pem))
        write_pair(tmp_path, new.issue("server"))
        after = await routed(target, grpc.ssl_channel_credentials(new.pem))
        certificate.write_bytes(b"half a file")
        broken = await routed(target, grpc.ssl_channel_credentials(new.pem))
        said = [line["error"] for line in fairway.logged if line["event"].startswith("certificate cannot be read")]

    assert (before, after, broken) == (grpc.StatusCode.NOT_FOUND,) * 3
    assert said
    assert "holds no certificate in PEM" in said[0]


@pytest.mark.parametrize(
    ("certificate", "key", "told"),
    [
        ("absent", "good.key", "absent: No such file"),
        ("good.key", "good.key", "holds no certificate in PEM"),
        ("good.crt", "good.crt", "holds no private key in PEM"),
        ("good.crt", "other.key", "is not the key of the certificate"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, certificate: str, key: str, told: str) -> None:
    authority = an_authority()
    for name in ("good", "other"):
        pair = authority.issue(name)
        (tmp_path / f"{name}.crt").write_bytes(pair[0])
        (tmp_path / f"{name}.key").write_bytes(pair[1])

    with pytest.raises(ConfigError, match=told):
        Certificates(tmp_path / certificate, tmp_path / key, None, QUIET).credentials()


async def test_a_start_waits_for_a_file_that_is_busy_for_longer_than_a_write_may_wait(tmp_path: Path) -> None:
    file = tmp_path / "fairway.db"
    schema.upgrade(f"sqlite:///{file}")
    flags = {"server.listen": "127.0.0.1:0", "server.admin": "127.0.0.1:0", "store.migrate": False}
    settings = load(None, {}, {**flags, "store.url": f"sqlite:///{file}"})
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(1.5, other.execute, "ROLLBACK")

        async with control_plane(settings, log=QUIET) as plane:
            assert list(plane.feed.snapshot.regions) == ["local"]
