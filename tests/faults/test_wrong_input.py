"""Wrong input by hand: which status it gets, which field is named, and words that help whoever reads them at night."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from federation.v1 import catalog_pb2, policy_pb2, types_pb2
from tests.faults.wrong_requests import ROWS, URL, Row
from tests.federation.server import Running, failing, running, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("one_loop")]


@pytest.fixture(scope="module")
async def fairway(one_loop: None) -> AsyncIterator[Running]:
    """One server for all rows: what is refused changes nothing."""
    async with running({"region.id": "local"}) as server:
        await server.register("local", "taken", URL, "llama")
        model = types_pb2.Model(model_id="known", aliases=["nickname"])
        await server.catalog.RegisterModel(catalog_pb2.RegisterModelRequest(model=model))
        await server.policy.PutPolicy(policy_pb2.PutPolicyRequest(policy={"policy_id": "mine", "document_json": "{}"}))
        for number in range(3):
            await server.catalog.PutRegion(catalog_pb2.PutRegionRequest(region={"region_id": f"r{number}"}))
        # Routing follows the catalog by a tenth of a second.
        await until(lambda: server.plane.router.table.revision == server.plane.feed.revision)
        yield server


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_wrong_input_is_answered_with(fairway: Running, row: Row) -> None:
    failure = await failing(row.call(fairway))
    print(f"{row.name}\n    {failure.code.name}/{failure.reason}: {failure.message}")

    assert (failure.code, failure.reason, failure.domain) == (row.code, row.reason, "federation.v1")
    assert not [word for word in row.says if word not in failure.message], failure.message
    told = {path: words for path, words in failure.violations.items() if path}
    assert set(told) == set(row.fields)
    for path, words in row.fields.items():
        assert not [word for word in words if word not in told[path]], told[path]
        assert path in failure.message
    assert {key: failure.metadata.get(key) for key in row.metadata} == row.metadata
