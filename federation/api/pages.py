"""Pages of lists. A token is opaque, and good only for the list and the filters that it was made for.

Lists go on after the last name of the page before, so that what was added or removed meanwhile neither repeats nor
hides others. No server remembers anything: any replica may answer the next page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.message import Message

from federation.api.errors import InvalidFields

T = TypeVar("T")
M = TypeVar("M", bound=Message)
DEFAULT_PAGE_SIZE = 100
# Half of what clients take by default; one item more still fits.
MAX_PAGE_BYTES = 2 * 1024 * 1024
_DIGEST_BYTES = 9


def size_of(page_size: int) -> int:
    """Items of a page; 0 asks for the default."""
    return page_size or DEFAULT_PAGE_SIZE


def token(scope: tuple[str, ...], position: str) -> str:
    """A token that goes on from `position` in the list that `scope` names, filters included."""
    body = position.encode()
    return base64.urlsafe_b64encode(_digest(scope, body) + body).decode().rstrip("=")


def position(scope: tuple[str, ...], page_token: str) -> str:
    """Where a token goes on; "" without a token. InvalidFields for one of another list, or of none."""
    if not page_token:
        return ""
    try:
        raw = base64.b64decode(page_token + "=" * (-len(page_token) % 4), altchars=b"-_", validate=True)
        digest, body = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        if digest == _digest(scope, body):
            return body.decode()
    except (binascii.Error, ValueError):
        pass
    raise InvalidFields(
        ("page_token", "is not a next_page_token of this list with these filters; start again without page_token")
    )


def page(
    items: Iterable[tuple[str, T]], scope: tuple[str, ...], page_size: int, convert: Callable[[T], M]
) -> tuple[list[M], str]:
    """The first items as messages, and the token of the next page; `items` are (name, item) after the position.

    A page ends early where it would outgrow a message: a node may have hundreds of deployments.
    """
    size = size_of(page_size)
    messages: list[M] = []
    last, room = "", MAX_PAGE_BYTES
    for name, item in items:
        if len(messages) == size or room <= 0:
            return messages, token(scope, last)
        message = convert(item)
        messages.append(message)
        room -= message.ByteSize()
        last = name
    return messages, ""


def _digest(scope: tuple[str, ...], body: bytes) -> bytes:
    # Not a secret: it tells a token of one list from that of another, and from a guess.
    return hashlib.blake2s("\0".join(scope).encode() + b"\0\0" + body, digest_size=_DIGEST_BYTES).digest()
