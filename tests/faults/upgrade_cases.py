"""Row 28, programs of two schemas side by side: replicas are replaced, one by one, by those of the next program."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import catalog
from catalog.sql import schema
from tests.faults.crew import calling, crew, enrolled, routed
from tests.faults.lives import START_SECONDS
from tests.faults.regions import Place, until
from tests.faults.scale import Measured, Scale
from tests.faults.store_cases import go_on
from tests.federation.server import engine
from tests.postgres import Postgres

ROOT = Path(__file__).parents[2]
NEXT = "9001"
# A step as those of a release are: it only adds.
STEP = f'''
from alembic import op
from sqlalchemy import Column, String

revision = "{NEXT}"
down_revision = "{{before}}"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table("extras", Column("name", String, primary_key=True))
    op.add_column("replicas", Column("note", String, nullable=True))


def downgrade():
    op.drop_column("replicas", "note")
    op.drop_table("extras")
'''
# Alembic's own command for a step back, by the settings that the program upgrades with.
BACK = """
import sys
from alembic import command
from catalog.sql import schema
from catalog.sql.engines import parse_url, sync_engine
with sync_engine(parse_url(sys.argv[1]), lock_seconds=10.0).connect() as connection:
    config = schema._config()
    config.attributes["connection"] = connection
    command.downgrade(config, "-1")
    connection.commit()
"""


@dataclass
class NextProgram:
    """This program with one more step of the schema, in a directory of its own."""

    directory: Path

    @classmethod
    def made(cls, directory: Path) -> NextProgram:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(catalog.__file__).parent, directory / "catalog", ignore=ignored)
        step = directory / "catalog" / "sql" / "migrations" / "versions" / f"r{NEXT}_extras.py"
        step.write_text(STEP.format(before=schema.head()))
        return cls(directory)

    def run(self, *arguments: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Python with these arguments, whose `catalog` is the one of this program."""
        with log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdout=out,
                stderr=out,
            )

    def serve(self, address: str, url: str, log: Path) -> subprocess.Popen[bytes]:
        words = ("serve", "--listen", address, "--admin", "127.0.0.1:0", "--database", url)
        return self.run("-m", "federation", *words, log=log, FAIRWAY_HEALTH__PROBE_INTERVAL_SECONDS="0.5")


async def side_by_side(directory: Path, scale: Scale, postgres: Postgres) -> Measured:
    """Replicas are replaced by those of the next program and back again, under Route and writes."""
    url = postgres.empty_database()
    name = url.rpartition("/")[2]
    following = NextProgram.made(directory / "next")
    running: list[subprocess.Popen[bytes]] = []

    def version() -> str:
        return str(postgres.execute("SELECT version_num FROM alembic_version", database=name)[0][0])

    async with crew(directory, url, 2) as found, engine("m") as server:
        await enrolled(found.place, "n1", server.url)
        await until(found.all_route)
        versions = [version()]
        try:
            async with calling(found.addresses, scale.crew_rate) as gateways:
                await gateways.answered_by(2)
                for number, replica in enumerate(found.replicas):
                    await replica.life.drain()
                    process = following.serve(replica.address, url, directory / "next.log")
                    running.append(process)
                    await until(lambda: serves(found.places, process))  # noqa: B023 - awaited here
                    await gateways.answered_by(3 + number)
                    await go_on(found, scale.full_seconds / 4)
                    versions.append(version())
                back = following.run("-c", BACK, url, log=directory / "back.log")
                assert await asyncio.to_thread(back.wait, START_SECONDS) == 0, (directory / "back.log").read_text()
                await go_on(found, scale.full_seconds / 4)
                for number, (replica, process) in enumerate(zip(found.replicas, running, strict=True)):
                    await ended(process)
                    await replica.begin()
                    await gateways.answered_by(5 + number)
                    await go_on(found, scale.full_seconds / 4)
                versions.append(version())
        finally:
            for process in running:
                process.kill()
                process.wait()
    told = (directory / "next.log").read_text()
    return Measured(
        "28",
        "both replicas are replaced by those of a program with one more step of the schema, one by one, and back",
        f"{scale.crew_rate:g} Route/s, writes at both all the time",
        "0 failed calls; upgraded once, by the first of them",
        f"{len(gateways.failures)} of {gateways.calls} failed{gateways.reasons}; schema {', '.join(versions)}",
        not gateways.failures and versions == [schema.head(), NEXT, NEXT, schema.head()] and "Traceback" not in told,
    )


async def serves(places: list[Place], process: subprocess.Popen[bytes]) -> bool:
    """Whether all of them route; AssertionError where the process ended."""
    assert process.poll() is None, "the next program ended"
    return all([await routed(place) for place in places])


async def ended(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and its end."""
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.wait, START_SECONDS)
