"""Pages: everything once, tokens that fit one list only, and messages that do not outgrow a client."""

from __future__ import annotations

import pytest

from federation.api import pages
from federation.api.errors import InvalidFields
from federation.v1 import types_pb2


def a_list(count: int) -> list[tuple[str, str]]:
    return [(f"{index:04}", f"{index:04}") for index in range(count)]


def a_model(name: str) -> types_pb2.Model:
    return types_pb2.Model(model_id=name)


def test_a_page_without_a_size_holds_a_hundred() -> None:
    page, token = pages.page(a_list(101), ("x",), 0, a_model)

    assert len(page) == 100
    assert pages.position(("x",), token) == "0099"


def test_a_page_that_ends_with_the_list_has_no_token() -> None:
    assert pages.page(a_list(100), ("x",), 100, a_model)[1] == ""
    assert pages.page([], ("x",), 10, a_model) == ([], "")


def test_a_page_ends_before_it_outgrows_a_message() -> None:
    def large(name: str) -> types_pb2.Model:
        return types_pb2.Model(model_id=name, family="x" * 1_000_000)

    page, token = pages.page(a_list(10), ("x",), 1_000, large)

    assert len(page) == 3
    assert pages.position(("x",), token) == "0002"


@pytest.mark.parametrize(
    "token", ["guess", "AAAA", "é", "=", " ", pages.token(("y",), "a"), pages.token(("x", ""), "a")]
)
def test_a_token_that_was_not_made_for_this_list_is_refused(token: str) -> None:
    with pytest.raises(InvalidFields, match="start again without page_token"):
        pages.position(("x",), token)


def test_a_position_of_any_letters_comes_back() -> None:
    for position in ("a", "ü/é", "x" * 400):
        assert pages.position(("x", "filter"), pages.token(("x", "filter"), position)) == position
