"""What there is in the simulation of `dst.py`: regions, settings whose times are short, and nodes by their names."""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from catalog.types import Node, PrivacyLevel
from federation.config import CircuitSettings, HealthSettings
from policies.policy import Policy, Spillover
from tests.builders import a_deployment, a_node

T = TypeVar("T")

REGIONS = {"ap": ("JP",), "eu": ("DE", "EU"), "us": ("US",)}
REPLICAS = 2
PEER_LEASE_SECONDS = 5.0
NODE_LEASE_SECONDS = 2.0
BEAT_SECONDS = 0.5
NAMES = tuple(f"n{number}" for number in range(6))
HEALTH = HealthSettings(probe_interval_seconds=2.0, unhealthy_after=2, healthy_after=1)
CIRCUIT = CircuitSettings(failures=3, open_seconds=1.5, max_open_seconds=3.0, successes=2)
POLICIES = {"tiers": Policy("tiers", spillover=Spillover(failback_seconds=10.0))}
# What replicas take to find each other again when the faults are over, and to share out what there is to do.
SETTLED_SECONDS = 8.0
# Fewer than a run makes, so that who was away for long finds that what it wants is compacted.
KEPT_CHANGES = 5


def done(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine answers that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as e:
        return cast(T, e.value)
    raise AssertionError("it waits for something")


def born(name: str) -> Node:
    """A node as it is whenever somebody registers it: what hard rules read hangs on its name alone."""
    number = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    deployment = a_deployment(tenant_ids=("acme",) if number % 5 == 0 else (), max_concurrency=50)
    levels = (None, *PrivacyLevel)
    level = levels[number % len(levels)]
    return a_node(name, (deployment,), privacy_level=level, owner=name.split("/")[0], lease_seconds=NODE_LEASE_SECONDS)


class Quiet:
    """A log that nobody reads."""

    def __getattr__(self, name: str) -> Any:
        return lambda *words, **values: None
