"""Fair shares of tokens: what the tenants of one pool asked for and were admitted lately."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.admission import fair_level

# What counts as lately. Shorter, and the noise of single requests decides who is above its share; longer, and a tenant
# that comes back waits for what it took before.
HALF_LIFE_SECONDS = 30.0
# Levels are drawn anew so often; sorting 256 accounts takes about 50 microseconds.
LEVEL_SECONDS = 0.05
# Tenants told apart in a pool; who asked least lately goes first.
MAX_ACCOUNTS = 256
# Weights of the past grow until they are taken down to 1 again; doubles hold far more.
MAX_GROWTH = 2.0**64


@dataclass(slots=True)
class Account:
    """One tenant in a pool: tokens asked for and admitted, in the pool's growing weights."""

    weight: float
    asked: float = 0.0
    admitted: float = 0.0


@dataclass(slots=True)
class Shares:
    """Tokens of tenants in one pool, fading.

    New tokens weigh more rather than old ones less (Cormode et al., Forward Decay, 2009): only ratios are read, and so
    nothing has to be touched as time passes.
    """

    landmark: float
    accounts: dict[str, Account] = field(default_factory=dict)
    level: float = float("inf")
    drawn: float = float("-inf")

    def share(self, tenant: str) -> float:
        """What a tenant was admitted lately over its fair share; 0 for one that is new."""
        found = self.accounts.get(tenant)
        if found is None or found.admitted == 0.0:
            return 0.0
        return found.admitted / (found.weight * self.level) if self.level > 0.0 else float("inf")

    def add(self, tenant: str, weight: float, tokens: float, admitted: bool, now: float) -> None:
        growth = 2.0 ** ((now - self.landmark) / HALF_LIFE_SECONDS)
        if growth > MAX_GROWTH:
            self._renew(now, growth)
            growth = 1.0
        account = self.accounts.get(tenant)
        if account is None:
            if len(self.accounts) >= MAX_ACCOUNTS:
                del self.accounts[min(self.accounts, key=lambda name: (self.accounts[name].asked, name))]
            account = self.accounts[tenant] = Account(weight)
        account.weight = weight
        account.asked += tokens * growth
        account.admitted += tokens * growth * admitted
        if now - self.drawn >= LEVEL_SECONDS:
            self.drawn = now
            self.level = fair_level((a.weight, a.asked, a.admitted) for a in self.accounts.values())

    def _renew(self, now: float, growth: float) -> None:
        """Takes the weights down to 1; who has not asked for long is forgotten."""
        for name, account in list(self.accounts.items()):
            account.asked /= growth
            account.admitted /= growth
            if account.asked < 1e-6:
                del self.accounts[name]
        self.level /= growth
        self.landmark = now
