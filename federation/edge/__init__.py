"""What an edge gateway imports: `from federation.edge import Client`, or `SyncClient` for threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from federation.edge.client import Client, ClientOptions, RouteError, SyncClient, TlsOptions

__all__ = ["Client", "ClientOptions", "RouteError", "SyncClient", "TlsOptions"]


def __getattr__(name: str) -> Any:
    """Reached at the first use: modules of this package import each other, and some without wanting the client."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from federation.edge import client

    return getattr(client, name)
