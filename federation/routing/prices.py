"""What tokens cost at a moment: declared prices in their hours, or the share of the node's hour that a token takes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from catalog.types import PriceBand
from policies.pool import FloatArray
from policies.rules import EPOCH_WEEKDAY, MINUTES_A_DAY


def factor(bands: Iterable[PriceBand], unix_time: float) -> float:
    """What prices are multiplied by: the first band that holds; 1 where none does."""
    return next((band.factor for band in bands if holds(band, int(unix_time // 60))), 1.0)


def holds(band: PriceBand, minutes: int) -> bool:
    """Whether a band holds, `minutes` after the epoch. A band over midnight belongs to the day on which it starts."""
    day, minute = divmod(minutes, MINUTES_A_DAY)
    weekday = (day + EPOCH_WEEKDAY) % 7
    start, end = band.start_minute, band.end_minute
    if start < end:
        return start <= minute < end and _on(band, weekday)
    if minute >= start:
        return _on(band, weekday)
    return minute < end and _on(band, (weekday - 1) % 7)


def _on(band: PriceBand, weekday: int) -> bool:
    return not band.weekdays or weekday in band.weekdays


def by_the_hour(second: FloatArray, prefill: FloatArray, decode: FloatArray, batch: FloatArray) -> list[FloatArray]:
    """US dollars per prompt and per answer token of a node that costs so much a second.

    A prompt token takes the node for its prefill; an answer's token takes its place in a batch that is taken to be
    half full.
    """
    places = np.maximum(1.0, np.where(np.isnan(batch), 1.0, batch) / 2)
    return [second * prefill, second / (decode * places)]
