"""The session of two replicas: who is taken for one, and what a gap, a repeat and silence do."""

from __future__ import annotations

import pytest

from federation.peering.messages import Close, Goodbye, Send
from federation.siblings.messages import Heard, Hello, Life, Met, News
from federation.siblings.session import SILENCE_SECONDS, Session, Stage

A, B = Life("eu.a", "life-a"), Life("eu.b", "life-b")
KNOWN = {"eu.a": "life-a", "eu.b": "life-b"}


def dialing() -> Session:
    return Session(A, now=0.0, incarnation_of=lambda name: KNOWN.get(name, ""), expected=B)


def accepting(known: dict[str, str] | None = None) -> Session:
    told = KNOWN if known is None else known
    return Session(B, now=0.0, incarnation_of=lambda name: told.get(name, ""))


def up() -> Session:
    session = accepting()
    session.receive(Hello(A, "life-b"), 0.0)
    return session


def closing(effects: tuple[object, ...]) -> str:
    """Why a session closes, said to the sibling too."""
    (*_, goodbye, close) = effects
    assert isinstance(close, Close)
    assert goodbye == Send(Goodbye(close.reason))
    return close.reason


def test_both_say_who_they_are_and_prove_it_by_the_others_life():
    here, there = dialing(), accepting()
    (said,) = here.open()

    answered = there.receive(said.message, 0.1)
    met = here.receive(answered[0].message, 0.2)

    assert said == Send(Hello(A, "life-b"))
    assert answered == (Send(Hello(B, "life-a")), Met(A))
    assert met == (Met(B),)
    assert here.is_up
    assert there.is_up


@pytest.mark.parametrize(
    ("hello", "known"),
    [
        (Hello(Life("eu.a", "life-x"), "life-b"), None),  # another life than the database has
        (Hello(A, "life-x"), None),  # it does not know ours
        (Hello(Life("eu.z", ""), "life-b"), None),  # nobody
        (Hello(A, "life-b"), {}),  # not read yet
        (Hello(Life("eu.b", "life-b"), "life-b"), None),  # ourselves
    ],
)
def test_whoever_is_no_replica_by_the_database_is_refused(hello: Hello, known: dict[str, str] | None):
    session = accepting(known)

    reason = closing(session.receive(hello, 0.0))

    assert "replica" in reason
    assert session.closed


def test_another_one_than_was_dialed_is_refused():
    session = dialing()
    session.open()

    assert "eu.c is not the replica that was meant" in closing(session.receive(Hello(Life("eu.c", "x"), "life-a"), 0.0))


def test_news_before_a_hello_close():
    assert "not a hello" in closing(accepting().receive(News(1), 0.0))


def test_news_are_numbered_and_echoed():
    session = up()
    session.receive(News(1), 0.1)
    session.receive(News(2), 0.2)

    (said,) = session.tell(News(trials=("d",)), 0.3)

    assert said == Send(News(sequence=1, echo=2, sent_at=0.3, trials=("d",)))
    session.receive(News(3, echo=9), 0.4)
    assert session.echoed == 1


def test_a_repeat_is_passed_over_and_a_gap_closes():
    session = up()
    session.receive(News(1), 0.0)

    assert session.receive(News(1), 0.1) == ()
    assert "a gap: news 3 after 1" in closing(session.receive(News(3), 0.2))
    assert session.receive(News(4), 0.3) == ()


def test_what_comes_later_than_others_do_is_as_old_as_that_whatever_the_clocks_say():
    session = up()
    ages = []
    for number, (sent, came) in enumerate([(500.0, 1.0), (500.1, 1.1), (500.2, 1.7), (500.3, 1.75)], 1):
        (heard,) = session.receive(News(number, sent_at=sent), came)
        assert isinstance(heard, Heard)
        ages.append(heard.age_seconds)

    assert ages == pytest.approx([0.0, 0.0, 0.5, 0.45])


def test_clocks_that_part_slowly_make_nothing_old():
    session = up()
    for number in range(1, 20_000):
        now = number * 0.1
        (heard,) = session.receive(News(number, sent_at=now * 0.9999), now)
        assert isinstance(heard, Heard)
        assert heard.age_seconds < 0.01


def test_silence_closes_it_and_nothing_comes_after_a_close():
    session = up()
    session.receive(News(1), 1.0)

    assert session.tick(1.0 + SILENCE_SECONDS - 0.1) == ()
    assert "nothing heard for 3.0 s" in closing(session.tick(1.0 + SILENCE_SECONDS))
    assert (session.tick(99.0), session.tell(News(), 99.0), session.end("again")) == ((), (), ())


def test_a_goodbye_ends_it():
    session = up()

    assert session.receive(Goodbye("eu.a shuts down"), 1.0) == (
        Close("the sibling ended it: eu.a shuts down", refused=False),
    )
    assert session.stage is Stage.CLOSED


def test_a_second_hello_is_a_repeat_or_another_one():
    session = up()

    assert session.receive(Hello(A, "life-b"), 0.1) == ()
    assert "hello twice" in closing(session.receive(Hello(Life("eu.c", "x"), "life-b"), 0.2))
