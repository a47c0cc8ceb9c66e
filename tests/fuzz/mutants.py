"""Messages that nobody should send: bytes that are none, and messages that are well-formed and odd.

A `Mutator` draws from a seed, so that a mutant that broke something can be had again. It knows names that exist
(`words`, by field), so that mutants come further than the first look-up.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

ODD_DOUBLES = (math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, 1.7e308, -1.0, 2.0**63, 1e-9, 101.0)
ODD_INT32 = (0, -1, 1, 2**31 - 1, -(2**31), 17, 1001)
ODD_INT64 = (0, -1, 1, 2**63 - 1, -(2**63), 2**53 + 1, 315_576_000_001)
ODD_UINT64 = (0, 1, 2**64 - 1, 2**63)
ODD_STRINGS = (
    "",
    " ",
    "\0",
    "a\0b",
    "x" * 64,
    "x" * 70_000,
    "é" * 300,
    "\u202e\u0000\uffff",
    "😀" * 40,
    "%s%n{0}{}",
    "'; DROP TABLE nodes; --",
    "../../etc/passwd",
    "*",
    "/",
    "a/b/c/d",
    "-",
    "NaN",
    "custom:",
    "[" * 3_000,
    '{"weights": {"latency": 1e999}}',
    '{"rules": [{"match": {"expression": "' + "(" * 400 + '"}}]}',
    "http://",
    "http://[::1",
    "grpc://127.0.0.1:99999",
    "http://127.0.0.1:9/../x?y#z",
)
# Wire types: varint, eight bytes, length-delimited, start and end of a group, four bytes; and two that are none.
WIRE_TYPES = range(8)
# Below what gRPC itself refuses.
MAX_BYTES = 4_000_000
# What a repeated field holds at times; over every bound of ours, and far below the message limit.
MANY = 1_500


class Mutator:
    """Mutants of requests; `seeds` are good requests, as bytes, by the name of their message."""

    def __init__(self, rng: Random, seeds: Mapping[str, Sequence[bytes]], words: Mapping[str, Sequence[str]]) -> None:
        self._rng = rng
        self._seeds = seeds
        self._words = words
        self._kinds: tuple[tuple[int, Callable[[Descriptor], bytes]], ...] = (
            (4, self._odd),
            (4, self._nearly_good),
            (5, self._damaged),
            (1, self._noise),
            (1, self._deep),
        )

    def mutant(self, request: Descriptor) -> bytes:
        """One mutant of a request."""
        weights = [weight for weight, _ in self._kinds]
        ((_, make),) = self._rng.choices(self._kinds, weights)
        return make(request)[:MAX_BYTES]

    # Well-formed and odd.

    def _odd(self, request: Descriptor) -> bytes:
        return self._message(request, depth=0).SerializeToString()

    def _nearly_good(self, request: Descriptor) -> bytes:
        """A good request with a field or two replaced."""
        message = GetMessageClass(request)()
        message.MergeFromString(self._good(request))
        for _ in range(self._rng.randint(1, 2)):
            self._replace_one(message)
        return message.SerializeToString()

    def _good(self, request: Descriptor) -> bytes:
        seeds = self._seeds.get(request.full_name, ())
        return self._rng.choice(seeds) if seeds else self._message(request, depth=0).SerializeToString()

    def _replace_one(self, message: Message) -> None:
        """Goes down into what is set, and replaces a field somewhere."""
        while True:
            inner = [
                value if not field.is_repeated else self._rng.choice(value)
                for field, value in message.ListFields()
                if field.message_type is not None and not _is_map(field) and value
            ]
            if not inner or self._rng.random() < 0.4:
                break
            message = self._rng.choice(inner)
        fields = message.DESCRIPTOR.fields
        if fields:
            field = self._rng.choice(fields)
            message.ClearField(field.name)
            self._fill(message, field, depth=2)

    def _message(self, descriptor: Descriptor, depth: int) -> Message:
        message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            # Deeper messages are drawn more rarely, so that their number stays small.
            if self._rng.random() < (0.6 if depth == 0 else 0.45 / depth):
                self._fill(message, field, depth)
        return message

    def _fill(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        held: Any = message
        if _is_map(field):
            key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            entries = getattr(held, field.name)
            for _ in range(self._rng.choice((1, 1, 3, 100))):
                if value.message_type is not None:
                    entries[self._scalar(key)].CopyFrom(self._message(value.message_type, depth + 1))
                else:
                    entries[self._scalar(key)] = self._scalar(value)
        elif field.is_repeated:
            count = self._rng.choice((0, 1, 1, 2, 3)) if self._rng.random() < 0.97 else MANY
            made = [self._item(field, depth) for _ in range(min(count, 3))]
            # One of them, over and over, where that is no megabyte.
            repeats = count - len(made) if made and len(str(made[-1])) < 100 else 0
            getattr(held, field.name).extend(made + made[-1:] * repeats)
        elif field.message_type is not None:
            getattr(held, field.name).CopyFrom(self._message(field.message_type, depth + 1))
            getattr(held, field.name).SetInParent()
        else:
            setattr(held, field.name, self._scalar(field))

    def _item(self, field: FieldDescriptor, depth: int) -> Any:
        return self._scalar(field) if field.message_type is None else self._message(field.message_type, depth + 1)

    def _scalar(self, field: FieldDescriptor) -> Any:
        rng = self._rng
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING:
                known = self._words.get(field.name, ())
                if field.type == FieldDescriptor.TYPE_BYTES:
                    return rng.randbytes(rng.randint(0, 40))
                return rng.choice(known) if known and rng.random() < 0.7 else rng.choice(ODD_STRINGS)
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return rng.choice(ODD_DOUBLES)
            case FieldDescriptor.CPPTYPE_INT32:
                return rng.choice(ODD_INT32)
            case FieldDescriptor.CPPTYPE_INT64:
                return rng.choice(ODD_INT64)
            case FieldDescriptor.CPPTYPE_UINT32:
                return rng.choice((0, 1, 2**32 - 1))
            case FieldDescriptor.CPPTYPE_UINT64:
                return rng.choice(ODD_UINT64)
            case FieldDescriptor.CPPTYPE_BOOL:
                return rng.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                known = [each.number for each in field.enum_type.values]
                return rng.choice(known) if rng.random() < 0.7 else rng.choice((-1, 99, 2**31 - 1))
        raise AssertionError(field.full_name)

    # Bytes that are no message, or another one than was meant.

    def _damaged(self, request: Descriptor) -> bytes:
        data = bytearray(self._good(request))
        for _ in range(self._rng.randint(1, 4)):
            self._damage(data)
        return bytes(data)

    def _damage(self, data: bytearray) -> None:
        rng = self._rng
        at = rng.randint(0, len(data))
        match rng.randrange(9):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + rng.randint(1, 8)]
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 64)]
            case 4:
                data[at:at] = rng.randbytes(rng.randint(1, 16))
            case 5:
                # A varint of ten bytes and more; as a length, it is larger than all that there is.
                data[at:at] = b"\xff" * rng.randint(1, 12) + b"\x01"
            case 6:
                # A field with a wire type of chance.
                tag = (rng.choice((1, 2, 3, 15, 16, 2**29 - 1)) << 3) | rng.choice(WIRE_TYPES)
                data[at:at] = _varint(tag) + rng.randbytes(rng.randint(0, 4))
            case 7:
                # A string that is no UTF-8.
                data += _varint((rng.randint(1, 16) << 3) | 2) + b"\x03\xff\xfe\xc0"
            case _:
                data += struct.pack("<d", rng.choice(ODD_DOUBLES))

    def _noise(self, request: Descriptor) -> bytes:
        return self._rng.randbytes(self._rng.choice((0, 1, 3, 17, 200, 5_000)))

    def _deep(self, request: Descriptor) -> bytes:
        """Messages or groups within each other, far deeper than any of ours."""
        depth = self._rng.choice((50, 101, 2_000, 20_000))
        number = self._rng.choice((1, 2, 10, 12, 500))
        if self._rng.random() < 0.5:
            return _varint((number << 3) | 3) * depth
        nested = b""
        for _ in range(min(depth, 2_000)):
            nested = _varint((number << 3) | 2) + _varint(len(nested)) + nested
        return nested


def is_message(request: Descriptor, data: bytes) -> bool:
    """Whether bytes are a message of this kind; whatever its fields say."""
    try:
        GetMessageClass(request).FromString(data)
    except DecodeError:
        return False
    return True


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
