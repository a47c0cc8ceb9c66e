"""A worker's place: which one it is, and where its own sockets are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.config import Settings


@dataclass(frozen=True, slots=True)
class Seat:
    """`directory` is readable by this user alone: who may enter it may speak to workers without a certificate."""

    number: int
    directory: Path

    @property
    def siblings(self) -> Path:
        """Where the other workers reach this one."""
        return self.directory / f"worker-{self.number}.sock"

    @property
    def admin(self) -> Path:
        """Where the supervisor asks for its metrics and readiness."""
        return self.directory / f"admin-{self.number}.sock"

    def own(self, settings: Settings) -> Settings:
        """The settings with files of this worker alone, in place of those that all would write."""
        routing = settings.routing.model_copy(update={"decision_log": self._own(settings.routing.decision_log)})
        store = settings.store.model_copy(update={"last_known_path": self._own(settings.store.last_known_path)})
        return settings.model_copy(update={"routing": routing, "store": store})

    def _own(self, path: Path | None) -> Path | None:
        """`decisions.jsonl` becomes `decisions-1.jsonl`."""
        return None if path is None else path.with_name(f"{path.stem}-{self.number}{path.suffix}")


def told(settings: Settings, seat: Seat) -> bytes:
    """What a worker reads from its standard input: a line, since its command line is for everybody to see."""
    message = {"settings": settings.model_dump(mode="json"), "number": seat.number, "directory": str(seat.directory)}
    return json.dumps(message).encode() + b"\n"


def read(line: bytes) -> tuple[Settings, Seat]:
    """The same, at the worker."""
    message: dict[str, Any] = json.loads(line)
    return Settings.model_validate(message["settings"]), Seat(message["number"], Path(message["directory"]))
