"""The ledger: periods, corrections, replicas that add up, restarts, and a store that is away."""

from __future__ import annotations

import pytest

from catalog.errors import StoreUnavailable
from catalog.memory import MemoryStore
from catalog.types import Spend
from federation import logs
from federation.bookkeeper import Bookkeeper
from federation.routing import ledger as ledgers
from federation.routing.ledger import REST, Ledger, day_of, period_ends

pytestmark = pytest.mark.anyio
WALL = 1_700_000_000.0  # 14 November 2023, 22:13:20 UTC.
DAY = 86_400.0


def a_store() -> MemoryStore:
    return MemoryStore("home", clock=lambda: WALL)


class AwayStore(MemoryStore):
    """A store that does not answer while `away`, and may be slow to: `meanwhile` runs before it takes spend."""

    away = False

    def meanwhile(self) -> None:
        pass

    async def put_spend(self, writer: str, spend: list[Spend]) -> None:  # type: ignore[override]
        self.meanwhile()
        if self.away:
            raise StoreUnavailable("gone")
        await super().put_spend(writer, spend)


@pytest.mark.parametrize(
    ("at", "day", "day_ends_in", "month_ends_in"),
    [
        (WALL, "2023-11-14", 6_400.0, 6_400.0 + 16 * DAY),
        # The last second of a leap day, and the first of a year.
        (1_709_251_199.0, "2024-02-29", 1.0, 1.0),
        (1_704_067_200.0, "2024-01-01", DAY, 31 * DAY),
    ],
)
def test_days_and_months_are_those_of_utc(at: float, day: str, day_ends_in: float, month_ends_in: float) -> None:
    assert day_of(at) == Ledger().day(at) == day
    assert period_ends("day", at) - at == day_ends_in
    assert period_ends("month", at) - at == month_ends_in


def test_a_new_day_begins_at_nothing_and_the_month_goes_on() -> None:
    ledger = Ledger()
    ledger.charge("acme", 2.0, WALL)
    ledger.charge("acme", 1.0, WALL + DAY)

    assert ledger.spent("acme", WALL) == (2.0, 3.0)
    assert ledger.spent("acme", WALL + DAY) == (1.0, 3.0)
    assert ledger.spent("acme", WALL + 17 * DAY) == (0.0, 0.0)
    # A correction belongs to the day of its decision.
    ledger.charge("acme", -0.5, WALL)
    assert ledger.spent("acme", WALL + DAY) == (1.0, 2.5)


async def test_replicas_add_up_through_the_store() -> None:
    store, one, two = a_store(), Ledger(), Ledger()
    one.charge("acme", 1.0, WALL)
    two.charge("acme", 2.0, WALL)
    two.charge("globex", 5.0, WALL)

    for _ in range(2):
        await one.sync(store, "r1", WALL)
        await two.sync(store, "r2", WALL)

    assert one.spent("acme", WALL) == two.spent("acme", WALL) == (3.0, 3.0)
    assert one.spent("globex", WALL) == (5.0, 5.0)
    assert one.tenants(WALL) == ["acme", "globex"]


async def test_a_restart_forgets_nothing_that_was_stored() -> None:
    store, before = a_store(), Ledger()
    before.charge("acme", 4.0, WALL)
    await before.sync(store, "r1.a", WALL)

    after = Ledger()
    await after.sync(store, "r1.b", WALL)
    after.charge("acme", 1.0, WALL)
    await after.sync(store, "r1.b", WALL)

    assert after.spent("acme", WALL) == (5.0, 5.0)
    assert {each.usd for each in await store.spend([day_of(WALL)])} == {5.0}


async def test_without_the_store_it_goes_on_and_stores_later_what_it_kept() -> None:
    store, ledger, logged = AwayStore("home", clock=lambda: WALL), Ledger(), logs.get()
    keeper = Bookkeeper(ledger, store, writer="r1", wanted=lambda: True, log=logged, wall=lambda: WALL)
    store.away = True
    ledger.charge("acme", 1.0, WALL)

    assert not await keeper.step()
    ledger.charge("acme", 1.0, WALL)
    assert not await keeper.step()
    kept = ledger.spent("acme", WALL)
    store.away = False
    assert await keeper.step()

    assert kept == (2.0, 2.0)
    assert [each.usd for each in await store.spend([day_of(WALL)])] == [2.0]


async def test_what_is_charged_while_the_store_answers_goes_with_the_next_round() -> None:
    store, ledger = AwayStore("home", clock=lambda: WALL), Ledger()
    ledger.charge("acme", 1.0, WALL)
    store.meanwhile = lambda: ledger.charge("acme", 1.0, WALL)  # type: ignore[method-assign]
    await ledger.sync(store, "r1", WALL)
    store.meanwhile = lambda: None  # type: ignore[method-assign]

    await ledger.sync(store, "r1", WALL)

    assert ledger.spent("acme", WALL) == (2.0, 2.0)
    assert [each.usd for each in await store.spend([day_of(WALL)])] == [2.0]


async def test_periods_that_are_over_leave_memory_once_they_are_stored() -> None:
    store, ledger = AwayStore("home", clock=lambda: WALL), Ledger()
    store.away = True
    for day in range(40):
        ledger.charge("acme", 1.0, WALL + day * DAY)
    with pytest.raises(StoreUnavailable):
        await ledger.sync(store, "r1", WALL + 39 * DAY)
    assert len(ledger._own) == 42

    store.away = False
    await ledger.sync(store, "r1", WALL + 39 * DAY)

    assert sorted(ledger._own) == ["2023-11", "2023-12", "2023-12-22", "2023-12-23"]
    assert len(await store.spend([day_of(WALL + day * DAY) for day in range(40)])) == 40


def test_made_up_names_get_no_budget_of_their_own_beyond_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MAX_ACCOUNTS", 3)
    ledger = Ledger()
    for number in range(10):
        ledger.charge(f"t{number}", 1.0, WALL)
    ledger.charge("a\0b", 1.0, WALL)

    assert ledger.spent("t1", WALL) == (1.0, 1.0)
    assert ledger.spent("t7", WALL) == ledger.spent("made-up", WALL) == ledger.spent("x\0", WALL) == (8.0, 8.0)
    assert ledger.tenants(WALL) == [REST, "t0", "t1", "t2"]


async def test_nobody_asks_the_store_while_nobody_has_a_budget() -> None:
    store = a_store()
    await store.close()
    keeper = Bookkeeper(Ledger(), store, writer="r1", wanted=lambda: False, log=logs.get(), wall=lambda: WALL)

    await keeper.start()
    await keeper.close()
