"""Faults of the database's file and schema, on running processes: a full disk, upgrades at once, a newer schema."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc

from catalog.sql import schema
from tests.faults.crew import Crew, calling, crew, enrolled, routed
from tests.faults.lives import Life
from tests.faults.regions import ROOMY, Place, until
from tests.faults.scale import Measured, Scale
from tests.federation.server import engine, failing
from tests.postgres import Postgres

# A disk of its own where the machine allows it, and what is left on it when it fills up.
DISK_BYTES = 8 << 20
ROOM_BYTES = 65_536
MIGRATORS = 5
# A schema that no release has.
AHEAD = "r9999"


async def disk_full(directory: Path, scale: Scale) -> Measured:
    """The database's file may not grow any more, under Route and writes; then it may again."""
    with disk(directory / "disk") as own:
        return await _disk_full(directory, scale, own=own)


async def _disk_full(directory: Path, scale: Scale, *, own: bool) -> Measured:
    file = directory / "disk" / "fairway.db"
    life = await Life.begin({"store.url": f"sqlite:///{file}"}, directory / "log")
    async with grpc.aio.insecure_channel(life.address) as channel, engine("m") as server:
        place = Place("local", life, channel)
        await place.register("n1", server.url, batch=ROOMY)
        await until(lambda: routed(place))
        async with calling([life.address], scale.crew_rate) as gateways:
            room = fill(file.parent) if own else limit(file, life.process.pid)
            taken, refused = 0, None
            while refused is None:
                try:
                    await place.register(f"w{taken}", "http://127.0.0.1:1", labels={"filler": "x" * 200})
                    taken += 1
                except grpc.aio.AioRpcError:
                    refused = await failing(place.register("w", "http://127.0.0.1:1", labels={"filler": "x" * 200}))
                assert taken < 10_000, "the file grows on"
            started = time.monotonic()
            while time.monotonic() - started < scale.full_seconds:
                await failing(place.register("w", "http://127.0.0.1:1", labels={"filler": "x" * 200}))
                await asyncio.sleep(0.05)
            room()
            await until(lambda: takes(place))
        nodes = {name for name in await place.shown() if "/w" in name}
        await life.end()
    with closing(sqlite3.connect(file)) as connection:
        sound = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # Only a full disk is one to SQLite; a file's limit is an error of the disk.
    wanted = "STORE_READ_ONLY" if own else "STORE_UNAVAILABLE"
    lost = {f"local/w{number}" for number in range(taken)} - nodes
    return Measured(
        "9",
        f"{'the disk of SQLite is full' if own else 'the file of SQLite may not grow'} for {scale.full_seconds:g} s",
        f"{scale.crew_rate:g} Route/s, 20 writes/s",
        f"writes {wanted}, told why; 0 Route failures; no corruption",
        f"{len(gateways.failures)} of {gateways.calls} failed{gateways.reasons}; writes {refused.code.name} "
        f"{refused.reason}; {len(lost)} of {taken} acknowledged lost; file {'sound' if sound else 'broken'}",
        not gateways.failures and refused.reason == wanted and not lost and sound,
    )


@contextmanager
def disk(directory: Path) -> Iterator[bool]:
    """A directory, on a small disk of its own where the machine allows that; whether it does."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)]
    own = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield own
    finally:
        if own:
            subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path) -> Callable[[], None]:
    """Leaves a little room on a disk; what is answered gives the rest back."""
    ballast = directory / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(b"x" * ROOM_BYTES)
                file.flush()
        except OSError:
            size = file.tell()
    with ballast.open("r+b") as file:
        file.truncate(max(0, size - 2 * ROOM_BYTES))
    return ballast.unlink


def limit(file: Path, pid: int) -> Callable[[], None]:
    """Lets no file of a process grow much beyond the largest of the database's; what is answered takes it back."""
    largest = max(path.stat().st_size for path in file.parent.glob(f"{file.name}*"))
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest + ROOM_BYTES, hard))

    def lift() -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    return lift


