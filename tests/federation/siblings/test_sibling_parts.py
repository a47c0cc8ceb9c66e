"""Members by their beats, shares, turns, what waits to be told, the wire, and what circuits are told of."""

from __future__ import annotations

import math
from random import Random

import pytest

from catalog.types import Replica
from federation.api.listening import Address
from federation.health.engines.page import EngineMetrics, Histogram
from federation.health.records import Load, Probe
from federation.health.sharing import CircuitWord, EjectionWord
from federation.peering.messages import Goodbye
from federation.siblings import wire
from federation.siblings.address import advertised
from federation.siblings.members import DEAD_SECONDS, Members, share_of
from federation.siblings.messages import Beat, Hello, Life, Message, News, Sum, Witnessed
from federation.siblings.outgoing import AGAIN_SECONDS, ANSWERS_ONE_BY_ONE, MAX_ITEMS, Outgoing, Standing
from federation.siblings.turns import SELF, TURN_SECONDS, Seen, Turns
from federation.v1 import peering_pb2 as pb
from policies.types import Outcome, Phase, Result

# Members


def a_replica(name: str, beats: int, incarnation: str = "life") -> Replica:
    return Replica(name, f"{name}:1", incarnation, beats)


def test_a_replica_lives_while_its_beats_grow():
    members = Members("a")
    for second in range(4):
        members.read([a_replica("a", second), a_replica("b", second), a_replica("c", 7)], float(second))
    assert sorted(members.living()) == ["b", "c"]

    members.read([a_replica("b", 9), a_replica("c", 7)], DEAD_SECONDS)

    assert sorted(members.living()) == ["b"]
    assert not members.lives("c")
    assert members.incarnation_of("c") == "life"
    assert members.incarnation_of("z") == ""


def test_an_outage_of_the_database_makes_nobody_dead():
    members = Members("a")
    members.read([a_replica("b", 1)], 0.0)

    # Nothing is read for an hour; then the first answer tells of one beat that was stored before it.
    assert members.lives("b")
    members.read([a_replica("b", 2)], 3_600.0)

    assert members.lives("b")


def test_a_new_life_lives_and_who_left_does_not():
    members = Members("a")
    members.read([a_replica("b", 5)], 0.0)
    members.read([a_replica("b", 5, "next")], 60.0)
    assert members.lives("b")

    members.read([], 61.0)

    assert not members.living()


def test_shares_are_even_and_move_only_with_whom_they_belonged_to():
    nodes = [f"eu/n{number}" for number in range(3_000)]
    before = {node: share_of(node, ("a", "b", "c")) for node in nodes}

    after = {node: share_of(node, ("c", "a")) for node in nodes}

    assert all(900 < list(before.values()).count(name) < 1_100 for name in "abc")
    assert all(after[node] == before[node] for node in nodes if before[node] != "b")
    assert share_of("eu/n1", ()) == ""


# Turns


def seen(told: int = 10, heard: int = 10, *trials: str) -> Seen:
    return Seen(told, heard, frozenset(trials))


def test_alone_every_turn_is_ours():
    turns = Turns()
    for now in range(10):
        turns.step(["d"], {}, [], float(now))
        assert turns.held(SELF) == {"d"}


def test_turns_go_round_and_the_next_begins_when_the_last_one_said_that_it_is_over():
    turns = Turns()
    turns.step(["d"], {"b": seen()}, [], 0.0)
    assert turns.held(SELF) == {"d"}
    turns.step(["d"], {"b": seen()}, ["d"], TURN_SECONDS)
    assert turns.held(SELF) == {"d"}  # our trial is under way
    turns.step(["d"], {"b": seen()}, [], TURN_SECONDS + 0.1)
    assert (turns.held(SELF), turns.held("b")) == (frozenset(), {"d"})

    at = 2 * TURN_SECONDS + 0.1
    turns.step(["d"], {"b": seen(20, 19)}, [], at)
    assert turns.held("b") == turns.held(SELF) == frozenset()
    turns.step(["d"], {"b": seen(21, 20)}, [], at + 0.1)
    turns.step(["d"], {"b": seen(22, 21, "d")}, [], at + 0.2)
    assert turns.held(SELF) == frozenset()
    turns.step(["d"], {"b": seen(23, 22)}, [], at + 0.3)

    assert turns.held(SELF) == {"d"}


def test_who_is_gone_is_not_waited_for_and_a_circuit_that_closed_has_no_turn():
    turns = Turns()
    turns.step(["d"], {"b": seen()}, [], 0.0)
    turns.step(["d"], {"b": seen()}, [], TURN_SECONDS)
    assert turns.held("b") == {"d"}

    turns.step(["d"], {}, [], TURN_SECONDS + 0.1)
    assert turns.held(SELF) == {"d"}
    turns.step([], {}, [], TURN_SECONDS + 0.2)

    assert turns.held(SELF) == frozenset()


