"""The tables that people stare at, as a terminal of 100 columns shows them, against `cli_tables.txt`.

To change them on purpose: `REWRITE=1 pytest tests/federation/cli/test_cli_tables.py`, and read the diff.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from cli_canned import DECISION_ID, LLAMA, NODES
from conftest import Run
from google.protobuf.json_format import ParseDict
from rich.cells import cell_len

from federation.cli.why import term_rows
from federation.v1 import catalog_pb2, fleet_pb2, routing_pb2

GOLDEN = Path(__file__).with_name("cli_tables.txt")
PROMPT = "$ fairway "


def blocks() -> Iterator[tuple[str, str]]:
    """Each command of the file with what it prints."""
    lines = GOLDEN.read_text(encoding="utf-8").splitlines(keepends=True)
    starts = [index for index, line in enumerate(lines) if line.startswith(PROMPT)]
    for start, end in pairwise([*starts, len(lines)]):
        yield lines[start].removeprefix(PROMPT).rstrip("\n"), "".join(lines[start + 1 : end]).rstrip("\n") + "\n"


def test_every_table_reads_as_it_should(run: Run):
    printed = {command: run(command) for command, _ in blocks()}

    assert {command: result.exit_code for command, result in printed.items() if result.exit_code} == {}
    told = "\n".join(f"{PROMPT}{command}\n{result.stdout}" for command, result in printed.items())
    if os.environ.get("REWRITE"):
        GOLDEN.write_text(told, encoding="utf-8")
    assert told == GOLDEN.read_text(encoding="utf-8")


def test_no_table_is_wider_than_the_terminal_or_ends_its_lines_in_blanks():
    for command, text in blocks():
        for line in text.splitlines():
            assert cell_len(line) <= 100, (command, line)
            assert line == line.rstrip(), (command, line)


def test_off_a_terminal_rows_are_whole_lines(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COLUMNS")

    result = run("nodes", "list", "-o", "wide")

    rows = result.stdout.splitlines()
    assert len(rows) == 1 + len(NODES)
    assert "team=search,tier=gold" in rows[1]


def test_a_narrow_terminal_loses_columns_and_no_names(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")

    result = run("candidates", "--model", LLAMA)

    assert "eu-central-1/gpu-2" in result.stdout
    assert "0.977" in result.stdout
    assert "█" not in result.stdout
    assert all(cell_len(line) <= 80 for line in result.stdout.splitlines())


@pytest.mark.parametrize("variable", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}])
def test_colours_are_for_terminals_that_want_them(run: Run, monkeypatch: pytest.MonkeyPatch, variable: dict[str, str]):
    for name, value in variable.items():
        monkeypatch.setenv(name, value)

    plain = run("fleet").stdout

    # Bold may stay where colours are not wanted; 30 to 37 and 90 to 97 are the colours.
    assert not any(f"\x1b[{code}" in plain for code in (*range(30, 38), *range(90, 98)))


def test_a_terminal_gets_colours(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    assert "\x1b[" in run("fleet").stdout


def test_a_list_as_json_is_one_message_of_the_api_with_all_pages(run: Run):
    told = json.loads(run("nodes", "list", "-o", "json").stdout)

    message = ParseDict(told, catalog_pb2.ListNodesResponse())
    assert list(message.nodes) == list(NODES)
    assert message.revision == 57
    assert not message.next_page_token


def test_a_list_as_yaml_holds_the_same(run: Run):
    told = yaml.safe_load(run("nodes", "list", "-o", "yaml").stdout)

    assert list(ParseDict(told, catalog_pb2.ListNodesResponse()).nodes) == list(NODES)


@pytest.mark.parametrize(
    "command",
    [
        "models list",
        "deployments list",
        "regions list",
        "policies list",
        "circuits list",
        "budgets list",
        "health",
        "peers list",
        "candidates -m x",
    ],
)
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_every_list_can_be_one_message(run: Run, command: str, form: str):
    result = run(command, "-o", form)

    assert result.exit_code == 0, result.exception
    assert len(yaml.safe_load(result.stdout)) >= 1


def test_json_lines_hold_one_item_each(run: Run):
    lines = run("nodes", "list", "-o", "jsonl").stdout.splitlines()

    assert [json.loads(line)["node_id"] for line in lines] == [node.node_id for node in NODES]


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("models list", [LLAMA, "qwen2.5-72b"]),
        ("nodes list --region eu-west-1", ["eu-west-1/gpu-7", "eu-west-1/gpu-8"]),
        ("deployments list --limit 1", [f"ap-northeast-1/gpu-1/{LLAMA}"]),
        ("regions list --limit 2", ["ap-northeast-1", "eu-west-1"]),
        ("policies list", ["balanced", "eu-only"]),
        ("circuits list --tripped", [f"ap-northeast-1/gpu-1/{LLAMA}"]),
        ("peers list", ["eu-west-1.0b6c2d91", "us-east-1", "ap.example:50051"]),
        ("fleet", ["ap-northeast-1", "eu-west-1", "us-east-1"]),
        ("health --limit 3", ["ap-northeast-1/gpu-1", "eu-west-1/gpu-7", "eu-west-1/gpu-8"]),
        ("route -m x", [f"eu-west-1/gpu-7/{LLAMA}"]),
        (f"explain {DECISION_ID}", [f"eu-west-1/gpu-7/{LLAMA}", f"eu-central-1/gpu-2/{LLAMA}"]),
    ],
)
def test_names_come_one_a_line_and_nothing_else(run: Run, command: str, names: list[str]):
    assert run(command, "-o", "name").stdout.splitlines() == names


def test_the_options_may_stand_before_the_command_and_those_after_it_go_first(run: Run):
    before = run("-o", "name", "models", "list")
    after = run("-o", "json", "models", "list", "-o", "name")

    assert before.stdout == after.stdout == f"{LLAMA}\nqwen2.5-72b\n"


def test_explain_as_json_is_the_answer_of_the_call(run: Run):
    told = json.loads(run("explain", DECISION_ID, "-o", "json").stdout)

    message = ParseDict(told, routing_pb2.GetDecisionResponse())
    assert message.decision.decision_id == DECISION_ID
    assert len(message.decision.candidates) == 4


def test_terms_that_do_not_add_up_are_told():
    rows = list(
        term_rows(
            routing_pb2.Candidate(terms=[routing_pb2.Term(name="cost", weight=1, contribution=0.5)], total=0.9),
            "1",
            "a",
            "",
            True,
        )
    )

    assert "the terms add up to 0.5000" in str(rows[-1][-1])


def test_zero_available_deployments_are_written_into_json(run: Run):
    told = json.loads(run("fleet", "-o", "json").stdout)

    assert told["regions"][0]["available_deployments"] == 0
    ParseDict(told, fleet_pb2.GetFleetResponse())
