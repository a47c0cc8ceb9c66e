"""Whether this process serves: what health checks are told, how far the event loop lags, and that the end is near."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from grpc_health.v1 import health, health_pb2

# Between two looks at what the health service tells, and at the lag of the loop.
BEAT_SECONDS = 0.25
# The worst lag is remembered for about ten seconds.
LAG_BEATS = 40
STATUS = health_pb2.HealthCheckResponse


class Vitals:
    """`serving` tells, by service name, whether it is served now; "" is the server."""

    def __init__(
        self,
        serving: Callable[[], Mapping[str, bool]],
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._serving = serving
        self._monotonic = monotonic
        self._sleep = sleep
        self._lags = [0.0] * LAG_BEATS
        self._beats = 0
        self._told: dict[str, bool] = {}
        self.draining = False
        # What grpc.health.v1 is served from.
        self.servicer = health.aio.HealthServicer()

    async def tell(self) -> None:
        """Brings the health service up to date."""
        for name, serving in self._serving().items():
            if self._told.get(name) != serving:
                await self.servicer.set(name, STATUS.SERVING if serving else STATUS.NOT_SERVING)
                self._told[name] = serving

    async def run(self) -> None:
        """Tells and measures until cancelled."""
        while True:
            asked = self._monotonic()
            await self._sleep(BEAT_SECONDS)
            self._lags[self._beats % LAG_BEATS] = max(0.0, self._monotonic() - asked - BEAT_SECONDS)
            self._beats += 1
            await self.tell()

    def loop_lag(self) -> float:
        """The worst lag of the event loop in the last seconds."""
        return max(self._lags)

    def not_ready(self) -> str:
        """Why no traffic should come; "" where it may."""
        if self.draining:
            return "shutting down"
        return "" if self._told.get("") else "no routing table yet"

    async def farewell(self) -> None:
        """Tells everybody, for good, that this server ends."""
        self.draining = True
        await self.servicer.enter_graceful_shutdown()