@pytest.mark.parametrize("chance", range(20))
def test_nobody_has_a_turn_while_another_may_still_begin_a_trial(chance: int):
    rng = Random(chance)
    turns, now, heard = Turns(), 0.0, 0
    theirs = False
    for told in range(500):
        now += rng.choice((0.05, 0.1, 0.7))
        # What the sibling knows of its turn is what it heard last.
        if rng.random() < 0.7:
            heard, theirs = told, "d" in turns.held("b")
        turns.step(["d"], {"b": seen(told, heard)}, [], now)
        assert not (theirs and turns.held(SELF)), "two could try"


# What waits to be told


def test_events_are_told_once_and_states_when_they_change():
    outgoing = Outgoing()
    outgoing.beat("eu/n1", Load(queue_depth=1.0))
    outgoing.beat("eu/n1", None)
    outgoing.probes.append(Probe("eu/n1", True, 0.1))
    word, out = CircuitWord("d", 1, open=True, remaining_seconds=9.0), EjectionWord("eu/n1", 1, 5.0)
    standing = Standing({"d": word}, {"eu/n1": out}, {"d": 3.0}, {"d": (5.0, 1.0)}, ("t",))

    first = outgoing.take(standing, ("u",), 0.0)
    second = outgoing.take(standing, (), 0.1)

    assert first.beats == (Beat("eu/n1", Load(queue_depth=1.0)),)
    assert first.probes == (Probe("eu/n1", True, 0.1),)
    assert (first.circuits, first.ejections, first.suspicions) == ((word,), (out,), (("d", 3.0),))
    assert (first.sums, first.trials, first.turns) == ((Sum("d", 5.0, 1.0),), ("t",), ("u",))
    assert second == News(trials=("t",))
    later = outgoing.take(Standing({"d": CircuitWord("d", 2)}), (), 0.2)
    assert (later.circuits, later.sums) == ((CircuitWord("d", 2),), (Sum("d", 0.0, 0.0),))


def test_circuits_and_ejections_are_all_told_again_after_a_while():
    outgoing = Outgoing()
    word, out = CircuitWord("d", 1, open=True, remaining_seconds=9.0), EjectionWord("eu/n1", 1, 5.0)
    standing = Standing({"d": word}, {"eu/n1": out})

    begun, told = [], []
    for now in (0.0, 0.1, AGAIN_SECONDS - 0.1, AGAIN_SECONDS, AGAIN_SECONDS + 0.1):
        begun.append(outgoing.begins_anew(now))
        news = outgoing.take(standing, (), now)
        told.append((len(news.circuits), len(news.ejections)))

    assert begun == [True, False, False, True, False]
    assert told == [(1, 1), (0, 0), (0, 0), (1, 1), (0, 0)]


def test_many_answers_are_counted_and_every_failure_is_told():
    outgoing = Outgoing()
    for _ in range(ANSWERS_ONE_BY_ONE + 50):
        outgoing.outcome("d", Outcome("x", result=Result.OK))
    outgoing.outcome("d", Outcome("x", phase=Phase.FIRST_TOKEN))
    outgoing.outcome("d", Outcome("x", result=Result.TIMEOUT))

    news = outgoing.take(Standing(), (), 0.0)

    assert len(news.outcomes) == ANSWERS_ONE_BY_ONE + 1
    assert news.outcomes[-1].outcome.result is Result.TIMEOUT
    assert news.answers == (("d", 50),)


def test_what_a_sibling_said_is_not_told_back_unless_it_grew():
    outgoing = Outgoing()
    outgoing.suspected("d", 8.0, 0.0)

    assert outgoing.take(Standing(suspicions={"d": 8.0}), (), 0.0).suspicions == ()
    assert outgoing.take(Standing(suspicions={"d": 7.9}), (), 0.3).suspicions == ()
    assert outgoing.take(Standing(suspicions={"d": 12.0}), (), 0.4).suspicions == (("d", 12.0),)


def test_what_has_no_room_comes_with_the_next_news():
    outgoing = Outgoing()
    sums = {f"d{number}": (1.0, 1.0) for number in range(MAX_ITEMS + 5)}

    first = outgoing.take(Standing(sums=sums), (), 0.0)
    second = outgoing.take(Standing(sums=sums), (), 0.1)

    assert (len(first.sums), len(second.sums)) == (MAX_ITEMS, 5)


# The wire

