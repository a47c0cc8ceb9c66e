"""The siblings that there is a link to, which of two links stays, and how each stands, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from catalog.types import Replica
from federation.peering.link import Link
from federation.siblings.outgoing import Outgoing
from federation.siblings.session import Session


@dataclass(frozen=True, slots=True)
class SiblingStatus:
    """How the link to a sibling stands, for people. None is unknown; seconds."""

    replica_id: str
    address: str
    # "down" or "up".
    state: str
    lag_seconds: float | None = None
    # How long the link has been up.
    age_seconds: float | None = None
    reason: str = ""


class Linked:
    """One link that is up, with what goes over it."""

    def __init__(self, link: Link[Session], now: float) -> None:
        self.link = link
        self.since = now
        self.outgoing = Outgoing()
        self.trials: frozenset[str] = frozenset()
        self.turns: frozenset[str] = frozenset()
        # Whether all that it knew was told.
        self.caught_up = False


def stays(before: Link[Session], link: Link[Session], *, opener: bool) -> bool:
    """Whether of two links to a sibling the first stays: the one that the smaller id opened; `opener` is whether that
    is us. Were it the newest, each end would take another one where both dial over a long way."""
    return not before.session.closed and before.opened_here != link.opened_here and before.opened_here == opener


def statuses(
    living: Mapping[str, Replica], up: Mapping[str, Linked], reasons: Mapping[str, str], now: float
) -> list[SiblingStatus]:
    """Of every replica that lives or is linked, by id; `reasons` tell why there is no link."""
    listed = []
    for name in sorted({*living, *up}):
        address = living[name].address if name in living else ""
        known = up.get(name)
        if known is None:
            listed.append(SiblingStatus(name, address, "down", reason=reasons.get(name, "not met yet")))
        else:
            lag = max(0.0, now - known.link.session.heard_at)
            listed.append(SiblingStatus(name, address or known.link.address, "up", lag, now - known.since))
    return listed
