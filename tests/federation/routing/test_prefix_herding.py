"""Conversations whose prompts all begin alike, through the real router: each stays where it is cached, nobody herds."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest

from catalog.types import ServingProfile
from federation.routing.router import Router
from policies.types import Outcome, Phase, Result
from tests.builders import MODEL, a_deployment, a_node, a_request, a_router, a_table

BLOCK = 512
NODES = 8
# A prompt of 7,000 tokens takes 0.7 s, so that what is cached matters and a queue does, too.
PROFILE = ServingProfile(0.0001, 0.03, 60.0, 48)
TABLE = a_table(*[a_node(f"eu/n{number}", [a_deployment(profile=PROFILE)]) for number in range(NODES)])
SHARED = 1


@dataclass
class Conversation:
    """A chat: each turn's prompt is the one before, and some blocks more. The first block is everybody's."""

    number: int
    rng: Random
    # Hashes of prefixes: each covers its block and all before it.
    chain: list[int] = field(default_factory=lambda: [SHARED])

    def turn(self) -> tuple[int, ...]:
        grown = len(self.chain) + self.rng.randint(1, 5)
        self.chain += [hash((self.number, place)) for place in range(len(self.chain), grown)]
        return tuple(self.chain)


@dataclass
class Traffic:
    """What became of the turns: where they went, and how much of what could be cached was."""

    targets: Counter[str] = field(default_factory=Counter)
    # Prompt tokens that some node had, and those that the target had, beyond the shared block.
    cacheable: float = 0.0
    cached: float = 0.0
    turns: int = 0

    @property
    def hit_ratio(self) -> float:
        return self.cached / self.cacheable

    @property
    def shares(self) -> list[float]:
        return sorted(count / self.turns for count in self.targets.values())


def run(
    router: Router, chats: list[Conversation], *, per_second: float, turns: int, seed: int, start: float = 0.0
) -> Traffic:
    """Turns of random chats as a Poisson process; first tokens and ends come as they were predicted."""
    rng, found, now = Random(seed), Traffic(), start
    ahead: list[tuple[float, int, Outcome]] = []
    for number in range(turns):
        now += rng.expovariate(per_second)
        while ahead and ahead[0][0] <= now:
            at, _, outcome = heapq.heappop(ahead)
            router.report(outcome, at)
        hashes = rng.choice(chats).turn()
        tokens = BLOCK * len(hashes) + rng.randrange(BLOCK)
        known = router.state.cached_tokens(hashes, BLOCK, tokens)
        decision = router.route(
            a_request(input_tokens=tokens, max_output_tokens=100, prefix_hashes=hashes, prefix_block_tokens=BLOCK), now
        )
        target = decision.target
        found.turns += 1
        found.targets[target.node_id] += 1
        found.cacheable += max(0.0, max(known.values(), default=0.0) - BLOCK)
        found.cached += max(0.0, known.get(router.state.slots[target.deployment], 0.0) - BLOCK)
        first = target.estimated_time_to_first_token_seconds
        assert first is not None
        for phase, seconds in ((Phase.FIRST_TOKEN, first), (Phase.FINISHED, target.estimated_latency_seconds)):
            outcome = Outcome(decision.decision_id, phase=phase, result=Result.OK, time_to_first_token_seconds=first)
            heapq.heappush(ahead, (now + (seconds or first), 2 * number + (phase is Phase.FINISHED), outcome))
    return found


@pytest.mark.parametrize("per_second", [4.0, 20.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_conversations_stay_where_they_are_cached_and_the_shared_block_herds_nobody(
    per_second: float, seed: int
) -> None:
    chats = [Conversation(number, Random(f"{seed} {number}")) for number in range(200)]

    found = run(a_router(TABLE, seed=seed), chats, per_second=per_second, turns=1_500, seed=seed)

    assert found.hit_ratio > 0.8
    assert found.shares[-1] < 2.0 / NODES
    # While nobody waits anywhere, a node that lacks even the shared block is a little later, and may stay idle.
    if per_second > 10.0:
        assert len(found.shares) == NODES
        assert found.shares[0] > 0.4 / NODES


def test_a_block_that_everybody_shares_is_no_reason_to_go_anywhere() -> None:
    router, rng = a_router(TABLE), Random(5)
    # Each chat has one turn: nothing but the first block is ever seen again.
    chats = [Conversation(number, rng) for number in range(1_000)]

    found = run(router, chats, per_second=20.0, turns=1_000, seed=5)

    assert found.shares[-1] < 1.5 / NODES
    assert found.shares[0] > 0.6 / NODES


def test_a_hot_conversation_leaves_its_node_once_that_is_full() -> None:
    router = a_router(TABLE)
    hot = tuple(range(10, 26))

    nodes = Counter[str]()
    for _ in range(200):
        request = a_request(input_tokens=BLOCK * 16, prefix_hashes=hot, prefix_block_tokens=BLOCK)
        nodes[router.route(request, 0.0).target.node_id] += 1

    assert len(nodes) == NODES
    assert max(nodes.values()) < 0.5 * 200


def test_after_a_restart_conversations_find_a_home_again_and_keep_it() -> None:
    chats = [Conversation(number, Random(number)) for number in range(200)]
    before = run(a_router(TABLE, seed=1), chats, per_second=10.0, turns=1_000, seed=1)
    restarted = a_router(TABLE, seed=2)

    # What was sent where is not stored: engines drop it sooner than a replica is back. A turn each, and it is known.
    back = run(restarted, chats, per_second=10.0, turns=400, seed=2, start=500.0)
    after = run(restarted, chats, per_second=10.0, turns=1_000, seed=3, start=1_000.0)

    assert back.cached <= back.cacheable
    assert after.hit_ratio > 0.9 * before.hit_ratio
    for found in (back, after):
        assert found.shares[-1] < 2.0 / NODES


def test_sessions_of_conversations_are_kept_and_come_back_mostly_to_their_node_after_a_restart() -> None:
    first, second = a_router(TABLE, seed=1), a_router(TABLE, seed=2)

    def homes(router: Router, now: float) -> list[str]:
        return [
            router.route(a_request(session_id=f"s{number}", prefix_hashes=(SHARED, 100 + number)), now).target.node_id
            for number in range(96)
        ]

    at_first, kept, restarted = homes(first, 0.0), homes(first, 30.0), homes(second, 60.0)

    assert kept == at_first
    assert sum(a == b for a, b in zip(at_first, restarted, strict=True)) > 3 * 96 / NODES
    assert max(Counter(restarted).values()) < 2.5 * 96 / NODES
    assert MODEL in first.route(a_request(session_id="s1"), 31.0).target.deployment
