"""The file that a server starts from while its database is away: what it holds, when it is written, whom it serves."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from catalog.errors import StoreUnavailable
from catalog.memory import MemoryStore
from catalog.types import PolicyRecord, Snapshot
from federation import logs
from federation.feed import CatalogFeed
from federation.last_known import CHANGED_SECONDS, CONFIRM_SECONDS, IMPORTS_SECONDS, Keeper, Kept, Unusable, read
from federation.peering.imports import Imports
from federation.peering.messages import DeploymentReport, Identity, NodeReport, Replacement, View
from federation.peering.session import Applied
from policies.health import Grade
from tests.builders import MODEL, a_model, a_node, a_region, a_snapshot
from tests.federation.server import engine, failing, running, until

pytestmark = pytest.mark.anyio
READY = DeploymentReport(MODEL, grade=Grade.HEALTHY, ready=True, score=1.0)
EU = Identity("eu", ("eu",), "life-1", ("DE", "EU"))


def frozen(snapshot: Snapshot, **more: Any) -> Snapshot:
    policies = {"p": PolicyRecord("p", '{"picker":"best"}', owner="us", revision=3)}
    return Snapshot(
        snapshot.revision,
        MappingProxyType(dict(snapshot.regions)),
        MappingProxyType(dict(snapshot.models)),
        MappingProxyType(dict(snapshot.nodes)),
        MappingProxyType({**policies, **more}),
    )


OURS = frozen(a_snapshot(a_node("us/a", labels=MappingProxyType({"pool": "x"})), regions=[a_region("us")], revision=7))


def told(imports: Imports, at: float) -> View:
    view = View(4, {"eu": a_region("eu", owner="eu")}, {MODEL: a_model(owner="eu")}, {"eu/n": a_node("eu/n")})
    imports.met(EU, 30.0, at)
    imports.apply("eu", Replacement(4, True, view.regions, view.models, view.nodes), Applied("life-1", 4), at)
    imports.told("eu", [NodeReport("eu/n", (READY,), queue_depth=2.0)], at)
    imports.measured("eu", 0.09)
    return view


@dataclass
class Desk:
    """A keeper in virtual time. The wall clock is 1,000 s ahead of the monotonic one."""

    path: Path
    now: float = 100.0
    imports: Imports = field(default_factory=Imports)

    def __post_init__(self) -> None:
        store = MemoryStore("us", clock=lambda: self.now)
        self.feed = CatalogFeed(store, log=logs.get(), monotonic=lambda: self.now)
        self.keeper = Keeper(
            self.path,
            self.feed,
            self.imports,
            owner="us",
            log=logs.get(),
            monotonic=lambda: self.now,
            wall=lambda: self.now + 1000.0,
        )

    async def at(self, seconds: float) -> int:
        """How often the file had been written once a step was made at a time."""
        self.now = seconds
        await self.keeper.step()
        return self.keeper.writes_total


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "state" / "last-known")


def kept(desk: Desk) -> Kept:
    found = read(desk.path, "us")
    assert found is not None
    return found


async def test_what_was_kept_comes_back_as_it_was_with_the_imports_and_their_age(desk: Desk):
    desk.feed.restore(OURS, answered_at=95.0)
    view = told(desk.imports, at=90.0)

    await desk.at(100.0)
    back = kept(desk)
    (peer,) = back.joining(wall=1112.0, monotonic=5.0)

    assert back.snapshot == OURS
    assert back.answered_at == 1095.0
    assert peer.identity == EU
    assert (peer.applied, peer.lease_seconds, peer.round_trip_seconds) == (Applied("life-1", 4), 30.0, 0.09)
    assert peer.view == view
    # 10 s before the file, which is 12 s old by now.
    assert peer.heard_at == 5.0 - 22.0
    assert peer.reports == {"eu/n": (NodeReport("eu/n", (READY,), queue_depth=2.0), 5.0 - 22.0)}


async def test_a_clock_that_was_set_back_makes_no_import_younger_than_it_was_when_it_was_kept(desk: Desk):
    desk.feed.restore(OURS, answered_at=95.0)
    told(desk.imports, at=90.0)
    await desk.at(100.0)

    (peer,) = kept(desk).joining(wall=10.0, monotonic=500.0)

    assert peer.heard_at == 490.0


async def test_restored_imports_count_for_what_is_left_of_their_lease(desk: Desk):
    desk.feed.restore(OURS, answered_at=95.0)
    told(desk.imports, at=90.0)
    await desk.at(100.0)
    imports = Imports()

    imports.restore(kept(desk).joining(wall=1100.0, monotonic=0.0))

    assert imports.tick(19.9) == ()
    assert imports.tick(20.0) == ("eu",)


async def test_a_change_is_written_soon_quiet_is_only_confirmed(desk: Desk):
    desk.feed.restore(OURS, answered_at=100.0)
    desk.feed.available = True

    assert await desk.at(100.0) == 1
    assert await desk.at(100.0 + CONFIRM_SECONDS) == 1
    assert kept(desk).answered_at == 1100.0 + CONFIRM_SECONDS
    desk.feed.restore(frozen(OURS), answered_at=106.0)
    assert await desk.at(106.0 + CHANGED_SECONDS) == 2
    # While nothing is heard of the database the file says so.
    assert await desk.at(200.0) == 2
    assert kept(desk).answered_at == 1106.0


async def test_with_peers_it_is_written_at_least_three_times_in_a_lease(desk: Desk):
    desk.feed.restore(OURS, answered_at=100.0)
    told(desk.imports, at=100.0)

    assert await desk.at(100.0) == 1
    assert await desk.at(101.0) == 1
    assert await desk.at(100.0 + IMPORTS_SECONDS) == 2


async def test_a_file_that_somebody_took_away_is_written_again(desk: Desk):
    desk.feed.restore(OURS, answered_at=100.0)
    desk.feed.available = True
    await desk.at(100.0)
    desk.path.unlink()

    await desk.at(110.0)
    await desk.at(111.0)

    assert kept(desk).snapshot == OURS


async def test_a_place_that_cannot_be_written_is_told_once_and_stops_nothing(tmp_path: Path):
    (tmp_path / "state").write_text("a file, not a directory")
    desk = Desk(tmp_path / "state" / "last-known")
    desk.feed.restore(OURS, answered_at=100.0)

    assert [await desk.at(seconds) for seconds in (100.0, 110.0, 120.0)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[:-5], "damaged"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "damaged"),
        (lambda content: content.replace(b"known 1 ", b"known 2 ", 1), "version 2"),
        (lambda content: b"", "no file of this program"),
        (lambda content: b"SQLite format 3", "no file of this program"),
    ],
)
async def test_a_file_that_is_damaged_or_of_another_program_is_not_used(desk: Desk, change: Any, words: str):
    desk.feed.restore(OURS, answered_at=100.0)
    await desk.at(100.0)
    desk.path.write_bytes(change(desk.path.read_bytes()))

    with pytest.raises(Unusable, match=words):
        read(desk.path, "us")


async def test_a_file_of_another_control_plane_is_not_used_and_none_is_none(desk: Desk):
    assert read(desk.path, "us") is None
    desk.feed.restore(OURS, answered_at=100.0)
    await desk.at(100.0)

    with pytest.raises(Unusable, match="of control plane 'us', not of 'eu'"):
        read(desk.path, "eu")
    assert os.listdir(desk.path.parent) == ["last-known"]


class Away(MemoryStore):
    """A store whose database can be away."""

    away = False

    async def close(self) -> None:
        """It is used by one server after the other."""

    async def snapshot(self) -> Snapshot:
        self._check()
        return await super().snapshot()

    async def changes(self, after_revision: int, limit: int = 1000) -> Any:
        self._check()
        return await super().changes(after_revision, limit)

    async def put(self, resources: Any, **more: Any) -> Any:
        self._check()
        return await super().put(resources, **more)

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the database is away")


async def test_a_start_without_the_store_goes_by_the_file_says_so_and_catches_up(tmp_path: Path):
    store, path = Away("local", clock=lambda: 0.0), tmp_path / "last-known"
    async with engine("m") as server:
        async with running({"store.last_known_path": path}, store=store) as fairway:
            await fairway.register("local", "n1", server.url, "m")
            await fairway.until_routable("m")
        os.utime(path, (os.stat(path).st_mtime - 600.0,) * 2)
        store.away = True
        async with running({"store.last_known_path": path}, store=store) as fairway:
            decision = await fairway.until_routable("m")
            write = await failing(fairway.register("local", "n2", server.url, "m"))

            assert decision.target.deployment == "local/n1/m"
            assert write.reason == "STORE_UNAVAILABLE"
            assert write.retry_seconds is not None
            assert any("serving from the last known catalog" in line["event"] for line in fairway.logged)
            assert "the catalog's store does not answer" in fairway.plane.remark()

            store.away = False
            await until(lambda: fairway.plane.feed.available)
            await fairway.register("local", "n2", server.url, "m")
            assert fairway.plane.remark() == ""


async def test_nothing_kept_and_no_store_is_no_start(tmp_path: Path):
    store = Away("local", clock=lambda: 0.0)
    store.away = True

    with pytest.raises(Exception, match="the database is away"):
        async with running({"store.last_known_path": tmp_path / "none"}, store=store):
            pass
