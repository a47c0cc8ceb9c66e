"""What can go wrong with a catalog. Messages are for people; the API's reasons stand in `federation/api/errors.py`."""

from __future__ import annotations


class CatalogError(Exception):
    """Base of all errors of a catalog."""


class NotFound(CatalogError):
    """No such resource."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name!r} does not exist")
        self.kind = kind
        self.name = name


class Conflict(CatalogError):
    """Other content is stored under this name, and the write did not name the version that it replaces."""

    def __init__(self, kind: str, name: str, etag: str) -> None:
        super().__init__(f"{kind} {name!r} is registered with other content; send its etag {etag!r} to replace it")
        self.kind = kind
        self.name = name
        self.etag = etag


class EtagMismatch(CatalogError):
    """The write names a version that is not the current one (current: empty where there is none)."""

    def __init__(self, kind: str, name: str, sent: str, current: str) -> None:
        super().__init__(
            f"{kind} {name!r} has etag {current!r}, not {sent!r}; read it again and repeat the change"
            if current
            else f"{kind} {name!r} does not exist, so that it has no etag {sent!r}; leave the etag out to create it"
        )
        self.kind = kind
        self.name = name
        self.current = current


class NotOwner(CatalogError):
    """The record belongs to another control plane."""

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(f"{name!r} is owned by control plane {owner!r}; write it there")
        self.name = name
        self.owner = owner


class ModelInUse(CatalogError):
    """A node still serves the model."""

    def __init__(self, model_id: str, node: str) -> None:
        super().__init__(f"model {model_id!r} is served by node {node!r}; deregister its nodes first")
        self.model_id = model_id
        self.node = node


class RequestIdReused(CatalogError):
    """The request id was used for another request."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id {request_id!r} was used for a different request; choose a new one")
        self.request_id = request_id


class RevisionCompacted(CatalogError):
    """The change log no longer reaches back to the revision."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"changes after revision {revision} were compacted; the log starts at {oldest}; watch from 0")
        self.revision = revision
        self.oldest = oldest


class StoreUnavailable(CatalogError):
    """The database does not answer; nothing was written."""


class StoreReadOnly(StoreUnavailable):
    """The database answers, and refuses writes: a read-only file, or a full disk."""


class SchemaBehind(CatalogError):
    """The database has an older schema than this program."""


class SchemaAhead(CatalogError):
    """The database has a newer schema than this program."""
