"""Shares of a population, estimated from a random sample; pure."""

from __future__ import annotations

import math
import typing as t

import msgspec

Z_95 = 1.959964
"""The quantile of the normal distribution within which 95 % of it lies, on both sides."""
Z_SURE = 3.290527
"""Likewise for 99.9 %: a proportion outside is not due to chance."""
_ROUNDING = 1e-6


class Estimate(msgspec.Struct, frozen=True):
    """A number and the interval in which the true one lies, in 95 of 100 samples."""

    value: float
    low: float
    high: float

    def of(self, population: int) -> Estimate:
        """Return how many of a population a share is, in whole members."""
        return Estimate(
            round(self.value * population),
            math.floor(self.low * population + _ROUNDING),
            math.ceil(self.high * population - _ROUNDING),
        )


class Drawn(t.NamedTuple):
    """A sample without replacement, and the population that it was drawn from."""

    size: int
    population: int


def share(hits: int, drawn: Drawn, z: float = Z_95) -> Estimate:
    """Return the share of a population that the hits of a sample show, by Wilson's interval.

    Unlike the usual one it holds for shares near 0 and 1, too. A sample of all is exact, and one of
    a large part is nearly so: the interval counts only as many draws as the rest leaves undecided.
    """
    size, population = drawn
    if not size:
        return Estimate(0.0, 0.0, 1.0)
    if size >= population:
        return Estimate(hits / size, hits / size, hits / size)
    observed = hits / size
    draws = size * (population - 1) / (population - size)
    weight = z * z / draws
    center = (observed + weight / 2) / (1 + weight)
    spread = observed * (1 - observed) / draws + weight / (4 * draws)
    half = z * math.sqrt(spread) / (1 + weight)
    # The hits and misses that were seen are certain, whatever the interval says.
    low = max(center - half, hits / population)
    high = min(center + half, 1 - (size - hits) / population)
    return Estimate(observed, min(low, observed), max(high, observed))
