"""Reads the Dockerfile, for the tests beside this file."""

from __future__ import annotations

import re
import shlex

from tests.helm.chart import ROOT


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its argument, continued lines joined, comments gone."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, argument in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, argument))
    return found


BUILD, RUNTIME = stages()


def the(instruction: str) -> str:
    """The only such instruction of the image that runs."""
    (argument,) = (argument for name, argument in RUNTIME if name == instruction)
    return argument


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(the("ENV")))
