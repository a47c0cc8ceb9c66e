"""CONTRIBUTING.md sends nobody to a file that is not there."""

from __future__ import annotations

import re

from tests.helm.chart import ROOT


def test_every_path_that_it_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    # Of the sample commit message only the form matters.
    text = text[: text.index("## Commits")]

    named = set(re.findall(r"`((?:catalog|policies|federation|protos|helm|tests)/[\w./-]*)`", text))

    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_make_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    named = set(re.findall(r"make ([a-z]+)", re.sub(r"make and", "", (ROOT / "CONTRIBUTING.md").read_text())))

    assert named - {"the"} <= targets
