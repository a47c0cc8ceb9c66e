"""Help is there for every command, and costs nothing but itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer.main
from typer.testing import CliRunner

from federation.cli.main import PROGRAM, app

HEAVY = (
    "grpc",
    "numpy",
    "sqlalchemy",
    "alembic",
    "google.protobuf",
    "aiohttp",
    "pydantic_settings",
    "yaml",
    "rich.live",
)


def commands() -> Iterator[tuple[str, ...]]:
    """Every command's words, groups included."""

    def below(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, each in getattr(command, "commands", {}).items():
            yield from below(each, (*words, name))

    yield from below(typer.main.get_command(app), ())


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...]):
    result = CliRunner().invoke(app, [*words, "--help"], prog_name=PROGRAM)

    assert result.exit_code == 0
    assert " ".join((PROGRAM, *words)) in result.output


def test_the_commands_of_the_design_are_there():
    there = {" ".join(words) for words in commands()}

    wanted = """
        serve demo agent route candidates explain replay outcome fleet health top doctor version completion
        nodes-list nodes-get nodes-register nodes-deregister nodes-drain nodes-undrain nodes-import nodes-eject
        nodes-restore policies-list policies-get policies-put policies-delete policies-history policies-rollback
        policies-preview policies-lint policies-schema
    """
    assert {name.replace("-", " ") for name in wanted.split()} <= there
    assert {
        "models register",
        "regions put",
        "circuits reset",
        "budgets list",
        "peers list",
        "watch catalog",
        "watch fleet",
    } <= there
    assert {"config check", "config show", "db upgrade", "db check", "db current", "deployments drain"} <= there


@pytest.mark.parametrize("arguments", [["--help"], ["route", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]):
    program = (
        "import json, sys\n"
        "from federation.__main__ import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=True
    )

    assert json.loads(ran.stderr) == []


def test_the_exit_codes_stand_in_the_help():
    result = CliRunner().invoke(app, ["--help"], prog_name=PROGRAM)

    assert "8 nothing eligible" in " ".join(result.output.split())


def test_durations_in_help_read_as_they_are_typed():
    result = CliRunner().invoke(app, ["agent", "--help"], prog_name=PROGRAM)

    assert "30s" in result.output
    assert "30.0" not in result.output


def test_completion_scripts_are_printed_for_each_shell():
    for shell in ("bash", "zsh", "fish"):
        ran = subprocess.run(
            [sys.executable, "-m", "federation", "completion", shell],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

        assert "_FAIRWAY_COMPLETE" in ran.stdout
