"""What works without a server: documents, settings, databases, decision logs."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import yaml
from conftest import Run

from catalog.sql import schema
from federation.cli.failure import ExitCode


@pytest.fixture(autouse=True)
def nobody_to_ask(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server: what asks one all the same fails."""
    monkeypatch.setenv("FAIRWAY_SERVER", "127.0.0.1:1")


def test_good_documents_pass_the_lint(run: Run, tmp_path: Path):
    (tmp_path / "a.toml").write_text('picker = "best"\n[weights]\nhealth = 3\n')
    (tmp_path / "b.yaml").write_text("min_score: 0.2\n")

    result = run("policies lint", str(tmp_path / "a.toml"), str(tmp_path / "b.yaml"))

    assert (result.exit_code, result.stdout) == (0, f"ok    {tmp_path}/a.toml\nok    {tmp_path}/b.yaml\n")


def test_the_lint_tells_every_violation_of_every_document(run: Run, tmp_path: Path):
    (tmp_path / "a.toml").write_text('pikcer = "best"\nmin_score = 7\n')
    (tmp_path / "b.json").write_text("{}")

    result = run("policies lint", str(tmp_path / "a.toml"), str(tmp_path / "b.json"))

    assert result.exit_code == ExitCode.CHECK_FAILED
    assert f"FAIL  {tmp_path}/a.toml" in result.stdout
    assert "pikcer: " in result.stdout
    assert "min_score: " in result.stdout
    assert f"ok    {tmp_path}/b.json" in result.stdout
    assert "1 of 2 documents cannot be used" in result.stderr


def test_the_lint_speaks_json(run: Run, tmp_path: Path):
    (tmp_path / "a.toml").write_text("min_score = 7\n")

    result = run("policies lint -o json", str(tmp_path / "a.toml"))

    (found,) = json.loads(result.stdout)["files"]
    assert not found["ok"]
    assert found["violations"][0]["path"] == "min_score"


def test_the_schema_is_json_schema_and_names_the_fields(run: Run):
    schema_document = json.loads(run("policies schema").stdout)

    assert {"weights", "picker", "min_score"} <= schema_document["properties"].keys()


def test_a_configuration_is_checked(run: Run, tmp_path: Path):
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('[region]\nid = "eu-west-1"\n')
    bad.write_text("[server]\nwrokers = 2\n")

    passed, failed = run("config check --config", str(good)), run("config check --config", str(bad))

    assert (passed.exit_code, passed.stdout) == (0, f"ok  {good}  (1 settings are not defaults)\n")
    assert failed.exit_code == ExitCode.CHECK_FAILED
    assert "server.wrokers" in failed.stderr
    assert "did you mean server.workers?" in failed.stderr


def test_settings_are_shown_with_their_origin_and_without_secrets(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "f.toml").write_text(
        '[region]\nid = "eu-west-1"\n[store]\nurl = "postgresql://me:hunter2@db/fairway"\n'
    )
    monkeypatch.setenv("FAIRWAY_SERVER__WORKERS", "3")

    table = run("config show --origin --config", str(tmp_path / "f.toml"))
    values = json.loads(run("config show --origin -o json --config", str(tmp_path / "f.toml")).stdout)

    assert "hunter2" not in table.stdout
    assert "hunter2" not in json.dumps(values)
    assert values["region.id"] == {"value": "eu-west-1", "origin": f"file {tmp_path / 'f.toml'}"}
    assert values["server.workers"] == {"value": "3", "origin": "environment FAIRWAY_SERVER__WORKERS"}
    assert values["routing.policy"]["origin"] == "default"


def test_only_what_was_changed_may_be_shown(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAIRWAY_SERVER__WORKERS", "3")

    assert run("config show --changed -o name").stdout == "server.workers\n"
    assert yaml.safe_load(run("config show --changed -o yaml").stdout) == {"server.workers": "3"}


def test_a_database_is_created_checked_and_named(run: Run, tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'f.db'}"

    missing = run("db check --database", url)
    created, again = run("db upgrade --database", url), run("db upgrade --database", url)
    passed, current = run("db check --database", url), run("db current -o json --database", url)

    assert missing.exit_code == ExitCode.CHECK_FAILED
    assert "fairway db upgrade" in missing.stderr
    assert missing.stdout == ""
    assert created.stdout == f"upgraded to {schema.head()}\n"
    assert again.stdout == f"already at {schema.head()}\n"
    assert passed.stdout == f"ok  schema {schema.head()}\n"
    assert json.loads(current.stdout) == {"current": schema.head(), "needed": schema.head()}


def test_a_database_of_a_newer_program_is_refused(run: Run, tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'f.db'}"
    run("db upgrade --database", url)
    with sqlite3.connect(tmp_path / "f.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    checked, upgraded = run("db check --database", url), run("db upgrade --database", url)

    assert (checked.exit_code, upgraded.exit_code) == (ExitCode.CHECK_FAILED, ExitCode.CONFLICT)
    assert "9999" in checked.stderr


def test_a_database_that_cannot_be_opened_is_unreachable(run: Run, tmp_path: Path):
    result = run("db upgrade --database", f"sqlite:///{tmp_path}/nowhere/f.db")

    assert result.exit_code == ExitCode.UNREACHABLE
    assert "Traceback" not in result.output


def test_the_database_comes_from_the_configuration_and_its_secret_file(run: Run, tmp_path: Path):
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path / 'f.db'}\n")
    (tmp_path / "f.toml").write_text(f'[store]\nurl_file = "{tmp_path / "url"}"\n')

    result = run("db upgrade --config", str(tmp_path / "f.toml"))

    assert result.stdout == f"upgraded to {schema.head()}\n"
    assert (tmp_path / "f.db").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "line 1 is not a decision"),
        ('{"decision_id": "d"', "line 1 is not JSON"),
        ('{"decision_id": "d"}', "version None"),
        ('{"decision_id": "d", "version": 1}', "it has no '"),
    ],
)
@pytest.mark.parametrize("command", ["replay --log", "explain d --log"])
def test_a_log_that_cannot_be_read_names_the_line(run: Run, tmp_path: Path, command: str, line: str, message: str):
    (tmp_path / "d.jsonl").write_text(line)

    result = run(command, str(tmp_path / "d.jsonl"))

    assert result.exit_code == ExitCode.USAGE
    assert "line 1" in result.stderr
    assert message in result.stderr


def test_a_decision_that_is_not_in_the_log_is_not_found(run: Run, tmp_path: Path):
    (tmp_path / "d.jsonl").write_text("")

    assert run("explain d --log", str(tmp_path / "d.jsonl")).exit_code == ExitCode.NOT_FOUND


def test_an_empty_log_replays_to_nothing(run: Run, tmp_path: Path):
    (tmp_path / "d.jsonl").write_text("")

    assert run("replay --log", str(tmp_path / "d.jsonl")).stdout == "0 decisions: 0 identical, 0 different\n"


def test_the_version_is_printed(run: Run):
    version = json.loads(run("version -o json").stdout)["version"]

    assert run("version").stdout == run("--version").stdout == f"fairway {version}\n"
