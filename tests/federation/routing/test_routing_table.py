"""The table: what the catalog and the health view become."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from catalog.types import PrivacyLevel, ServingProfile
from federation.routing.compiling import compile_catalog
from federation.routing.table import build_table
from policies.health import CircuitState, CircuitView
from policies.types import Code
from tests.builders import (
    MODEL,
    OPEN,
    SICK,
    WELL,
    a_deployment,
    a_model,
    a_node,
    a_region,
    a_snapshot,
    a_table,
    all_well,
    by_node,
)


def test_rows_stand_in_the_order_of_names() -> None:
    table = a_table(a_node("us/b"), a_node("eu/z"), a_node("eu/a", [a_deployment("z"), a_deployment("a")]))

    assert table.pool.names == ("eu/a/a", "eu/a/z", f"eu/z/{MODEL}", f"us/b/{MODEL}")
    assert table.compiled.row_of == {name: row for row, name in enumerate(table.pool.names)}


def test_rows_are_found_by_model_capability_and_fact() -> None:
    table = a_table(
        a_node("eu/a", [a_deployment(), a_deployment("bge", capabilities=("embed",))], labels={"tier": "gold"}),
        a_node("eu/b", [a_deployment(capabilities=())]),
        models=[a_model(capabilities=("generate", "code"))],
    )
    compiled, facts = table.compiled, table.pool.facts

    assert compiled.rows_by_model[MODEL].tolist() == [1, 2]
    assert compiled.rows_by_capability["embed"].tolist() == [0]
    # A deployment that names no capability has its model's.
    assert compiled.rows_by_capability["code"].tolist() == [2]
    assert facts.has(facts.labels, ("tier", "gold")).tolist() == [True, True, False]
    assert facts.has(facts.labels, ("tier", "silver")).tolist() == [False, False, False]


def test_an_id_goes_before_an_alias_of_the_same_name() -> None:
    table = a_table(a_node("eu/a"), models=[a_model("other", aliases=(MODEL, "x"))])

    assert table.compiled.model_ids[MODEL] == MODEL
    assert table.compiled.model_ids["x"] == "other"


def test_what_names_a_region_or_model_without_a_record_is_left_out() -> None:
    snapshot = a_snapshot(a_node("eu/a"), a_node("us/b"))
    lost = replace(snapshot, regions={"eu": snapshot.regions["eu"]})

    assert compile_catalog(lost).pool.names == (f"eu/a/{MODEL}",)
    assert compile_catalog(replace(snapshot, models={})).pool.names == ()


def test_a_node_without_a_level_serves_up_to_internal() -> None:
    table = a_table(a_node("eu/a"), a_node("eu/b", privacy_level=PrivacyLevel.PUBLIC))

    assert by_node(table, table.pool.privacy) == {"eu/a": 2, "eu/b": 1}


def test_an_accelerator_makes_a_gpu_node() -> None:
    table = a_table(
        a_node("eu/a", accelerator="", accelerator_count=0),
        a_node("eu/b", accelerator="H100", accelerator_count=0),
        a_node("eu/c", accelerator="", accelerator_count=2),
    )

    assert by_node(table, table.pool.gpu) == {"eu/a": False, "eu/b": True, "eu/c": True}


@pytest.mark.parametrize(
    ("node", "health", "code"),
    [
        ({"expired": True, "draining": True}, SICK, Code.LEASE_EXPIRED),
        ({"draining": True}, SICK, Code.DRAINING),
        ({}, replace(SICK, ready=False), Code.NOT_READY),
        ({}, replace(SICK, circuit=OPEN.circuit), Code.UNHEALTHY),
        ({}, replace(OPEN, ejected_until=99.0), Code.CIRCUIT_OPEN),
        ({}, replace(WELL, ejected_until=99.0), Code.EJECTED),
    ],
)
def test_of_several_reasons_the_most_lasting_is_told(node: dict[str, bool], health: object, code: Code) -> None:
    table = a_table(a_node("eu/a", **node), health={"eu/a": health})  # type: ignore[dict-item]

    assert table.pool.status.tolist() == [code.value]


def test_what_nobody_has_told_the_health_of_is_not_ready() -> None:
    table = build_table(a_snapshot(a_node("eu/a")), {}, home_region="eu", now=0.0)

    assert table.pool.status.tolist() == [Code.NOT_READY.value]


def test_a_lease_that_ended_counts_before_its_record_says_so() -> None:
    snapshot = a_snapshot(a_node("eu/a"), a_node("eu/b"))

    table = build_table(snapshot, all_well(snapshot), home_region="eu", now=0.0, expired_nodes=["eu/b"])

    assert by_node(table, table.pool.status) == {"eu/a": 0, "eu/b": Code.LEASE_EXPIRED.value}


def test_an_ejection_ends_with_the_table_after_its_time() -> None:
    ejected = {"eu/a": replace(WELL, ejected_until=10.0)}

    before, after = (a_table(a_node("eu/a"), health=ejected, now=now) for now in (9.9, 10.0))

    assert before.pool.status.tolist() == [Code.EJECTED.value]
    assert after.pool.status.tolist() == [0]


def test_a_table_knows_when_the_first_circuit_will_let_a_trial_through() -> None:
    opened = {
        name: replace(OPEN, circuit=CircuitView(CircuitState.OPEN, retry_at=at))
        for name, at in (("eu/a", 30.0), ("eu/b", 20.0))
    }

    assert a_table(a_node("eu/a"), a_node("eu/b"), a_node("eu/c"), health=opened).retry_at == 20.0
    assert a_table(a_node("eu/a")).retry_at == float("inf")


def test_regions_of_which_nothing_fresh_is_known_are_named() -> None:
    old = replace(WELL, signal_times={"probe": -46.0, "load": -100.0})
    reported = replace(WELL, signal_times={"probe": -46.0, "outcome": 0.0})
    sick = {"us/b": old, "us/c": reported}
    table = a_table(a_node("eu/a"), a_node("us/b"), a_node("us/c"), a_node("ap/d"), health=sick)
    never = build_table(a_snapshot(a_node("eu/a")), {}, home_region="eu", now=0.0)

    assert table.stale_regions == ("us",)
    assert never.stale_regions == ("eu",)


def test_health_laid_over_a_compiled_catalog_leaves_it_as_it_was() -> None:
    snapshot = a_snapshot(a_node("eu/a", [a_deployment(profile=ServingProfile())]))
    compiled = compile_catalog(snapshot)

    sick = build_table(compiled, {f"eu/a/{MODEL}": SICK}, home_region="eu", now=1.0)
    well = build_table(
        compiled, {f"eu/a/{MODEL}": replace(WELL, prefill_seconds_per_token=0.5)}, home_region="eu", now=2.0
    )

    assert sick.pool.status.tolist() == [Code.UNHEALTHY.value]
    assert well.pool.status.tolist() == [0]
    assert well.pool.prefill.tolist() == [0.5]
    assert np.isnan(compiled.pool.prefill[0])
    assert sick.pool.facts is well.pool.facts


def test_an_empty_catalog_makes_an_empty_table() -> None:
    table = a_table(regions=[a_region("eu")])

    assert len(table.pool) == 0
    assert table.stale_regions == ()
