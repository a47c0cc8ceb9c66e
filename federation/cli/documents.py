"""Files that people write: TOML, YAML, JSON and JSON lines, and the messages that they describe.

Field names are the API's. Enum values may be given by their own word (`engine: vllm`), durations as they are typed
elsewhere (`lease_duration: 30s`, `250ms`).
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from federation.cli.failure import Failure, usage
from federation.cli.figures import prefix, seconds_of

if TYPE_CHECKING:
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")
STDIN = Path("-")
# Protobuf's own JSON form of these is a text; all other messages are mappings.
TEXT_MESSAGES = frozenset({"google.protobuf.Timestamp", "google.protobuf.FieldMask"})


def read_text(path: Path) -> str:
    """The file's text; `-` is stdin. Raises Failure (usage)."""
    try:
        return sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise usage(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise usage(f"cannot read {path}: {error.strerror}") from error


def load(path: Path) -> Any:
    """The values of a file, by its suffix; stdin may be JSON, YAML or TOML. Raises Failure (usage)."""
    text = read_text(path)
    match path.suffix.lower():
        case ".toml":
            return _parsed(path, text, "TOML")
        case ".json":
            return _parsed(path, text, "JSON")
        case ".yaml" | ".yml":
            return _parsed(path, text, "YAML")
        case ".jsonl" | ".ndjson":
            return list(lines(path, text))
        case _ if path == STDIN:
            return _guessed(path, text)
    raise usage(f"{path} has no known suffix: name it .toml, .yaml, .yml, .json or .jsonl")


def load_mapping(path: Path) -> dict[str, Any]:
    """The same where one document is meant. Raises Failure (usage)."""
    value = load(path)
    if not isinstance(value, dict):
        raise usage(f"{path} must hold one document with fields, not {_kind(value)}")
    return value


def lines(path: Path, text: str) -> Iterator[Any]:
    """The values of JSON lines; empty lines count for nothing. Raises Failure (usage) with the line's number."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise usage(f"{path} line {number} is not JSON: {error.msg} at column {error.colno}") from error


def _parsed(path: Path, text: str, form: str) -> Any:
    import yaml

    try:
        match form:
            case "TOML":
                return tomllib.loads(text)
            case "JSON":
                return json.loads(text)
            case _:
                return yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise usage(f"{path} is not {form}: {error}") from error


def _guessed(path: Path, text: str) -> Any:
    """JSON lines and JSON tell themselves by their first sign; `a = 1` is a plain word to YAML and a key to TOML."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return list(lines(path, text))
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return _parsed(path, text, "YAML")


def fill(message: M, values: dict[str, Any], source: str) -> M:
    """The message with the document's fields. Raises Failure (usage) with every violation and its path."""
    from google.protobuf.json_format import ParseDict, ParseError

    violations: list[str] = []
    ready = _message_values(message.DESCRIPTOR, values, "", violations)
    if not violations:
        try:
            return ParseDict(ready, message)
        except ParseError as error:
            violations.append(str(error))
    name = message.DESCRIPTOR.name
    raise usage(f"{source} does not describe a {name}", details=violations)


def _message_values(descriptor: Any, values: Any, path: str, violations: list[str]) -> Any:
    if not isinstance(values, dict):
        violations.append(f"{path or descriptor.name}: must be a mapping with fields, not {_kind(values)}")
        return values
    fields = {field.name: field for field in descriptor.fields}
    ready = {}
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        field = fields.get(key)
        if field is None:
            near = get_close_matches(str(key), fields, n=1)
            violations.append(
                f"{where}: no such field; " + (f"did you mean {near[0]}?" if near else f"one of {', '.join(fields)}")
            )
        elif value is not None:
            ready[key] = _field_values(field, value, where, violations)
    return ready


def _field_values(field: Any, value: Any, where: str, violations: list[str]) -> Any:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        if not isinstance(value, dict):
            violations.append(f"{where}: must be a mapping, not {_kind(value)}")
            return value
        inner = kind.fields_by_name["value"]
        return {str(key): _single(inner, each, f"{where}.{key}", violations) for key, each in value.items()}
    if field.is_repeated:
        if not isinstance(value, list):
            violations.append(f"{where}: must be a list, not {_kind(value)}")
            return value
        return [_single(field, each, f"{where}[{index}]", violations) for index, each in enumerate(value)]
    return _single(field, value, where, violations)


def _single(field: Any, value: Any, where: str, violations: list[str]) -> Any:
    if field.enum_type is not None:
        return _enum_value(field.enum_type, value, where, violations)
    kind = field.message_type
    if kind is None:
        return value
    if kind.full_name == "google.protobuf.Duration":
        return _duration_value(value, where, violations)
    return value if kind.full_name in TEXT_MESSAGES else _message_values(kind, value, where, violations)


def _enum_value(kind: Any, value: Any, where: str, violations: list[str]) -> Any:
    start = prefix(kind)
    if isinstance(value, str):
        full = value if value.startswith(start) else start + value.upper().replace("-", "_")
        if full in kind.values_by_name:
            return full
    words = ", ".join(each.name.removeprefix(start).lower() for each in kind.values if each.number)
    violations.append(f"{where}: {value!r} is not one of {words}")
    return value


def _duration_value(value: Any, where: str, violations: list[str]) -> Any:
    try:
        # Protobuf's own form ends in `s` as well, and may have nine digits.
        return f"{seconds_of(str(value)):.9f}s"
    except ValueError as error:
        violations.append(f"{where}: {error}")
        return value


def _kind(value: Any) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
    return f"{type(value).__name__} {value!r}"


def enum_number(kind: Any, text: str, option: str) -> int:
    """The number of an enum's word that was typed for an option. Raises Failure (usage)."""
    violations: list[str] = []
    name = _enum_value(kind, text, option, violations)
    if violations:
        raise usage(violations[0])
    return int(kind.values_by_name[name].number)


def node_request(values: Any, source: str) -> Any:
    """A RegisterNodeRequest of a node with its deployments inside, or of the request's own shape. Raises Failure.

    What only the server sets is left out, so that what `nodes get -o yaml` printed can be edited and registered.
    """
    from federation.v1.catalog_pb2 import RegisterNodeRequest

    if not isinstance(values, dict):
        raise usage(f"{source} must be a node with fields, not {_kind(values)}")
    request = RegisterNodeRequest()
    fill(request, values if "node" in values else {"node": values}, source)
    request.deployments.extend(request.node.deployments)
    forget(request.node, "deployments", "draining", "lease_expired", "owner", "generation", "revision", "create_time")
    return request


def forget(message: Message, *fields: str) -> None:
    """Clears fields that only the server sets."""
    for field in fields:
        message.ClearField(field)


def node_documents(path: Path) -> list[Any]:
    """The nodes of a file: JSON lines, a list, or a mapping with `nodes`. Raises Failure (usage)."""
    value = load(path)
    if isinstance(value, dict):
        value = value.get("nodes", [value])
    if not isinstance(value, list):
        raise usage(f"{path} must hold a list of nodes, or a mapping with `nodes`, not {_kind(value)}")
    return value


def attempt(values: Any, source: str) -> Any:
    """`node_request`, with a failure as its value: an import goes on after it where it was told to."""
    try:
        return node_request(values, source)
    except Failure as failure:
        return failure
