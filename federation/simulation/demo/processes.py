"""The demonstration's processes: all in one group, which a keeper kills when this process ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# The keeper leads the group. It waits for the end of a pipe that only this process holds open: that comes with its
# death too, by whatever signal. SIGKILL also ends those that are stopped.
KEEPER = "import os, signal, sys; sys.stdin.buffer.read(); os.killpg(0, signal.SIGKILL)"
# Agents take their nodes back in this time; what has not ended by then is killed.
END_SECONDS = 3.0
POLL_SECONDS = 0.02
LOG_LINES = 15


class Ended(Exception):
    """A process ended that should have gone on; the message has the last lines that it wrote."""


class Processes:
    """Processes by name; what each writes goes to `<directory>/<name>.log`. Leave the block, and all are gone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._frozen: set[str] = set()
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("FAIRWAY_")}

    def __enter__(self) -> Self:
        # -I and -S: the keeper must not depend on anything, and starts in some milliseconds.
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", KEEPER], stdin=subprocess.PIPE, process_group=0
        )
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for name in list(self._frozen):
            self.thaw(name)
        for process in self._running.values():
            process.terminate()
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline and any(process.poll() is None for process in self._running.values()):
            time.sleep(POLL_SECONDS)
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        for process in self._running.values():
            # The keeper kills what is left; this is for the case that somebody killed the keeper.
            process.kill()
            process.wait()
        self._keeper.wait()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name, of those that were not ended."""
        return {name: process.pid for name, process in self._running.items()}

    def start(self, name: str, command: Sequence[str], **user: Any) -> None:
        """Starts a process, where it is told as another user (keywords of Popen); its name must be free."""
        if self.alive(name):
            raise ValueError(f"process {name!r} is running already; end or kill it first")
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=self._keeper.pid,
                **{"env": self._environment, **user},
            )

    def log(self, name: str) -> Path:
        """The file with what a process wrote."""
        return self.directory / f"{name.replace('/', '-')}.log"

    def put_log_aside(self, name: str) -> None:
        """What a process wrote before would be taken for news of its next life."""
        log = self.log(name)
        if log.exists():
            log.replace(log.with_suffix(".log.before"))

    def alive(self, name: str) -> bool:
        return name in self._running and self._running[name].poll() is None

    def require(self, *names: str) -> None:
        """Ended where one of the processes ended."""
        for name in names:
            if not self.alive(name):
                lines = self.log(name).read_text(errors="replace").splitlines()[-LOG_LINES:]
                code = self._running[name].returncode if name in self._running else None
                raise Ended("\n".join([f"process {name} ended with {code}; its last lines:", *lines]))

    def kill(self, name: str) -> None:
        """As a power cut does: no farewell."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def crash(self, name: str) -> None:
        """SIGQUIT: PostgreSQL ends at once, with its children, as in a crash."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGQUIT)
        process.wait()

    def end(self, name: str) -> None:
        """Asks a process to end, and returns; `alive` says when it has."""
        self._running[name].terminate()

    def freeze(self, name: str) -> None:
        """Stops a process where it is: connections stay open and nothing answers, as behind a cut line."""
        self._running[name].send_signal(signal.SIGSTOP)
        self._frozen.add(name)

    def thaw(self, name: str) -> None:
        self._frozen.discard(name)
        if name in self._running:
            self._running[name].send_signal(signal.SIGCONT)

    def run(self, command: Sequence[str]) -> int:
        """Runs a command whose output goes to ours; its exit code."""
        sys.stdout.flush()
        name = "command"
        self._running[name] = process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, env=self._environment, process_group=self._keeper.pid
        )
        code = process.wait()
        del self._running[name]
        return code
