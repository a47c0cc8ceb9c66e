"""The command as a process: streams, signals, terminals, completion."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from cli_canned import LLAMA, MODELS
from cli_server import Served

FAIRWAY = [sys.executable, "-m", "federation"]
PATIENCE_SECONDS = 30.0


@pytest.fixture
def env(server: Served) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FAIRWAY_")}
    return {**clean, "FAIRWAY_SERVER": server.address, "FAIRWAY_TIMEOUT": "60s", "TERM": "xterm-256color"}


def ran(env: dict[str, str], *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FAIRWAY, *arguments], env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, **more
    )  # type: ignore[call-overload]


def test_the_answer_goes_to_stdout_and_the_error_to_stderr(env: dict[str, str]):
    good, bad = ran(env, "models", "list", "-o", "json"), ran(env, "models", "get", "nobody", "-o", "json")

    assert (good.returncode, good.stderr) == (0, "")
    assert len(json.loads(good.stdout)["models"]) == len(MODELS)
    assert (bad.returncode, bad.stdout) == (3, "")
    assert bad.stderr.startswith("error: model 'nobody' does not exist (MODEL_UNKNOWN)\nnext: ")


def test_a_watch_streams_and_ends_quietly_with_ctrl_c(env: dict[str, str]):
    with subprocess.Popen(
        [*FAIRWAY, "watch", "catalog"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)

    assert first["change"]["name"] == "eu-west-1"
    assert (process.returncode, errors) == (0, "")


def test_a_reader_that_goes_away_ends_it_without_a_traceback(env: dict[str, str]):
    with subprocess.Popen(
        [*FAIRWAY, "watch", "fleet"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()

    assert "Traceback" not in errors


def test_a_terminal_without_utf_8_gets_an_answer(env: dict[str, str]):
    result = ran({**env, "PYTHONIOENCODING": "ascii"}, "fleet")

    assert result.returncode == 0, result.stderr
    assert "eu-west-1" in result.stdout


def test_off_a_terminal_top_draws_once(env: dict[str, str]):
    result = ran(env, "top")

    assert result.returncode == 0
    assert "fairway top" in result.stdout
    assert "\x1b" not in result.stdout


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen([*FAIRWAY, *arguments], env=env, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.seen = ""

    def until(self, text: str) -> None:
        """Reads until the text was shown."""
        end = time.monotonic() + PATIENCE_SECONDS
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode()
                except OSError as error:  # Linux tells the end of a terminal as an error.
                    raise AssertionError(f"it ended: {self.seen}") from error

    def close(self) -> int:
        """The exit code; what it still writes is read, or it would wait for a reader."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode()
                except OSError:
                    break
        os.close(self.master)
        return self.process.wait(PATIENCE_SECONDS)


def test_on_a_terminal_top_lives_until_q(env: dict[str, str]):
    terminal = Terminal(["top", "--interval", "200ms"], {**env, "COLUMNS": "120", "LINES": "40"})

    terminal.until("decisions/s")
    os.write(terminal.master, b"q")

    assert terminal.close() == 0
    assert "eu-west-1" in terminal.seen


def test_on_a_terminal_top_ends_with_ctrl_c(env: dict[str, str]):
    terminal = Terminal(["top"], {**env, "COLUMNS": "120", "LINES": "40"})

    terminal.until("fairway top")
    terminal.process.send_signal(signal.SIGINT)

    assert terminal.close() == 0


def test_a_terminal_gets_colours_unless_it_wants_none(env: dict[str, str]):
    coloured = Terminal(["fleet"], {**env, "COLUMNS": "100"})
    plain = Terminal(["fleet"], {**env, "COLUMNS": "100", "NO_COLOR": "1"})
    coloured.until("PANIC")
    plain.until("PANIC")

    assert (coloured.close(), plain.close()) == (0, 0)
    assert "\x1b[32m" in coloured.seen
    assert "\x1b[32m" not in plain.seen


def completed(env: dict[str, str], line: str) -> list[str]:
    """What bash would offer after the line."""
    words = line.split(" ")
    asked = {"_FAIRWAY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    # The name that the script of `fairway completion bash` calls.
    program = "from federation.__main__ import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program], env={**env, **asked}, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        check=False,
    )  # fmt: skip
    return result.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("fairway models get m", [LLAMA]),
        ("fairway nodes drain eu-west-1/gpu-7 eu-west-1/", ["eu-west-1/gpu-7"]),
        ("fairway regions get ", ["ap-northeast-1", "eu-west-1"]),
        ("fairway route --policy eu", ["eu-only"]),
        ("fairway dep", ["deployments"]),
    ],
)
def test_names_are_completed_from_the_server(env: dict[str, str], line: str, names: list[str]):
    offered = completed(env, line)

    assert set(names) <= set(offered), offered


def test_completion_is_silent_where_nobody_answers(env: dict[str, str]):
    assert completed({**env, "FAIRWAY_SERVER": "127.0.0.1:1"}, "fairway models get m") == []
