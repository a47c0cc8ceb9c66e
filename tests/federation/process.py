"""`fairway serve` as a process of its own, on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The interpreter alone needs a second on a busy machine.
START_SECONDS = 60.0


@dataclass
class Process:
    """A server process; `lines` is what it logged so far, one JSON object each (other lines under "text")."""

    popen: subprocess.Popen[str]
    lines: list[Mapping[str, Any]] = field(default_factory=list)
    address: str = ""
    admin: str = ""
    _news: threading.Condition = field(default_factory=threading.Condition)
    _reading: bool = True

    def terminate(self) -> None:
        self.popen.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = START_SECONDS) -> int:
        """The exit code."""
        return self.popen.wait(seconds)

    def ended(self) -> None:
        """Returns once all that a process said before its end is in `lines`."""
        with self._news:
            assert self._news.wait_for(lambda: not self._reading, START_SECONDS)

    def until_logged(self, event: str, seconds: float = START_SECONDS) -> Mapping[str, Any]:
        """The first line of an event; AssertionError where the process ended without it, or took too long."""
        end = time.monotonic() + seconds
        with self._news:
            while True:
                for line in self.lines:
                    if line.get("event") == event:
                        return line
                ended = self.popen.poll() is not None and not self._reading
                assert not ended, f"the server ended with {self.popen.returncode}: {self.lines}"
                assert time.monotonic() < end, f"no {event!r} within {seconds} s: {self.lines}"
                self._news.wait(0.1)

    def read(self) -> None:
        """Collects what the process says until it ends."""
        assert self.popen.stderr is not None
        for text in self.popen.stderr:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"text": text.rstrip("\n")}
            with self._news:
                self.lines.append(line if isinstance(line, dict) else {"text": text})
                self._news.notify_all()
        with self._news:
            self._reading = False
            self._news.notify_all()


def start(directory: Path, *arguments: str, env: Mapping[str, str] | None = None, ports: bool = True) -> Process:
    """Starts `fairway serve` in a directory, where its database will be too. It may not be ready yet."""
    local = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0") if ports else ()
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FAIRWAY_")}
    popen = subprocess.Popen(
        [sys.executable, "-m", "federation", "serve", *local, *arguments],
        cwd=directory,
        env={**clean, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    process = Process(popen)
    threading.Thread(target=process.read, daemon=True).start()
    return process


@contextmanager
def serving(directory: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """A server that is ready; killed in the end, where it has not ended by itself."""
    process = start(directory, *arguments, env=env)
    try:
        line = process.until_logged("serving")
        process.address, process.admin = line["grpc"], line["admin"]
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.wait()
