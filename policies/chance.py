"""Chance as a function of a seed and a counter: the same seed draws the same, and no generator is built per decision.

The mixer is SplitMix64's finalizer (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

MASK = 0xFFFF_FFFF_FFFF_FFFF
GOLDEN = 0x9E37_79B9_7F4A_7C15
# Where one in ten fits, so many draws miss it once in a thousand times.
MAX_DRAWS = 64


def mix(value: int) -> int:
    """64 well-mixed bits of a 64-bit value."""
    value &= MASK
    value = ((value ^ (value >> 30)) * 0xBF58_476D_1CE4_E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D0_49BB_1331_11EB) & MASK
    return value ^ (value >> 31)


def draw(seed: int, counter: int) -> int:
    """The counter-th 64 bits of a seed."""
    return mix(seed + (counter + 1) * GOLDEN)


def columns(seed: int, first: int, count: int) -> tuple[NDArray[np.uint64], ...]:
    """For each number from `first` on: its own seed, `mix(seed ^ number)`, and the first two draws of that.

    The same bits as one by one, in a quarter of the time: what many decisions draw from is drawn up together.
    """
    own = _mixed(np.arange(first, first + count, dtype=np.uint64) ^ np.uint64(seed & MASK))
    return own, *[_mixed(own + np.uint64((counter + 1) * GOLDEN & MASK)) for counter in range(2)]


def seeds(seed: int, first: int, count: int) -> list[tuple[int, int, int]]:
    """`columns`, number by number."""
    own, one, two = columns(seed, first, count)
    return list(zip(own.tolist(), one.tolist(), two.tolist(), strict=True))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`mix` of each value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return values ^ (values >> np.uint64(31))


def below(seed: int, counter: int, bound: int) -> int:
    """An integer in [0, bound); the bias of the multiplication is under bound / 2**64."""
    return (draw(seed, counter) * bound) >> 64


def uniform(seed: int, counter: int) -> float:
    """A float in [0, 1) with 53 bits."""
    return (draw(seed, counter) >> 11) * (1.0 / (1 << 53))


def two_of(seed: int, size: int) -> tuple[int, int]:
    """Two different integers in [0, size), or 0 twice where size is 1; every pair is equally likely."""
    return two_by(draw(seed, 0), draw(seed, 1), size)


def two_by(one: int, two: int, size: int) -> tuple[int, int]:
    """`two_of` by the first two draws of its seed."""
    first = (one * size) >> 64
    if size == 1:
        return first, first
    second = (two * (size - 1)) >> 64
    return first, second + (second >= first)


def fitting(seed: int, size: int, fits: Callable[[int], bool]) -> tuple[int, ...]:
    """Up to two different integers in [0, size) that fit, as they are drawn; fewer where MAX_DRAWS find no more."""
    found: list[int] = []
    seen: set[int] = set()
    for number in range(MAX_DRAWS):
        place = below(seed, number, size)
        if place in seen:
            continue
        seen.add(place)
        if fits(place):
            found.append(place)
        if len(found) == 2 or len(seen) == size:
            break
    return tuple(found)


def two_for(key: str, names: Sequence[str]) -> tuple[int, int]:
    """The two places whose names hash highest with a key, or the only one twice; they stay when others come and go."""
    ranked = sorted(range(len(names)), key=lambda place: hash_text(f"{names[place]}\0{key}"), reverse=True)
    return ranked[0], ranked[min(1, len(ranked) - 1)]


def hash_text(text: str, seed: int = 0) -> int:
    """64 bits of a text that do not change between processes (FNV-1a, then mixed)."""
    value = 0xCBF2_9CE4_8422_2325 ^ (seed & MASK)
    for byte in text.encode():
        value = ((value ^ byte) * 0x100_0000_01B3) & MASK
    return mix(value)
