"""Opens what a control plane keeps: its store, its decision log, its certificates. What goes wrong fits on one line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from catalog.errors import CatalogError, NotOwner, StoreReadOnly, StoreUnavailable
from catalog.sql import schema
from catalog.sql.late import UPGRADE_SECONDS, open_late
from catalog.sql.store import open_store
from catalog.store import CatalogStore
from federation.api.listening import Certificates, StartError, Unreachable
from federation.config import ConfigError, RoutingSettings, SecuritySettings, Settings, StoreSettings, masked
from federation.edge.service_config import TlsOptions
from federation.last_known import Kept, Unusable, read
from federation.logs import Log
from federation.peering.peers import tls_options
from federation.plugins import PluginError, load_registry
from federation.routing.ring import DecisionLog
from federation.siblings.address import sibling_tls
from policies.registry import Registry

T = TypeVar("T")

# A file serves one process, so whoever holds it is no replica that upgrades it; an operator waits for this.
SQLITE_WAIT_SECONDS = 5.0
# Writes of a server have a second. Those of its start may find a disk that is busy with other starts, and nobody waits.
FIRST_WRITES_SECONDS = 10.0
AGAIN_SECONDS = 0.1


def store_url(settings: StoreSettings) -> str:
    """The database's URL, from the settings or from the file that they name. ConfigError."""
    if settings.url_file is None:
        return settings.url
    try:
        url = settings.url_file.read_text(encoding="utf-8").strip()
    except OSError as e:
        raise ConfigError(f"store.url_file: {settings.url_file}: {e.strerror}; mount the secret there") from None
    if not url:
        raise ConfigError(f"store.url_file: {settings.url_file} is empty; it must hold the database's URL")
    return url


async def opened_store(settings: Settings, wall: Callable[[], float], kept: Kept | None = None) -> CatalogStore:
    """The store of the settings, its schema upgraded where they say so. ConfigError, StartError, Unreachable.

    Where a catalog was kept, a database that does not answer is opened later.
    """
    url, owner, migrate = store_url(settings.store), settings.region.id, settings.store.migrate
    with told():
        try:
            if migrate:
                wait = SQLITE_WAIT_SECONDS if url.startswith("sqlite") else schema.WAIT_SECONDS
                wait = wait if kept is None else UPGRADE_SECONDS
                await asyncio.to_thread(schema.upgrade, url, wait_seconds=wait)
            patience = FIRST_WRITES_SECONDS if url.startswith("sqlite") else 0.0
            return await patiently(lambda: open_store(url, owner=owner, clock=wall), patience)
        except StoreUnavailable:
            if kept is None:
                raise
            return open_late(url, owner=owner, clock=wall, migrate=migrate)


async def patiently(work: Callable[[], Awaitable[T]], seconds: float = FIRST_WRITES_SECONDS) -> T:
    """What the work answers, which is begun again for so long while its database does not answer. StoreUnavailable."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    while True:
        try:
            return await work()
        except StoreUnavailable as e:
            if isinstance(e, StoreReadOnly) or clock() >= until:
                raise
        await asyncio.sleep(AGAIN_SECONDS)


def kept_catalog(settings: Settings, log: Log) -> Kept | None:
    """What the last life of this control plane kept; None, and why in the log, where it cannot be used."""
    path = settings.store.last_known_path
    if path is None:
        return None
    try:
        return read(path, settings.region.id)
    except Unusable as e:
        log.error("the last known catalog cannot be used; this start needs the database", path=str(path), error=str(e))
        return None


@contextmanager
def told() -> Iterator[None]:
    """What a store raises at the start, as the line that an operator reads."""
    try:
        yield
    except NotOwner as e:
        raise StartError(f"region.id: {e}; two control planes need two ids") from None
    except StoreUnavailable as e:
        # They begin with the database's URL, which may hold a password in its query.
        kind = StartError if isinstance(e, StoreReadOnly) else Unreachable
        raise kind(f"store.url: {masked(str(e))}") from None
    except CatalogError as e:
        raise StartError(f"store.url: {masked(str(e))}") from None
    except ValueError as e:
        raise ConfigError(str(e)) from None


def loaded_registry(fail: Callable[[str, str], None]) -> Registry:
    """What policies may name, with what other packages bring. StartError."""
    try:
        return load_registry(fail)
    except PluginError as e:
        raise StartError(str(e)) from None


def opened_log(settings: RoutingSettings, draw: Callable[[], float]) -> DecisionLog | None:
    """The decision log, where one is wanted. StartError."""
    if settings.decision_log is None:
        return None
    try:
        return DecisionLog(settings.decision_log, settings.decision_log_sample, settings.decision_log_max_bytes, draw)
    except OSError as e:
        raise StartError(
            f"routing.decision_log: {settings.decision_log}: {e.strerror}; choose a file that can be written"
        ) from None


def event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes event loops: uvloop where it is installed, since calls cost a tenth to a fifth less on it."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make


def peers_tls(settings: Settings) -> TlsOptions | None:
    """How peers are dialed: with the own certificate, where there is one."""
    peering, security = settings.peering, settings.security
    return tls_options(peering.tls_ca, security.tls_certificate, security.tls_key, peering.tls_server_name)


def replicated(settings: Settings) -> bool:
    """Whether other processes may serve the same catalog."""
    return store_url(settings.store).startswith("postgresql")


def siblings_tls(settings: Settings) -> TlsOptions | None:
    """How siblings are dialed. ConfigError."""
    try:
        return sibling_tls(settings)
    except (OSError, ValueError) as e:
        raise ConfigError(f"security.tls_certificate: {e}") from None


def certificates_of(settings: SecuritySettings, log: Log) -> Certificates | None:
    """The server's own certificate, read again when it changes; None where it speaks plain text."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificates(settings.tls_certificate, settings.tls_key, settings.tls_client_ca, log)
