"""One worker: `federation/workers/supervisor.py` starts it and tells it what it is."""

from __future__ import annotations

import sys

from federation import process
from federation.workers.seat import read


def main() -> int:
    """The exit code, as of `fairway serve`. The supervisor's end is the end of our standard input."""
    return process.run_worker(*read(sys.stdin.buffer.raw.readline()))  # type: ignore[union-attr]  # a pipe's buffer has a raw


if __name__ == "__main__":
    sys.exit(main())
