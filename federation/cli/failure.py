"""How a command fails: its exit code, and the few lines that say what happened and what to do next."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType

NOTHING: Mapping[str, str] = MappingProxyType({})


class ExitCode(IntEnum):
    """What scripts branch on; part of the command line's contract."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    DENIED = 5
    CONFLICT = 6
    CHECK_FAILED = 7
    NOTHING_ELIGIBLE = 8


class Failure(Exception):
    """An expected end of a command that is not success.

    `reason` is a constant of the API or empty; `metadata` is what came with it; `details` are further lines (field
    violations); `hint` says what to do next.
    """

    def __init__(
        self,
        message: str,
        code: ExitCode,
        *,
        reason: str = "",
        details: Sequence[str] = (),
        hint: str = "",
        metadata: Mapping[str, str] = NOTHING,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.details = tuple(details)
        self.hint = hint
        self.metadata = metadata


def usage(message: str, *, details: Sequence[str] = (), hint: str = "") -> Failure:
    """What was typed, or what stands in a file, cannot be meant."""
    return Failure(message, ExitCode.USAGE, details=details, hint=hint)


def report(failure: Failure) -> None:
    """Writes the failure to stderr; colour only on a terminal that wants it."""
    reason = f" ({failure.reason})" if failure.reason else ""
    note(f"{_label('error:', '1;31')} {failure.message}{reason}")
    for detail in failure.details:
        note(f"  {detail}")
    if failure.hint:
        note(f"{_label('next:', '1;36')} {failure.hint}")


def note(text: str) -> None:
    """A remark for people, on stderr: it never mixes with the answer."""
    sys.stderr.write(f"{text}\n")


def _label(text: str, colour: str) -> str:
    """Plain ANSI rather than rich: an error is the last thing that should wait for an import."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"
