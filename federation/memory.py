"""When circles of objects are looked for. Hardly anything here is one, and looking takes time from decisions."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# How many objects more are made than freed before the young are looked through; how often that is before the
# middle-aged are, and how often these before all are. Looking through all holds up every call, for 3 µs a remembered
# decision; looking through so many young ones takes a millisecond.
COLLECT_AFTER = (10_000, 10, 100)


def settle_memory() -> None:
    """Leaves what the start made, modules and the catalog, out of later collections: some 100 ms of each full one."""
    gc.set_threshold(*COLLECT_AFTER)
    gc.collect()
    gc.freeze()


@contextmanager
def no_collections() -> Iterator[None]:
    """Looks for no circles meanwhile: a catalog that is read is millions of objects, all of which stay, and looking
    through them again and again takes as long as reading them."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
