"""The last known catalog in a local file: what a server starts from while its database is away.

The file holds what tables are built from: the own catalog with its policies, and what peers told, with its age. It is
written whole beside its place and renamed, so that a crash leaves the one before. Between two writes its time of
modification says until when the database agreed with it.

    fairway-last-known 1 SHA-256 LENGTH
    zlib: a line of JSON about the catalog, then `KIND JSON` for each resource, then the peers, each
          `peer JSON` followed by `said BASE64`, the messages of peering.proto that would tell the same
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from google.protobuf.message import DecodeError

from catalog.records import decode, encode
from catalog.snapshot import EMPTY_SNAPSHOT, FIELD_OF
from catalog.types import ResourceKind, Snapshot, name_of
from federation.feed import CatalogFeed
from federation.logs import Log
from federation.peering import wire
from federation.peering.exports import snapshot_of
from federation.peering.imported import PeerImport
from federation.peering.imports import Imports
from federation.peering.messages import Hello, Message, NodeReport, Summary, Update, View
from federation.peering.session import REPORTS_A_MESSAGE, Applied
from federation.v1 import peering_pb2

MAGIC = "fairway-last-known"
VERSION = 1
LOOK_SECONDS = 1.0
# After a change; more often, and a burst of registrations is written once for each.
CHANGED_SECONDS = 2.0
# While peers are heard their age in the file is what counts after a start; leases are three times as long.
IMPORTS_SECONDS = 10.0
CONFIRM_SECONDS = 5.0
# The share of one core that writing may take: a write that took a second is followed by 20 without one.
MOST_SHARE = 0.05
# Resources that are encoded between two turns of the loop, in about a millisecond; a message of a peer is longer.
LINES_A_TURN = 50


class Unusable(Exception):
    """The file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a file held. Times are Unix seconds."""

    owner: str
    snapshot: Snapshot
    # When the database last agreed with it.
    answered_at: float
    saved_at: float
    # With `heard_at` in Unix seconds; `joining` turns them into those of this process.
    peers: tuple[PeerImport, ...] = ()

    def joining(self, wall: float, monotonic: float) -> tuple[PeerImport, ...]:
        """Its imports with the age that they have by now; a clock that was set back makes nobody younger."""
        for peer in self.peers:
            peer.heard_at = monotonic - max(wall - peer.heard_at, self.saved_at - peer.heard_at, 0.0)
            peer.reports = {name: (report, peer.heard_at) for name, (report, _) in peer.reports.items()}
        return self.peers


def lines_of(
    owner: str, snapshot: Snapshot, peers: Iterable[PeerImport], *, answered_at: float, now: float, wall: float
) -> Iterator[str]:
    """The lines of a file, one after the other, so that writing can be done in slices."""
    yield json.dumps({"owner": owner, "revision": snapshot.revision, "answered_at": answered_at, "saved_at": wall})
    for kind, of in FIELD_OF.items():
        for resource in getattr(snapshot, of).values():
            yield f"{kind.value} {encode(resource)}"
    for peer in peers:
        about = {
            "heard_at": wall - (now - peer.heard_at),
            "applied": [peer.applied.incarnation, peer.applied.revision],
            "round_trip_seconds": peer.round_trip_seconds,
        }
        yield f"peer {json.dumps(about)}"
        for message in _said(peer):
            yield f"said {base64.b64encode(wire.request_to(message).SerializeToString()).decode()}"


def _said(peer: PeerImport) -> Iterator[Message]:
    yield Hello(peer.identity, lease_seconds=peer.lease_seconds)
    yield from snapshot_of(peer.view)
    reports = [report for report, _ in peer.reports.values()]
    for first in range(0, len(reports), REPORTS_A_MESSAGE):
        yield Summary(1, tuple(reports[first : first + REPORTS_A_MESSAGE]))


def packed(body: bytes) -> bytes:
    """A file of these lines."""
    squeezed = zlib.compress(body, 1)
    return f"{MAGIC} {VERSION} {hashlib.sha256(squeezed).hexdigest()} {len(squeezed)}\n".encode() + squeezed


def replace_file(path: Path, content: bytes) -> None:
    """Puts a file in place of the one before, or leaves that as it is. OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        with suppress(OSError):
            os.unlink(beside)
        raise


def read(path: Path, owner: str) -> Kept | None:
    """What a file holds of an owner; None where there is no file. Unusable."""
    try:
        content = path.read_bytes()
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return None
    except OSError as e:
        raise Unusable(f"it cannot be read: {e.strerror}") from None
    head, _, squeezed = content.partition(b"\n")
    words = head.decode("ascii", "replace").split(" ")
    if words[0] != MAGIC or len(words) != 4:
        raise Unusable("it is no file of this program")
    if words[1] != str(VERSION):
        raise Unusable(f"it has version {words[1]}; this program reads version {VERSION}")
    if words[3] != str(len(squeezed)) or words[2] != hashlib.sha256(squeezed).hexdigest():
        raise Unusable("it is damaged: its checksum does not fit")
    try:
        return parsed(zlib.decompress(squeezed).decode().split("\n"), owner, touched)
    except (zlib.error, ValueError, KeyError, TypeError, DecodeError, binascii.Error) as e:
        raise Unusable(f"its content is not understood: {e!r}") from None


