"""Which reports were heard already, so that repeats count once: by decision, attempt and phase, the newest of them."""

from __future__ import annotations

from collections import OrderedDict

from policies.types import Outcome, Phase

# A gateway repeats a report within seconds; at 10,000 requests a second this is the last few, in about 20 MB.
KEEP = 100_000
# A request has at most so many attempts: a target and 16 alternatives.
MAX_ATTEMPTS = 17


class Heard:
    """Reports by (decision_id, attempt, phase), whoever made the decision and whether or not it is remembered."""

    def __init__(self, keep: int = KEEP) -> None:
        self._keep = keep
        self._marks: OrderedDict[tuple[str, int, Phase], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, outcome: Outcome) -> bool:
        return (outcome.decision_id, outcome.attempt, outcome.phase) in self._marks

    def add(self, outcome: Outcome) -> None:
        self._marks[(outcome.decision_id, outcome.attempt, outcome.phase)] = None
        if len(self._marks) > self._keep:
            self._marks.popitem(last=False)

    def ended(self, outcome: Outcome) -> bool:
        """Whether this attempt or a later one is known to be over."""
        return any(
            (outcome.decision_id, attempt, Phase.FINISHED) in self._marks
            for attempt in range(outcome.attempt, MAX_ATTEMPTS)
        )