async def read_only(directory: Path, scale: Scale, postgres: Postgres) -> Measured:
    """A database becomes one that may not be written to while two replicas serve, and is itself again later."""
    async with crew(directory, postgres.empty_database(), 2) as found, engine("m") as server:
        await enrolled(found.place, "n1", server.url)
        await until(found.all_route)
        refused, slowest = Counter[str](), 0.0
        async with calling(found.addresses, scale.crew_rate) as gateways:
            postgres.refuse_writes(True)
            try:
                await until(lambda: refuses(found.place))
                started = time.monotonic()
                while (asked := time.monotonic()) - started < scale.full_seconds:
                    answer = await failing(found.places[refused.total() % 2].register("w", "http://127.0.0.1:1"))
                    slowest = max(slowest, time.monotonic() - asked)
                    refused[f"{answer.code.name} {answer.reason}"] += 1
                    told = answer.message
                    await asyncio.sleep(0.05)
            finally:
                postgres.refuse_writes(False)
            back = await until(lambda: takes(found.place))
            await asyncio.sleep(1.0)
    return Measured(
        "9",
        f"PostgreSQL takes no writes for {scale.full_seconds:g} s while two replicas serve",
        f"{scale.crew_rate:g} Route/s, 20 writes/s",
        "writes RESOURCE_EXHAUSTED STORE_READ_ONLY, told why; 0 Route failures; recovery within 5 s",
        f"{len(gateways.failures)} of {gateways.calls} failed{gateways.reasons}; writes {', '.join(sorted(refused))}, "
        f"the slowest after {slowest:.2f} s; back after {back:.1f} s",
        not gateways.failures
        and set(refused) == {"RESOURCE_EXHAUSTED STORE_READ_ONLY"}
        and "refuses writes" in told
        and back <= 5.0,
    )


async def refuses(place: Place) -> bool:
    return not await takes(place)


async def takes(place: Place) -> bool:
    try:
        await place.register("again", "http://127.0.0.1:1")
    except grpc.aio.AioRpcError:
        return False
    return True


async def migrators(directory: Path, scale: Scale, postgres: Postgres) -> Measured:
    """Processes that start at once on an empty database; later its schema goes ahead of them while they serve."""
    url = postgres.empty_database()
    lives = await asyncio.gather(*(begun(url, directory / f"first-{number}.log") for number in range(MIGRATORS)))
    versions = postgres.execute("SELECT version_num FROM alembic_version", database=url.rpartition("/")[2])
    await asyncio.gather(*(life.end() for life in lives))
    async with crew(directory, url, 2) as found, engine("m") as server:
        await enrolled(found.place, "n1", server.url)
        await until(found.all_route)
        async with calling(found.addresses, scale.crew_rate) as gateways:
            postgres.execute(f"UPDATE alembic_version SET version_num = '{AHEAD}'", database=url.rpartition("/")[2])
            refusal = await refused_start(url, directory / "ahead.log")
            await go_on(found, scale.full_seconds)
            newest = versions[0][0]
            postgres.execute(f"UPDATE alembic_version SET version_num = '{newest}'", database=url.rpartition("/")[2])
            back = await Life.begin({"store.url": url}, directory / "back.log")
            await go_on(found, 1.0)
            await back.end()
    told = AHEAD in refusal and "does not know" in refusal
    return Measured(
        "28",
        f"{MIGRATORS} processes upgrade an empty database at once; then it has a newer schema than two that serve",
        f"{scale.crew_rate:g} Route/s, writes",
        "each serves, upgraded once; 0 failed calls beside a newer schema; who starts then is told",
        f"{len(lives)} serve, schema {', '.join(row[0] for row in versions)}; {len(gateways.failures)} of "
        f"{gateways.calls} failed{gateways.reasons}; a start {'names the schema' if told else 'says ' + refusal[:80]}",
        len(lives) == MIGRATORS and versions == [(schema.head(),)] and not gateways.failures and told,
    )


async def begun(url: str, log: Path) -> Life:
    return await Life.begin({"store.url": url}, log)


async def refused_start(url: str, log: Path) -> str:
    """What a process says that must not start."""
    try:
        life = await Life.begin({"store.url": url}, log)
    except AssertionError:
        return log.read_text()
    await life.end()
    return "it started"


async def go_on(found: Crew, seconds: float) -> None:
    """Writes for a while, at both replicas; each is taken."""
    until_then = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until_then:
        await enrolled(found.places[number % 2], f"w{number % 4}-{int(seconds)}")
        number += 1
        await asyncio.sleep(0.05)
