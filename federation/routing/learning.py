"""What a decision's outcome teaches: how far to trust the node, and what others have waiting there."""

from __future__ import annotations

from federation.routing.reservations import Reservation
from federation.routing.state import QUEUE_HALF_LIFE_SECONDS, State
from policies.types import Outcome, Phase, Result

# Answers this much later than predicted are late; predictions are not better than that.
LATE_RATIO = 2.0
# And by at least this: on idle nodes a few milliseconds are a large ratio and mean nothing.
LATE_SECONDS = 0.1
# And by as much as so many requests take: to meet two of another router's is chance. A node that is suspected for that
# stands idle while the others drown: without this 2 to 7 of 30 sound nodes were suspected at 70 % load.
LATE_REQUESTS = 2.0
# What an answer in time leaves of a suspicion: one may be luck, a slow node has not three.
TRUST_SHARE = 0.5
# What each answer moves the usual wait and work by: about the last twenty count, so that a busy minute is usual within
# seconds.
USUAL_SHARE_OF_ANSWER = 0.05
# What one failure counts as, and each further one multiplies by.
FAILURE_SUSPICION = 3.0
FAILURE_FACTOR = 2.0


def learn_from(state: State, held: Reservation | None, slot: int, outcome: Outcome, now: float) -> None:
    """Adjusts suspicion and wait of a slot by an outcome; `held` is the reservation that it closed, where one was."""
    if slot < 0:
        return
    if outcome.result is not None and outcome.result.is_failure:
        state.suspect(slot, max(FAILURE_SUSPICION, state.suspicion[slot] * FAILURE_FACTOR))
        return
    if outcome.result is Result.OVERLOADED:
        # It answered at once that it is full: as much work waits there as one more batch would take.
        state.await_others(slot, max(state.wait[slot], OVERLOADED_WAIT_SECONDS))
        return
    first = outcome.time_to_first_token_seconds
    if held is None or held.told or first is None or outcome.result not in (None, Result.OK):
        return
    held.told = True
    measured = max(0.0, first - held.round_trip)
    # Late is who comes later than the others do now: in a busy minute everybody waits for requests of other routers,
    # and a node that is suspected for that is left idle while the rest drown.
    usual = state.usual(held.expected)
    chance = max(LATE_SECONDS, LATE_REQUESTS * state.usual_work)
    if measured > LATE_RATIO * usual and measured - usual > chance:
        state.suspect(slot, measured / max(usual, 1e-3))
    else:
        state.reassure(slot, TRUST_SHARE)
    waited = max(0.0, measured - held.expected)
    state.usual_wait += USUAL_SHARE_OF_ANSWER * (waited - state.usual_wait)
    state.usual_work += USUAL_SHARE_OF_ANSWER * (held.expected - state.usual_work)
    # Where only the end is reported the first token may be long ago, and what waited then has had its turn; it must not
    # take the place of newer news.
    age = max(0.0, (outcome.latency_seconds or first) - first) if outcome.phase is Phase.FINISHED else 0.0
    left = waited * 0.5 ** (age / QUEUE_HALF_LIFE_SECONDS)
    state.await_others(slot, left if age < QUEUE_HALF_LIFE_SECONDS else max(state.wait[slot], left))
    state.spread.observe(slot, measured / max(held.predicted, 1e-3))


# A refusal for load says nothing of how long; a few seconds send the next ones elsewhere and fade soon.
OVERLOADED_WAIT_SECONDS = 5.0
