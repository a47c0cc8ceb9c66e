"""What waits to be told to one sibling. Events wait in their order; of a state only what changed is told.

A state that came from the sibling itself is not told back to it: a suspicion would never fade between two replicas
that keep reminding each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import inf

from federation.health.engines.page import EngineMetrics
from federation.health.records import Load, Probe
from federation.health.sharing import CircuitWord, EjectionWord
from federation.siblings.messages import Beat, News, Sum, Witnessed
from policies.ageing import aged_suspicion
from policies.types import Outcome, Phase, Result

# Answers that went well are told one by one up to here, in one news; the rest as a count. Failures always are.
ANSWERS_ONE_BY_ONE = 200
# Items of one kind in one news: a few hundred bytes each, of messages that end at 4 MiB.
MAX_ITEMS = 3_000
# Circuits and ejections are all told again so often: who was cut off from the database hears of a node's circuit before
# it knows the node, and lets that pass.
AGAIN_SECONDS = 5.0
# A suspicion is told when it is so much above what the sibling knows.
RISEN = 1.1


@dataclass(frozen=True, slots=True)
class Standing:
    """What this replica has now, by name: the states that siblings are told of."""

    circuits: Mapping[str, CircuitWord] = field(default_factory=dict)
    ejections: Mapping[str, EjectionWord] = field(default_factory=dict)
    # Levels above 1.
    suspicions: Mapping[str, float] = field(default_factory=dict)
    # Pending tokens and requests, where there are any.
    sums: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    trials: tuple[str, ...] = ()


class Outgoing:
    """`take` answers the next news and remembers that it was told."""

    def __init__(self) -> None:
        self.beats: dict[str, Load | None] = {}
        self.probes: list[Probe] = []
        self.metrics: dict[str, EngineMetrics] = {}
        self.reports: list[Outcome] = []
        self._outcomes: list[Witnessed] = []
        self._answers: Counter[str] = Counter()
        self._one_by_one = 0
        self._circuits: dict[str, tuple[int, bool]] = {}
        self._ejections: dict[str, int] = {}
        self._anew_at = -inf
        self._suspicions: dict[str, tuple[float, float]] = {}
        self._sums: dict[str, tuple[float, float]] = {}

    @property
    def waiting(self) -> int:
        """Events that wait."""
        return len(self.beats) + len(self.probes) + len(self.metrics) + len(self.reports) + len(self._outcomes)

    def beat(self, node: str, load: Load | None) -> None:
        """Of two beats of a node the newer is told; one that tells no load leaves the load of the other."""
        self.beats[node] = load or self.beats.get(node)

    def outcome(self, deployment: str, outcome: Outcome) -> None:
        # What fails is told in any case, and first tokens go with the answers.
        if outcome.result in (None, Result.OK):
            if self._one_by_one >= ANSWERS_ONE_BY_ONE:
                self._answers[deployment] += outcome.phase is Phase.FINISHED
                return
            self._one_by_one += 1
        self._outcomes.append(Witnessed(deployment, outcome))

    def suspected(self, deployment: str, level: float, now: float) -> None:
        """The sibling said so itself."""
        known, at = self._suspicions.get(deployment, (1.0, now))
        self._suspicions[deployment] = (max(level, aged_suspicion(known, now - at)), now)

    def begins_anew(self, now: float) -> bool:
        """Whether the next news tells all circuits and ejections, as the first one does."""
        if now - self._anew_at < AGAIN_SECONDS:
            return False
        self._anew_at = now
        self._circuits.clear()
        self._ejections.clear()
        return True

    def take(self, standing: Standing, turns: tuple[str, ...], now: float) -> News:
        """The next news; what has no room in it comes with the one after."""
        beats = dict(islice(self.beats.items(), MAX_ITEMS))
        metrics = dict(islice(self.metrics.items(), MAX_ITEMS // 10))
        outcomes, self._outcomes = self._outcomes[:MAX_ITEMS], self._outcomes[MAX_ITEMS:]
        probes, self.probes = self.probes[:MAX_ITEMS], self.probes[MAX_ITEMS:]
        reports, self.reports = self.reports[:MAX_ITEMS], self.reports[MAX_ITEMS:]
        answers, self._answers, self._one_by_one = self._answers, Counter(), 0
        for name in beats:
            del self.beats[name]
        for name in metrics:
            del self.metrics[name]
        return News(
            beats=tuple(Beat(node, load) for node, load in beats.items()),
            probes=tuple(probes),
            metrics=tuple(metrics.items()),
            outcomes=tuple(outcomes),
            answers=tuple((name, count) for name, count in answers.items() if count),
            circuits=self._changed_circuits(standing.circuits),
            ejections=self._changed_ejections(standing.ejections),
            suspicions=self._risen(standing.suspicions, now),
            sums=self._changed_sums(standing.sums),
            trials=standing.trials,
            turns=turns,
            reports=tuple(reports),
        )

    def _changed_circuits(self, words: Mapping[str, CircuitWord]) -> tuple[CircuitWord, ...]:
        told = self._circuits
        new = (word for name, word in words.items() if told.get(name) != (word.epoch, word.open))
        changed = tuple(islice(new, MAX_ITEMS))
        told.update({word.deployment: (word.epoch, word.open) for word in changed})
        return changed

    def _changed_ejections(self, words: Mapping[str, EjectionWord]) -> tuple[EjectionWord, ...]:
        told = self._ejections
        # That its time is over everybody sees by himself.
        new = (word for name, word in words.items() if told.get(name) != word.epoch)
        changed = tuple(islice(new, MAX_ITEMS))
        told.update({word.name: word.epoch for word in changed})
        return changed

    def _risen(self, levels: Mapping[str, float], now: float) -> tuple[tuple[str, float], ...]:
        known = self._suspicions
        for name in [name for name in known if name not in levels]:
            del known[name]
        risen = []
        for name, level in levels.items():
            told, at = known.get(name, (1.0, now))
            if level > RISEN * aged_suspicion(told, now - at):
                risen.append((name, level))
                known[name] = (level, now)
        return tuple(risen)

    def _changed_sums(self, sums: Mapping[str, tuple[float, float]]) -> tuple[Sum, ...]:
        told = self._sums
        changed = [Sum(name, 0.0, 0.0) for name in told if name not in sums]
        changed += [Sum(name, *each) for name, each in sums.items() if told.get(name) != each]
        del changed[MAX_ITEMS:]
        for each in changed:
            if each.pending_tokens or each.in_flight:
                told[each.deployment] = (each.pending_tokens, each.in_flight)
            else:
                told.pop(each.deployment, None)
        return tuple(changed)