PAGE = EngineMetrics(
    queue_depth=2.0,
    kv_cache_utilization=0.5,
    generation_tokens_total=7.0,
    end_to_end=Histogram((0.1, math.inf), (1.0, 4.0), 2.5),
)
EVERYTHING = News(
    sequence=3,
    echo=2,
    sent_at=77.5,
    beats=(Beat("eu/n1"), Beat("eu/n2", Load(running_requests=1.0, gpu_utilization=0.0))),
    probes=(
        Probe("eu/n1", True, 0.25, frozenset({"m", "a/b"})),
        Probe("eu/n2", False, 0.5, None, "HTTP 503", loading=True),
        Probe("eu/n3", True, 0.5, frozenset()),
    ),
    metrics=(("eu/n1", PAGE),),
    outcomes=(Witnessed("eu/n1/m", Outcome("d-1", 1, result=Result.TIMEOUT, latency_seconds=2.5)),),
    answers=(("eu/n1/m", 7),),
    circuits=(CircuitWord("eu/n1/m", 4, True, 29.5, 2, 3, "5 failures in a row"),),
    ejections=(EjectionWord("eu/n1", 2, 60.0, 1, "slow"),),
    suspicions=(("eu/n1/m", 4.5),),
    sums=(Sum("eu/n1/m", 512.0, 1.0),),
    trials=("eu/n1/m",),
    turns=("eu/n2/m",),
    reports=(Outcome("d-2", phase=Phase.FIRST_TOKEN, time_to_first_token_seconds=0.125),),
)


@pytest.mark.parametrize(
    "message", [Hello(Life("eu.a", "life-a"), "life-b"), EVERYTHING, News(1), Goodbye("over", refused=True)]
)
def test_what_is_said_arrives(message: Message):
    for told in (wire.request_to(message), wire.response_to(message)):
        assert wire.message_from(type(told).FromString(told.SerializeToString())) == message


@pytest.mark.parametrize(
    "message",
    [
        pb.ExchangeRequest(),
        pb.ExchangeRequest(heartbeat=pb.PeerHeartbeat()),
        pb.ExchangeRequest(sibling_hello=pb.SiblingHello(replica_id="x")),
        pb.ExchangeRequest(sibling_news=pb.SiblingNews()),
        pb.ExchangeRequest(sibling_news=pb.SiblingNews(sequence=1, sent_seconds=math.nan)),
    ],
)
def test_what_is_none_of_it_is_refused(message: pb.ExchangeRequest):
    with pytest.raises(ValueError, match=r"a message|a hello|news"):
        wire.message_from(message)


def test_figures_that_cannot_be_are_unknown():
    told = pb.SiblingNews(
        sequence=1,
        metrics=[
            pb.SiblingMetrics(
                node="n",
                queue_depth=math.nan,
                running_requests=-1.0,
                end_to_end=pb.SiblingHistogram(bounds=[1.0], counts=[2.0, 1.0]),
            )
        ],
        probes=[pb.SiblingProbe(node="n", latency_seconds=math.inf)],
        suspicions=[
            pb.SiblingSuspicion(deployment="d", level=1e9),
            pb.SiblingSuspicion(deployment="e", level=math.nan),
        ],
    )

    news = wire.message_from(pb.ExchangeRequest(sibling_news=told))

    assert isinstance(news, News)
    assert news.metrics == (("n", EngineMetrics()),)
    assert news.probes == (Probe("n", False, 0.0),)
    assert news.suspicions == (("d", 50.0),)


# The address


@pytest.mark.parametrize(
    ("setting", "bound", "tls", "told"),
    [
        ("", Address("127.0.0.1", 7), False, "http://127.0.0.1:7"),
        ("", Address("::1", 7), True, "https://[::1]:7"),
        ("10.0.0.9", Address("0.0.0.0", 7), False, "http://10.0.0.9:7"),
        ("fd00::9", Address("::", 7), False, "http://[fd00::9]:7"),
        ("[fd00::9]:5", Address("::", 7), False, "http://[fd00::9]:5"),
        ("pod-1.fairway", Address("0.0.0.0", 7), True, "https://pod-1.fairway:7"),
        ("pod-1.fairway:5", Address("0.0.0.0", 7), False, "http://pod-1.fairway:5"),
    ],
)
def test_siblings_are_told_where_they_reach_us(setting: str, bound: Address, tls: bool, told: str):
    assert advertised(setting, bound, tls=tls) == told


def test_who_listens_everywhere_tells_an_address_that_others_can_use():
    told = advertised("", Address("0.0.0.0", 7), tls=False)

    assert told.startswith("http://")
    assert "0.0.0.0" not in told
