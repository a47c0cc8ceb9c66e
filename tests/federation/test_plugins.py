"""Plug-ins of other installed packages."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from federation.config import RoutingSettings
from federation.plugins import GuardedFilter, GuardedPicker, GuardedScorer, PluginError, load_registry
from federation.routing.replay import replay
from federation.routing.router import Router
from policies.classic import ClassicPicker
from policies.document import compile_policy
from policies.errors import InvalidPolicy, NoCandidate
from policies.registry import BUILT_IN, Registry
from tests.builders import a_node, a_region, a_request, a_table

README = Path(__file__).parents[2] / "README.md"


class Failed:
    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str, error: str) -> None:
        self.names.append(name)


def a_router(registry: Registry, document: dict[str, Any]) -> Router:
    router = Router(
        RoutingSettings(policy="p"),
        replica="r",
        seed=1,
        wall=lambda: 0.0,
        registry=registry,
    )
    router.install_policies({"p": compile_policy("p", document, registry=registry)})
    regions = [a_region(name, round_trip_seconds={"eu-north-1": 0.05}) for name in ("eu-north-1", "us-east-1")]
    router.install(a_table(a_node("eu-north-1/a"), a_node("us-east-1/a"), regions=regions, home="us-east-1"))
    return router


def test_the_readme_s_package_is_installed_found_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```(?:python|toml)\n# (green\.py|pyproject\.toml)\n(.*?)```", README.read_text(), re.DOTALL)
    code = dict(blocks)["green.py"]
    wheel = tmp_path / "fairway_green-1.0-py3-none-any.whl"
    info = "fairway_green-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("green.py", code)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: fairway-green\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[fairway.scorers]\ngreen = green:Green\n")
        archive.writestr(f"{info}/RECORD", "")
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True)
    monkeypatch.syspath_prepend(str(target))
    failed = Failed()

    registry = load_registry(failed)
    router = a_router(registry, {"extra_scorers": {"green": 5.0}, "picker": "best"})
    decision = router.route(a_request(origin_region="us-east-1"), 1.0)

    assert any(each.name == "fairway-green" for each in distributions(path=[str(target)]))
    assert decision.target.region_id == "eu-north-1"
    assert not failed.names


def test_a_decision_by_plug_ins_recomputes_identically() -> None:
    def away(ask: Any, pool: Any, seen: Any) -> Any:
        return (pool.place != ask.origin).astype(float)

    registry = BUILT_IN.extend({"away": away}, {}, {"last": lambda field: len(field) - 1})
    router = a_router(registry, {"extra_scorers": {"away": 1.0}, "picker": "last"})

    record = router.place(a_request(), 1.0)

    assert replay(record.entry(), registry).identical


def test_a_plug_in_that_is_not_installed_is_a_violation_of_the_document() -> None:
    with pytest.raises(InvalidPolicy, match=r"extra_scorers\.green: is no plug-in of this server"):
        compile_policy("p", {"extra_scorers": {"green": 1.0}})


@pytest.mark.parametrize("wrong", [lambda *a: 1 / 0, lambda *a: np.zeros(99), lambda *a: "nonsense"])
def test_what_a_plug_in_gets_wrong_costs_its_own_say_only(wrong: Any) -> None:
    failed = Failed()
    registry = BUILT_IN.extend({"s": GuardedScorer("s", wrong, failed)}, {}, {"p": GuardedPicker("p", wrong, failed)})
    router = a_router(registry, {"extra_scorers": {"s": 1.0}, "picker": "p"})

    decision = router.route(a_request(origin_region="us-east-1"), 1.0)

    assert decision.target.region_id == "us-east-1"
    assert {"s", "p"} <= set(failed.names)


def test_a_filter_that_fails_refuses_everybody() -> None:
    failed = Failed()
    registry = BUILT_IN.extend({}, {"f": GuardedFilter("f", lambda ask, pool: 1 / 0, failed)}, {})  # type: ignore[arg-type, return-value]
    router = a_router(registry, {"extra_filters": ["f"]})

    with pytest.raises(NoCandidate) as raised:
        router.route(a_request(), 1.0)

    assert raised.value.rejected == {"RULE": 2}


def test_a_hard_rule_binds_whatever_a_picker_answers() -> None:
    registry = BUILT_IN.extend({}, {}, {"last": lambda field: len(field) - 1})
    router = a_router(registry, {"picker": "last"})

    decision = router.route(a_request(exclude_regions=("us-east-1",)), 1.0)

    assert decision.target.region_id == "eu-north-1"
    assert not decision.alternatives


def test_a_router_of_the_classic_shape_is_a_picker() -> None:
    class FewestRunning:
        def route_request(self, endpoints: Any, engine_stats: Any, request_stats: Any, request: Any) -> str:
            assert request.headers["x-session-id"] == "s"
            assert {name for endpoint in endpoints for name in endpoint.model_names} == {"llama-3-8b"}
            return min(
                (endpoint.url for endpoint in endpoints),
                key=lambda url: (engine_stats[url].num_running_requests, request_stats[url].ttft),
            )

    registry = BUILT_IN.extend({}, {}, {"fewest": ClassicPicker(FewestRunning())})
    router = a_router(registry, {"picker": "fewest"})

    targets = [router.route(replace(a_request(), request_id="s"), 1.0).target.region_id for _ in range(4)]

    assert sorted(targets) == ["eu-north-1", "eu-north-1", "us-east-1", "us-east-1"]


def test_a_plug_in_that_cannot_be_loaded_says_which_and_what_to_do() -> None:
    points = [EntryPoint("broken", "no_such_module:thing", "fairway.pickers")]

    with pytest.raises(PluginError, match=r"'broken' \(no_such_module:thing\).*mend it, or uninstall"):
        load_registry(Failed(), lambda group: points if group == "fairway.pickers" else [])


def test_a_plug_in_must_not_take_a_built_in_name() -> None:
    taken = SimpleNamespace(name="best", value="x:y", dist=None, load=lambda: lambda field: 0)

    with pytest.raises(PluginError, match="'best' is already registered"):
        load_registry(Failed(), lambda group: [taken] if group == "fairway.pickers" else [])  # type: ignore[list-item]
