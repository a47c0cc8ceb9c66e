"""What the chart accepts, what it refuses and with which words, and what the server reads of it."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import helm_python
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation import config
from tests.helm.chart import CHART, EVERYTHING, MODES, PLAIN, POSTGRES, ROOT, TLS, Values, config_file, rendered


def generator() -> ModuleType:
    """`helm/generate.py`, which is a script and belongs to no package."""
    spec = importlib.util.spec_from_file_location("helm_generate", ROOT / "helm" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def refusal(values: Values) -> str:
    """What Helm says instead of rendering."""
    with pytest.raises(helm_python.HelmError) as caught:
        rendered(values)
    return str(caught.value)


def owned_objects(schema: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all objects whose keys the chart defines."""
    found = [path]
    for key, own in schema["properties"].items():
        if "properties" in own:
            found += owned_objects(own, (*path, key))
    return found


@pytest.mark.parametrize("path", owned_objects(SCHEMA), ids=lambda path: ".".join(path) or "top")
def test_a_typo_is_refused_wherever_it_is(path: tuple[str, ...]) -> None:
    values: Values = {"tpyo": 1}
    for key in reversed(path):
        values = {key: values}

    assert "additional properties 'tpyo' not allowed" in refusal(PLAIN | values)


def test_two_replicas_over_sqlite_are_refused_with_the_mode_that_takes_them() -> None:
    assert "at '/database/mode': value must be 'postgres'" in refusal(PLAIN | {"replicas": 2})


def test_neither_plain_text_nor_tls_is_chosen_silently() -> None:
    message = refusal({})

    assert "set tls.existingSecret" in message
    assert "or insecure=true" in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (PLAIN | TLS, "tls.existingSecret and insecure=true exclude each other"),
        (PLAIN | {"tls": {"requireClientCertificate": True}}, "tls.requireClientCertificate needs tls.existingSecret"),
        (PLAIN | {"database": {"mode": "postgres"}}, "needs database.postgres.existingSecret: a Secret whose key"),
        (PLAIN | {"database": {"mode": "mysql"}}, "at '/database/mode'"),
        (PLAIN | POSTGRES | {"replicas": 0}, "at '/replicas'"),
        (PLAIN | {"config": {"peering": {"peers": ["us:50051"]}}}, "config.region.owns must name config.region.id"),
        (PLAIN | {"config": {"routing": {"min_score": 2}}}, "at '/config/routing/min_score': maximum: got 2, want 1"),
        (PLAIN | {"config": {"region": {"id": "EU"}}}, "at '/config/region/id'"),
        (PLAIN | {"podLabels": {"app.kubernetes.io/name": "x"}}, "invalid propertyName 'app.kubernetes.io/name'"),
        (PLAIN | {"image": {"digest": "latest"}}, "at '/image/digest'"),
    ],
)
def test_a_contradiction_is_refused_before_anything_is_installed(values: Values, message: str) -> None:
    assert message in refusal(values)


@pytest.mark.parametrize("key", sorted(GENERATOR.CHART_OWNED))
def test_what_the_chart_sets_itself_cannot_be_set_beside_it(key: str) -> None:
    section, name = key.split(".")

    assert "not allowed" in refusal(PLAIN | {"config": {section: {name: "x"}}})


def test_schema_and_page_say_what_the_settings_and_the_values_say() -> None:
    for path, text in GENERATOR.generated().items():
        assert path.read_text() == text, f"{path.name} is stale: run `python helm/generate.py`"


def test_every_setting_is_a_value_or_is_set_by_the_chart() -> None:
    sections = SCHEMA["properties"]["config"]["properties"]
    in_schema = {
        f"{section}.{key}": own for section, table in sections.items() for key, own in table["properties"].items()
    }

    assert in_schema.keys() | GENERATOR.CHART_OWNED == set(config.KEYS)
    assert in_schema.keys().isdisjoint(GENERATOR.CHART_OWNED)
    for key, own in in_schema.items():
        section, name = key.split(".")
        table = getattr(config.Settings(), section)
        assert own["description"] == type(table).model_fields[name].description
        default = getattr(table, name)
        assert own.get("default") == (list(default) if isinstance(default, tuple) else default)


def test_the_schema_knows_exactly_the_values_there_are() -> None:
    def leaves(values: dict[str, Any], schema: dict[str, Any]) -> None:
        assert values.keys() == schema["properties"].keys() - {"global"}
        for key, value in values.items():
            own = schema["properties"][key]
            if isinstance(value, dict) and "properties" in own and key not in {"config", "resources"}:
                leaves(value, own)
            else:
                assert own["description"], f"{key} has no comment in values.yaml"

    leaves(yaml.safe_load((CHART / "values.yaml").read_text()), SCHEMA)


def test_the_chart_runs_the_version_that_it_is_shipped_with() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert chart["appVersion"] == project["version"]


def test_the_default_drain_is_the_server_s() -> None:
    # The pod's grace period is 45 s with it; see test_the_grace_period_covers_the_drain.
    assert config.Settings().server.drain_seconds == 30.0


@pytest.mark.parametrize("values", MODES.values(), ids=MODES.keys())
def test_the_server_accepts_the_file_that_is_rendered(values: Values, tmp_path: Path) -> None:
    path = tmp_path / "fairway.toml"
    path.write_text(config_file(values))

    loaded = config.load(path)

    postgres = values.get("database", {}).get("mode") == "postgres"
    assert loaded.server.listen == "0.0.0.0:50051"
    assert loaded.server.insecure == ("tls" not in values)
    assert (loaded.security.tls_key is not None) == ("tls" in values)
    assert loaded.store.migrate == (not postgres)
    assert (loaded.store.url_file is not None) == postgres
    # In a volume of the pod: it outlives the container.
    assert str(loaded.store.last_known_path) == ("/var/lib/fairway/last-known" if postgres else "None")


def test_only_what_was_set_is_written() -> None:
    written = tomllib.loads(config_file(PLAIN | {"config": {"routing": {"policy": "cost_first"}}}))

    assert written["routing"] == {"policy": "cost_first"}
    assert written.keys() == {"routing", "server", "store"}


# What is special in JSON, TOML, YAML or a Helm template, and any printable character.
TEXT = st.text(st.characters(exclude_categories=("C",)) | st.sampled_from("\n\t\"'\\<>&#{}:"), max_size=30)
NUMBER = st.floats(min_value=1e-9, max_value=86_400)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(owns=st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)), text=TEXT, lists=st.lists(TEXT), number=NUMBER)
def test_a_value_reaches_the_server_as_it_was_written(
    owns: list[str], text: str, lists: list[str], number: float
) -> None:
    given_config = {
        "region": {"owns": owns, "jurisdiction": lists},
        "telemetry": {"otlp_endpoint": text},
        "circuit": {"window_seconds": number},
        "routing": {"decision_log_max_bytes": 1 << 40},
    }

    written = tomllib.loads(config_file(PLAIN | {"config": given_config}))

    assert {section: written[section] for section in given_config} == given_config


def test_everything_is_a_value_that_the_schema_accepts() -> None:
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(EVERYTHING)
