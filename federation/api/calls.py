"""A call as handlers see it: the part of grpc.aio's ServicerContext that is used here, with types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn, Protocol

Metadata = Sequence[tuple[str, str | bytes]]


class Context(Protocol):
    async def abort(self, code: Any, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn: ...

    async def write(self, message: Any) -> None: ...

    def invocation_metadata(self) -> Metadata | None: ...

    def time_remaining(self) -> float | None:
        """Seconds to the caller's deadline; None without one."""
        ...

    def cancelled(self) -> bool: ...

    def code(self) -> Any: ...

    def peer(self) -> str: ...


Requests = AsyncIterator[Any]
