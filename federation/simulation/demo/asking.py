"""How scenes ask for a decision, have the request answered, and show what was predicted beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from federation.cli.figures import duration, span
from federation.simulation.demo.checks import expect
from federation.simulation.demo.fleet import DemoFleet
from federation.simulation.demo.gateway import Ask, Sent
from federation.simulation.demo.screen import Screen


class Asked(Protocol):
    """Who takes requests, and where it is shown."""

    @property
    def fleet(self) -> DemoFleet: ...

    @property
    def screen(self) -> Screen: ...

    async def ask(self, ask: Ask, *, explain: bool = False) -> Sent:
        """Sends one request and waits for its end."""
        ...


def predicted_seconds(target: object) -> float:
    """The expected time to the first token of a target."""
    return span(target, "estimated_time_to_first_token") or 0.0  # type: ignore[arg-type]


async def answered(world: Asked, ask: Ask, *, explain: bool = False) -> Sent:
    """A request that was decided and answered; NotShown where it was not."""
    sent = await world.ask(ask, explain=explain)
    expect(sent.decision is not None, f"a decision for a request from {ask.origin}", sent.error)
    expect(sent.ok, f"an answer for a request from {ask.origin}", sent.story)
    return sent


async def explained(world: Asked, ask: Ask) -> Sent:
    """The same, with the whole decision on the screen, and what was predicted beside what was measured."""
    sent = await answered(world, ask, explain=True)
    assert sent.decision is not None
    assert sent.first_token_seconds is not None
    target, screen = sent.decision.target, world.screen
    kind = "confidential" if ask.confidential else "a prompt"
    screen.event(f"{kind}, {ask.prompt_tokens:,} tokens, from {world.fleet.place(ask.origin)}:")
    screen.decision(sent.decision)
    screen.event(
        f"sent it to {sent.served_by}: first token after {duration(sent.first_token_seconds)}, predicted "
        f"{duration(predicted_seconds(target))}; {sent.attempts[-1].output_tokens} tokens after "
        f"{duration(sent.attempts[-1].latency_seconds)}"
    )
    round_trip = world.fleet.round_trip(ask.origin, target.region_id)
    expect(
        sent.first_token_seconds > round_trip,
        f"no first token before the round trip of {duration(round_trip)}",
        duration(sent.first_token_seconds),
    )
    expect(target.deployment in sent.decision.reasoning, "a reasoning that names the target", sent.decision.reasoning)
    return sent


def all_answered(sent: Iterable[Sent], since: float) -> tuple[int, int]:
    """Checks that every request since a time was answered; how many there were, and how many took an alternative."""
    asked = [each for each in sent if each.asked_at >= since]
    lost = [each for each in asked if not each.ok]
    expect(not lost, f"an answer for each of {len(asked)} callers", "; ".join(each.story for each in lost[:3]))
    return len(asked), sum(len(each.attempts) > 1 for each in asked)
