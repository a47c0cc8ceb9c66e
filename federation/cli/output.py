"""The answer on stdout, in the form that -o asks for: JSON is protobuf JSON with the API's field names."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from federation.cli.figures import duration, seconds_in, word
from federation.cli.options import Format
from federation.cli.table import Column, rows_of, show

if TYPE_CHECKING:
    from google.protobuf.message import Message


def plain(message: Message) -> Any:
    """The message as JSON values. Numbers that may be unknown are left out where they are; a zero is written."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def plain_set(message: Message) -> dict[str, Any]:
    """Only the fields that are set, as JSON values."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: Any) -> None:
    """One line, sent at once: somebody may be reading along."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def print_yaml(value: Any) -> None:
    import yaml

    yaml.safe_dump(value, sys.stdout, sort_keys=False, allow_unicode=True, width=100)


def print_data(value: Any, form: Format) -> bool:
    """Prints plain values as JSON or YAML; false where the form is for people or for names."""
    match form:
        case Format.JSON:
            print_json(value)
        case Format.JSONL:
            print_json_line(value)
        case Format.YAML:
            print_yaml(value)
        case _:
            return False
    return True


def print_lines(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def answer(message: Message, form: Format, *, names: Sequence[str], people: Callable[[bool], None]) -> None:
    """Prints one message; `people` prints it for people and is told whether widely."""
    if form in (Format.TABLE, Format.WIDE):
        people(form is Format.WIDE)
    elif form is Format.NAME:
        print_lines(names)
    else:
        print_data(plain(message), form)


def listing(
    pages: Iterator[Any], field: str, form: Format, columns: Sequence[Column], name: Callable[[Any], str]
) -> None:
    """Prints the items of a paged list. `json` and `yaml` are one message with all items, `jsonl` one item a line."""
    match form:
        case Format.NAME:
            for page in pages:
                print_lines(name(each) for each in getattr(page, field))
        case Format.JSONL:
            for page in pages:
                for each in getattr(page, field):
                    print_json_line(plain(each))
        case Format.JSON | Format.YAML:
            print_data(plain(_joined(pages, field)), form)
        case _:
            rows = [each for page in pages for each in getattr(page, field)]
            wide = form is Format.WIDE
            show(rows_of(columns, rows, wide=wide), wide=wide)


def _joined(pages: Iterator[Any], field: str) -> Any:
    """The first page with the items of all others."""
    whole: Any = next(pages)
    for page in pages:
        getattr(whole, field).extend(getattr(page, field))
    if "next_page_token" in whole.DESCRIPTOR.fields_by_name:
        # All that was asked for is here; where the next page would start is of no use to anybody.
        whole.next_page_token = ""
    return whole


def written(message: Message, form: Format, name: str, verb: str) -> None:
    """Prints what a write stored: one sentence for people, the resource for programs."""
    revision = getattr(message, "revision", 0)
    etag = getattr(message, "etag", "")
    marks = ", ".join(
        mark for mark in (f"revision {revision}" if revision else "", f"etag {etag}" if etag else "") if mark
    )
    answer(
        message,
        form,
        names=[name],
        people=lambda wide: print_lines([f"{verb} {name}" + (f"  ({marks})" if marks else "")]),
    )


def detail(message: Message, form: Format, name: str) -> None:
    """Prints one resource; for people field by field, without what is not set."""
    answer(message, form, names=[name], people=lambda wide: print_lines(_fields(message, "")))


def _fields(message: Any, indent: str) -> Iterator[str]:
    """The fields that are set, a line each; messages within are indented below their field's name."""
    set_fields = message.ListFields()
    width = max((len(field.name) for field, _ in set_fields), default=0)
    for field, value in set_fields:
        nested = field.message_type is not None and field.message_type.full_name not in TOLD_IN_A_LINE
        if nested and field.message_type.GetOptions().map_entry:
            yield f"{indent}{field.name}"
            inner = field.message_type.fields_by_name["value"]
            yield from (f"{indent}  {key}  {_told(inner, value[key])}" for key in sorted(value))
        elif nested:
            for each in value if field.is_repeated else [value]:
                yield f"{indent}{field.name}"
                yield from _fields(each, indent + "  ")
        else:
            told = ", ".join(_told(field, each) for each in value) if field.is_repeated else _told(field, value)
            yield f"{indent}{field.name:<{width}}  {told}"


TOLD_IN_A_LINE = frozenset({"google.protobuf.Duration", "google.protobuf.Timestamp"})


def _told(field: Any, value: Any) -> str:
    """One value as people read it."""
    if field.enum_type is not None:
        return word(field.enum_type, value)
    if field.message_type is None:
        return str(value)
    if field.message_type.full_name == "google.protobuf.Duration":
        return duration(seconds_in(value))
    return str(value.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC"))
