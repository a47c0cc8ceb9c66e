"""What is wrong with a setting, in words that say what is allowed; patterns of settings stand here, with theirs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic_core import ErrorDetails

ID = r"^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$"
TENANT_POLICY = r"^[^,]+=[a-z0-9]([-a-z0-9._]*[a-z0-9])?$"
WITHHELD = r"^[^@\s]+@[A-Z0-9][-A-Z0-9_]*$"

SHAPES: Mapping[str, str] = MappingProxyType(
    {
        ID: "must be lower-case letters, digits, '-', '.' and '_', with a letter or digit first and last, "
        "as in eu-west-1",
        TENANT_POLICY: "must be TENANT=POLICY, as in acme-*=gold",
        WITHHELD: "must be GLOB@JURISDICTION, as in secret-*@US",
    }
)
WHOLE, NUMBER, TRUTH = "must be a whole number", "must be a number", "must be true or false"
# By pydantic's type of error, with what it tells beside it.
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "greater_than": "must be over {gt:g}",
        "greater_than_equal": "must be {ge:g} or more",
        "less_than": "must be under {lt:g}",
        "less_than_equal": "must be {le:g} or less",
        "finite_number": "must be a finite number",
        "int_type": WHOLE,
        "int_parsing": WHOLE,
        "int_from_float": WHOLE,
        "float_type": NUMBER,
        "float_parsing": NUMBER,
        "bool_type": TRUTH,
        "bool_parsing": TRUTH,
        "string_type": "must be text, in quotes",
        "path_type": "must be a path, in quotes",
        "tuple_type": 'must be a list, as in ["a", "b"]',
        "literal_error": "must be {expected}",
        "string_too_long": "must have at most {max_length} characters",
    }
)


def words(violation: ErrorDetails) -> str:
    """The violation, as the end of a sentence that begins with the setting's name."""
    context = violation.get("ctx", {})
    if violation["type"] == "string_pattern_mismatch":
        return SHAPES[context["pattern"]]
    known = WORDS.get(violation["type"])
    return known.format(**context) if known else violation["msg"].removeprefix("Value error, ")