def parsed(lines: list[str], owner: str, touched: float) -> Kept:
    """What the lines of a file say; `touched` is when it was last confirmed. ValueError, KeyError, Unusable."""
    about = json.loads(lines[0])
    if about["owner"] != owner:
        raise Unusable(f"it is of control plane {about['owner']!r}, not of {owner!r}")
    of: dict[str, dict[str, Any]] = {name: {} for name in FIELD_OF.values()}
    peers: list[tuple[dict[str, Any], list[Message]]] = []
    for line in lines[1:]:
        word, _, rest = line.partition(" ")
        if word == "peer":
            peers.append((json.loads(rest), []))
        elif word == "said":
            request = peering_pb2.ExchangeRequest.FromString(base64.b64decode(rest, validate=True))
            peers[-1][1].append(wire.message_from(request))
        else:
            kind = ResourceKind(word)
            resource = decode(kind, rest)
            of[FIELD_OF[kind]][name_of(resource)] = resource
    frozen: dict[str, Any] = {name: MappingProxyType(resources) for name, resources in of.items()}
    return Kept(
        owner,
        Snapshot(about["revision"], **frozen),
        answered_at=max(about["answered_at"], touched),
        saved_at=about["saved_at"],
        peers=tuple(_import(known, said) for known, said in peers),
    )


def _import(about: dict[str, Any], said: list[Message]) -> PeerImport:
    hello = said[0]
    if not isinstance(hello, Hello):
        raise ValueError("a peer without a hello")
    parts = [message for message in said if isinstance(message, Update)]
    reports: dict[str, tuple[NodeReport, float]] = {}
    for message in said:
        if isinstance(message, Summary):
            reports.update({report.node: (report, about["heard_at"]) for report in message.reports})
    return PeerImport(
        hello.identity,
        hello.lease_seconds,
        about["heard_at"],
        view=View(
            parts[0].to_revision,
            MappingProxyType({region.region_id: region for part in parts for region in part.regions}),
            MappingProxyType({model.model_id: model for part in parts for model in part.models}),
            MappingProxyType({node.name: node for part in parts for node in part.nodes}),
        ),
        applied=Applied(*about["applied"]),
        reports=reports,
        round_trip_seconds=about["round_trip_seconds"],
    )


class Keeper:
    """Keeps the file up to date; `run` writes what changed, at a bounded rate."""

    def __init__(
        self,
        path: Path,
        feed: CatalogFeed,
        imports: Imports,
        *,
        owner: str,
        log: Log,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = path
        self._feed = feed
        self._imports = imports
        self._owner = owner
        self._log = log
        self._monotonic = monotonic
        self._wall = wall
        self._sleep = sleep
        # What the file holds, and when it was written and confirmed.
        self._written: tuple[Snapshot, int] = (EMPTY_SNAPSHOT, -1)
        self._written_at = float("-inf")
        self._rest_until = float("-inf")
        self._failing = False
        self.confirmed_at: float | None = None
        self.writes_total = 0

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self.step()
            await self._sleep(LOOK_SECONDS)

    async def close(self) -> None:
        """Writes what changed last."""
        if self._written != (self._feed.snapshot, self._imports.catalog_version):
            await self._write()

    async def step(self) -> None:
        """Writes or confirms the file where that is due."""
        now = self._monotonic()
        changed = self._written[0] is not self._feed.snapshot or self._written[1] != self._imports.catalog_version
        heard = any(not peer.expired for peer in self._imports.peers.values())
        age = now - self._written_at
        if now >= self._rest_until and ((changed and age >= CHANGED_SECONDS) or (heard and age >= IMPORTS_SECONDS)):
            await self._write()
        elif not changed and self._feed.available and now - (self.confirmed_at or 0.0) >= CONFIRM_SECONDS:
            self._confirm(now)

    async def _write(self) -> None:
        now = self._monotonic()
        holds = (self._feed.snapshot, self._imports.catalog_version)
        wall = self._wall()
        answered_at = wall - (now - self._feed.answered_at)
        # As they are now: what is told while this writes is of the next file.
        peers = [replace(peer, reports=dict(peer.reports)) for peer in self._imports.peers.values()]
        lines = []
        for line in lines_of(self._owner, holds[0], peers, answered_at=answered_at, now=now, wall=wall):
            lines.append(line)
            if len(lines) % LINES_A_TURN == 0 or line.startswith("said "):
                await asyncio.sleep(0)
        self._written_at = now
        try:
            await asyncio.to_thread(_store, self._path, lines, answered_at)
        except OSError as e:
            self._failed(e)
        else:
            self._written, self.confirmed_at = holds, now
            self.writes_total += 1
            if self._failing:
                self._failing = False
                self._log.info("the last known catalog is written again", path=str(self._path))
        self._rest_until = self._monotonic() + (self._monotonic() - now) * (1.0 / MOST_SHARE - 1.0)

    def _confirm(self, now: float) -> None:
        try:
            os.utime(self._path, (self._wall(), self._wall()))
        except OSError as e:
            # Somebody took it away: it is written anew.
            self._written = (EMPTY_SNAPSHOT, -1)
            self._failed(e)
        else:
            self.confirmed_at = now

    def _failed(self, error: OSError) -> None:
        if not self._failing:
            self._log.error(
                "the last known catalog cannot be written; a start without the database would be an older one",
                path=str(self._path),
                error=error.strerror or str(error),
            )
        self._failing = True


def _store(path: Path, lines: list[str], answered_at: float) -> None:
    replace_file(path, packed("\n".join(lines).encode()))
    os.utime(path, (answered_at, answered_at))
