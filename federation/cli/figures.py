"""Numbers as people read and type them: durations, ages, money, shares, names of enum values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message

UNKNOWN = "-"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION = re.compile(r"^([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(ms|s|m|h|d)$")


def seconds_of(text: str) -> float:
    """Seconds of "250ms", "2s", "1.5m", "1h"; a bare 0 is fine. Raises ValueError for anything else."""
    typed = text.strip()
    if typed == "0":
        return 0.0
    match = DURATION.match(typed)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write a number with ms, s, m, h or d, as in 250ms, 2s or 1m")
    return float(match[1]) * UNITS[match[2]]


def duration(seconds: float | None) -> str:
    """Two or three digits and a unit: "180 ms", "4.2 s", "12 m"."""
    if seconds is None:
        return UNKNOWN
    size = abs(seconds)
    if size == 0:
        return "0 s"
    if size < 0.00995:
        return f"{seconds * 1000:.2g} ms"
    if size < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if size < 9.95:
        return f"{seconds:.2g} s"
    if size < 99.5:
        return f"{seconds:.0f} s"
    if size < 90 * 60:
        return f"{seconds / 60:.0f} m"
    if size < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} d"


def span(message: Message, field: str) -> float | None:
    """Seconds of a Duration field; None where it is absent, which is unknown and never zero."""
    if not message.HasField(field):
        return None
    return seconds_in(getattr(message, field))


def seconds_in(value: Duration) -> float:
    """Seconds of a Duration."""
    return value.seconds + value.nanos * 1e-9


def optional(message: Message, field: str) -> Any:
    """A field's value; None where it is absent."""
    return getattr(message, field) if message.HasField(field) else None


def money(usd: float | None) -> str:
    """US dollars with the digits that matter: requests cost fractions of a cent."""
    if usd is None:
        return UNKNOWN
    if usd == 0:
        return "$0"
    if abs(usd) >= 1:
        return f"${usd:,.2f}"
    return f"${usd:.4f}" if abs(usd) >= 0.00095 else f"${usd:.2g}"


def share(ratio: float | None) -> str:
    """A ratio as per cent."""
    if ratio is None:
        return UNKNOWN
    percent = ratio * 100
    return f"{percent:.1f}%" if 0 < percent < 9.95 else f"{percent:.0f}%"


def count(number: float | None) -> str:
    """A number with thousands set apart."""
    if number is None:
        return UNKNOWN
    return f"{number:,.0f}" if abs(number) >= 10 or number == int(number) else f"{number:.1f}"


def quantity(value: float | None, unit: str) -> str:
    """A measured value in the unit that its term names."""
    if value is None:
        return "unknown"
    match unit:
        case "s":
            return duration(value)
        case "ms":
            return duration(value / 1000)
        case "USD":
            return money(value)
        case "tokens/s" | "token/s" | "tok/s":
            return f"{count(value)} tok/s"
        case "":
            return f"{value:.3g}"
        case _:
            return f"{value:.3g} {unit}"


def word(descriptor: Any, number: int) -> str:
    """An enum value's own word in lower case ("HEALTH_STATE_HALF_OPEN": "half_open"); empty where it is unset."""
    value = descriptor.values_by_number.get(number)
    if value is None:
        return str(number)
    text = str(value.name.removeprefix(prefix(descriptor)).lower())
    return "" if text == "unspecified" else text


def prefix(descriptor: Any) -> str:
    """What every value of an enum starts with ("HEALTH_STATE_"): its name in upper snake."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", descriptor.name).upper() + "_"


def enum_word(message: Message, field: str) -> str:
    """The word of an enum field."""
    descriptor = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert descriptor is not None, field
    return word(descriptor, getattr(message, field))
