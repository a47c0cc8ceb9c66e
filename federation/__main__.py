"""`python -m federation` and the command `fairway`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without UTF-8 gets question marks rather than a traceback.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    from federation.cli.main import PROGRAM, app

    app(prog_name=PROGRAM)


if __name__ == "__main__":
    main()
