"""How the stream to another control plane is opened and read, in plain text or with TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc

from federation.edge.service_config import CHANNEL_OPTIONS, TlsOptions, credentials, parse_addresses

M = TypeVar("M")


def channel_to(address: str, tls: TlsOptions | None) -> grpc.aio.Channel:
    """A channel of its own to an address. OSError where TLS files cannot be read."""
    addresses = parse_addresses([address], tls)
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    if addresses.tls:
        # Read again at each dial: certificates are renewed while links live.
        return grpc.aio.secure_channel(addresses.joined(), credentials(tls, ""), options)
    return grpc.aio.insecure_channel(addresses.joined(), options)


async def read(call: Any, value_of: Callable[[Any], M]) -> AsyncIterator[M]:
    """The messages of a call as values; its error where it ends with one."""
    while (message := await call.read()) is not grpc.aio.EOF:
        yield value_of(message)
    # EOF hides how the call ended.
    if await call.code() is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )
