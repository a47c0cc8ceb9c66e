"""`fairway demo` as a user runs it: all of its scenes, and nothing left behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Twenty interpreters start on whatever the machine has left.
START_SECONDS = 240.0
PLAY_SECONDS = 600.0
END_SECONDS = 20.0


class Demo:
    """A demonstration in a session of its own; `lines` is what it printed so far."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        clean = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR")}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "federation", "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**clean, "TMPDIR": str(directory)},
            start_new_session=True,
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until_printed(self, words: str, seconds: float) -> None:
        self.until(lambda: words in self.text, f"{words!r} printed", seconds)

    def until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert self.popen.poll() is None, f"it ended with {self.popen.returncode} before {what}:\n{self.text}"
            assert time.monotonic() < end, f"not {what} within {seconds} s:\n{self.text}"
            time.sleep(0.05)

    def processes(self) -> dict[int, str]:
        """Command lines of all processes of its session, by id."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
        found = {}
        for line in listed.splitlines():
            pid, _, command = line.strip().partition(" ")
            if session_of(int(pid)) == self.popen.pid and "<defunct>" not in command:
                found[int(pid)] = command
        return found

    def left_behind(self) -> dict[int, str]:
        """What still runs a while after its end."""
        end = time.monotonic() + END_SECONDS
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        return left


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return -1


@contextmanager
def demo(directory: Path, *arguments: str) -> Iterator[Demo]:
    running = Demo(directory, *arguments)
    try:
        yield running
    finally:
        for pid in (running.popen.pid, *running.processes()):
            if session_of(pid) == running.popen.pid:
                os.kill(pid, signal.SIGKILL)
        running.popen.wait()


def fairway(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "federation", *words], capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_the_demo_shows_what_it_says_stays_while_it_is_asked_to_and_leaves_nothing_behind(tmp_path: Path):
    with demo(tmp_path, "--stay", "--seed", "7") as running:
        running.until_printed("curl http://", PLAY_SECONDS)
        engines = [command for command in running.processes().values() if "simulation.engine" in command]
        agents = [command for command in running.processes().values() if "federation agent" in command]
        text = running.text
        server = re.findall(r"listens at (127\.0\.0\.1:\d+)", text)[0]
        routed = fairway("route", "--server", server, "--model", "meta-llama/Llama-2-70b-chat-hf")
        running.popen.send_signal(signal.SIGINT)
        code = running.popen.wait(END_SECONDS)
        left = running.left_behind()

    assert (len(engines), len(agents)) == (9, 9)
    assert "Seed 7." in text
    for number in range(1, 6):
        assert f"── Scene {number}: " in text
    assert text.count("  ok: ") == 7
    for shown in (
        "answers have been coming",
        "later than predicted",
        "failures in a row",
        "open -> half_open -> closed",
        "slow start: its health score was",
        "callers had their answers",
        "3 UNHEALTHY",
        "PRIVACY 8",
        "ALL_NODES_UNHEALTHY",
        "PRIVACY_VIOLATION",
        "CONTRIBUTION",
        " identical, 0 different",
        "All 5 scenes showed what they say",
    ):
        assert shown in " ".join(text.split()), shown
    assert "\x1b" not in text
    to_read = [line for line in running.lines if not line.lstrip().startswith(("$ fairway", "fairway", "curl"))]
    assert [line for line in to_read if len(line) > 100] == []
    assert routed.returncode == 0, routed.stderr
    assert code == 0
    assert left == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_full_demo_shows_three_regions_of_two_replicas_and_leaves_nothing_behind(tmp_path: Path):
    with demo(tmp_path, "--full") as running:
        running.popen.wait(PLAY_SECONDS)
        left = running.left_behind()

    text = " ".join(running.text.split())
    assert running.popen.returncode == 0, running.text
    for number in range(1, 6):
        assert f"── Scene {number}: " in text
    for shown in (
        "no Route failed",
        "UNAVAILABLE/STORE_UNAVAILABLE",
        "CatalogService NOT_SERVING, RoutingService SERVING",
        "PEER_LEASE_EXPIRED on both sides",
        "ALL_NODES_UNHEALTHY",
        "started again from its database",
        "rises for a minute",
        " identical, 0 different",
        "All 5 scenes showed what they say",
    ):
        assert shown in text, shown
    assert "Traceback" not in text
    assert left == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_demo_whose_control_plane_dies_says_so_and_leaves_nothing_but_its_logs_behind(tmp_path: Path):
    with demo(tmp_path) as running:
        running.until_printed("Scene 1", START_SECONDS)
        (server,) = [pid for pid, command in running.processes().items() if "federation serve" in command]
        os.kill(server, signal.SIGKILL)
        running.popen.wait(PLAY_SECONDS)
        left = running.left_behind()

    assert running.popen.returncode == 1
    assert re.search(r"Scene \d \(.+\) (could not go on|did not show)", running.text)
    assert "process control-plane ended with -9" in running.text
    assert "Kept for a closer look" in running.text
    assert left == {}
    (kept,) = tmp_path.iterdir()
    assert (kept / "control-plane.log").read_text() != ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_demo_that_is_ended_while_it_starts_leaves_no_process_behind(
    tmp_path: Path, number: signal.Signals, code: int
):
    with demo(tmp_path) as running:
        running.until(lambda: len(running.processes()) > 5, "its processes started", START_SECONDS)
        running.popen.send_signal(number)
        running.popen.wait(END_SECONDS)
        left = running.left_behind()

    assert running.popen.returncode == code
    assert "Traceback" not in running.text
    assert left == {}
