"""A decision log tells of a decision what the server tells; plug-ins are found as the server finds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from federation.api.convert.decisions import decision_to, request_to
from federation.cli.records import explanation
from federation.config import RoutingSettings
from federation.routing.router import Router
from federation.v1.routing_pb2 import GetDecisionResponse
from policies.document import compile_policy
from policies.errors import NoCandidate
from policies.registry import BUILT_IN
from tests.builders import a_node, a_request, a_router, a_table
from tests.fleets import random_fleet, random_policy, random_request, stir

GREEN = """
import numpy as np


class Green:
    def __call__(self, ask, pool, seen):
        clean = {"us", "us-east-1"}
        return np.array([place.region_id in clean for place in pool.places], dtype=float)[pool.place]
"""
ENTRY_POINTS = "[fairway.scorers]\ngreen = green:Green\n"


def told(router: Router, request: Any) -> tuple[GetDecisionResponse, dict[str, Any]]:
    """What GetDecision answers, and the line of the log."""
    record = router.place(request, 3.0)
    line = json.loads(record.to_json())
    return GetDecisionResponse(decision=decision_to(record.decision), request=request_to(record.request)), line


def test_an_explanation_from_the_log_is_the_servers() -> None:
    compared = 0
    for seed in range(60):
        rng = Random(seed)
        fleet = random_fleet(rng, rng.choice([1, 4, 20, 90]))
        router = fleet.router(random_policy(rng), seed=seed)
        router.install(replace(router.table, catalog_at=rng.choice([0.0, 2.5])))
        stir(router, seed, fleet.health)
        for _ in range(3):
            try:
                online, line = told(router, random_request(rng))
            except NoCandidate:
                continue
            compared += 1

            assert explanation(line, BUILT_IN) == online, seed
            assert online.decision.reasoning
    assert compared > 40


def test_the_log_of_an_older_program_is_told_without_words_ways_and_ages() -> None:
    online, line = told(a_router(a_table(a_node("eu/a"), a_node("us/b"))), a_request())
    del line["told"]

    found = explanation(line, BUILT_IN).decision

    assert found.target.deployment == online.decision.target.deployment
    assert found.target.endpoint == ""
    assert [each.total for each in found.candidates] == [each.total for each in online.decision.candidates]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with one decision by the plug-in scorer `green`."""

    def green(ask: Any, pool: Any, seen: Any) -> Any:
        return (pool.place != ask.origin).astype(float)

    registry = BUILT_IN.extend({"green": green}, {}, {})
    router = Router(RoutingSettings(), replica="r1", seed=7, wall=lambda: 1.7e9, registry=registry)
    router.install(a_table(a_node("eu/a"), a_node("us/b")))
    policy = compile_policy("p", {"extra_scorers": {"green": 5.0}}, 1, registry=registry)
    router.install_policies({"p": policy})
    path = tmp_path / "d.jsonl"
    path.write_text(router.place(a_request(policy_id="p"), 0.0).to_json() + "\n")
    return path


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """A directory with the package that brings `green`, as an installer leaves it."""
    installed = tmp_path / "site"
    metadata = installed / "fairway_green-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fairway-green\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (installed / "green.py").write_text(GREEN)
    return str(installed)


@pytest.mark.parametrize("command", ["replay --assert-identical", "explain r1-0", "preview"])
def test_plug_ins_of_other_packages_are_found_by_their_entry_points(log: Path, installed: str, command: str) -> None:
    arguments = [*command.split(), "--log", str(log)]

    without, found = fairway(arguments), fairway(arguments, installed)

    assert without.returncode == 6, without.stderr
    assert "line 1: the decision was made by scorer 'green' (fairway.scorers), not installed here" in without.stderr
    assert "install the package" in without.stderr
    assert found.returncode == 0, found.stderr


def test_a_document_that_names_a_plug_in_is_checked_with_it(tmp_path: Path, installed: str) -> None:
    document = tmp_path / "p.toml"
    document.write_text("[extra_scorers]\ngreen = 0.5\n")
    arguments = ["policies", "lint", str(document)]

    without, found = fairway(arguments), fairway(arguments, installed)

    assert without.returncode == 7
    assert "extra_scorers.green: is no plug-in" in without.stdout
    assert found.returncode == 0, found.stderr


def test_a_policy_that_names_a_plug_in_is_simulated_with_it(tmp_path: Path, installed: str) -> None:
    document, trace = tmp_path / "p.toml", tmp_path / "t.csv"
    # So many points for a region outweigh everything else.
    document.write_text("[extra_scorers]\ngreen = 50.0\n")
    trace.write_text("arrival_seconds,input_tokens,output_tokens\n" + "".join(f"{n},200,20\n" for n in range(20)))
    arguments = ["simulate", "--trace", str(trace), "--load", "0", "--policy", str(document), "-o", "json"]

    without, found = fairway(arguments), fairway(arguments, installed)

    assert without.returncode == 2
    assert "extra_scorers.green: is no plug-in" in without.stderr
    assert found.returncode == 0, found.stderr
    (entry,) = json.loads(found.stdout)["policies"].values()
    assert entry["load_by_region"] == {"us-east-1": 1.0}


def fairway(arguments: list[str], *paths: str) -> subprocess.CompletedProcess[str]:
    known = [*paths, *filter(None, [os.environ.get("PYTHONPATH", "")]), str(Path(__file__).parents[3])]
    return subprocess.run(
        [sys.executable, "-m", "federation", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(known)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
