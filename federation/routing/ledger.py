"""The ledger: what tenants spent today and this month, in US dollars, days and months being those of UTC.

A decision charges its estimate, an outcome puts the real cost in its place.  This replica's sums live in memory and go
to the store every few seconds, whole, so that a repeat changes nothing; what other replicas and earlier lives of this
one spent is read back at the same pace.  Without the store the ledger goes on with what it knows and stores it later.

A budget is overshot by at most what all replicas spend in two rounds of `federation/bookkeeper.py`, and by how far
estimates of requests that still run are off; after a crash, what was charged since the last round is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from catalog.store import CatalogStore
from catalog.types import Spend

# Accounts of one period; a further tenant's money goes to one account that all such tenants share, so that nobody gets
# a fresh budget by making up names. Two periods of this many take some 30 MB.
MAX_ACCOUNTS = 100_000
REST = "*"


def day_of(unix_time: float) -> str:
    """The day of UTC, as the store names it: "2026-02-03"."""
    return datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%d")


def month_of(day: str) -> str:
    return day[:7]


def period_ends(period: str, unix_time: float) -> float:
    """Unix seconds at which the "day" or "month" of a time is over."""
    start = datetime.fromtimestamp(unix_time, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return (start + timedelta(days=1)).timestamp()
    # The 32nd day of any month is in the next one.
    return (start.replace(day=1) + timedelta(days=31)).replace(day=1).timestamp()


class Ledger:
    """Sums by period and tenant. `spent` reads, `charge` writes; neither awaits. One event loop."""

    def __init__(self) -> None:
        # By period, then tenant: what this process charged, and what everybody else did, by the last look.
        self._own: dict[str, dict[str, float]] = {}
        self._others: dict[str, Mapping[str, float]] = {}
        self._changed: set[tuple[str, str]] = set()
        self._day = ("", 0.0, 0.0)

    def day(self, unix_time: float) -> str:
        """The day of a time; kept, since it is asked for with every request."""
        name, start, end = self._day
        if not start <= unix_time < end:
            end = period_ends("day", unix_time)
            name = day_of(unix_time)
            self._day = (name, end - 86_400.0, end)
        return name

    def spent(self, tenant: str, unix_time: float) -> tuple[float, float]:
        """What a tenant spent today and this month, as far as it is known here."""
        day = self.day(unix_time)
        return self._sum(day, tenant), self._sum(month_of(day), tenant)

    def _sum(self, period: str, tenant: str) -> float:
        own = self._own.get(period, {})
        others = self._others.get(period, {})
        if tenant not in own and tenant not in others:
            # Who would be booked with the rest is judged with the rest.
            if "\0" not in tenant and len(own) < MAX_ACCOUNTS:
                return 0.0
            tenant = REST
        return own.get(tenant, 0.0) + others.get(tenant, 0.0)

    def charge(self, tenant: str, usd: float, unix_time: float) -> None:
        """Adds to a tenant's day and month; a correction may be negative, and belongs to the time of its decision."""
        if usd == 0.0:
            return
        day = self.day(unix_time)
        for period in (day, month_of(day)):
            own = self._own.setdefault(period, {})
            # Databases do not store a NUL, and no honest tenant is called so.
            account = tenant if tenant in own or (len(own) < MAX_ACCOUNTS and "\0" not in tenant) else REST
            own[account] = own.get(account, 0.0) + usd
            self._changed.add((period, account))

    def tenants(self, unix_time: float) -> list[str]:
        """Who has an account today or this month, by name."""
        day = self.day(unix_time)
        periods = (day, month_of(day))
        return sorted({t for period in periods for of in (self._own, self._others) for t in of.get(period, {})})

    async def sync(self, store: CatalogStore, writer: str, unix_time: float) -> None:
        """Stores what changed here and reads what others stored. CatalogError: nothing is lost, ask again later."""
        day = self.day(unix_time)
        periods = (day, month_of(day))
        pending, self._changed = self._changed, set()
        if pending:
            sums = [Spend(period, name, self._own[period][name]) for period, name in sorted(pending)]
            try:
                await store.put_spend(writer, sums)
            except BaseException:
                self._changed |= pending
                raise
        found: dict[str, dict[str, float]] = {period: {} for period in periods}
        for each in await store.spend(periods, without=writer):
            found[each.period][each.tenant_id] = each.usd
        self._others = dict(found)
        self._forget(periods)

    def _forget(self, periods: tuple[str, str]) -> None:
        """Forgets periods that are over and stored; of days and of months the newest two stay, for late outcomes."""
        waiting = {period for period, _ in self._changed}
        for like in periods:
            for period in sorted(of for of in self._own if len(of) == len(like))[:-2]:
                if period not in waiting:
                    del self._own[period]
