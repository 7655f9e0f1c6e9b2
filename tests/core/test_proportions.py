"""The estimates from a sample."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.core.proportions import Z_SURE, Drawn, Estimate, share

MANY = 10**9
"""A population of which no sample is a notable part."""


def coverage(size, truth):
    """Return how often the interval of a sample has the true share, exactly."""
    total = 0.0
    for hits in range(size + 1):
        found = share(hits, Drawn(size, MANY))
        if found.low <= truth <= found.high:
            ways = math.lgamma(size + 1) - math.lgamma(hits + 1) - math.lgamma(size - hits + 1)
            total += math.exp(ways + hits * math.log(truth) + (size - hits) * math.log1p(-truth))
    return total


@given(st.integers(50, 400), st.floats(0.02, 0.98))
def test_the_interval_has_the_true_share_in_95_of_100_samples(size, truth):
    """Whatever the true share, close to 95 of 100 samples have it in their interval."""
    assert 0.9 <= coverage(size, truth)


def test_the_interval_is_no_wider_than_it_must_be():
    """On average over many shares, the interval has the true one in about 95 of 100 samples."""
    truths = [number / 60 for number in range(1, 60)]
    mean = sum(coverage(200, truth) for truth in truths) / len(truths)
    assert pytest.approx(0.95, abs=0.01) == mean


@given(st.integers(1, 400), st.integers(1, 2_000), st.data())
def test_an_interval_is_around_what_was_observed(size, more, data):
    """Every interval has the observed share, is within 0 and 1, and allows what was seen."""
    hits = data.draw(st.integers(0, size))
    population = size + more
    found = share(hits, Drawn(size, population))
    assert 0 <= found.low <= hits / size <= found.high <= 1
    whole = found.of(population)
    assert hits <= whole.low
    assert size - hits <= population - whole.high
    sure = share(hits, Drawn(size, population), Z_SURE)
    assert sure.low <= found.low
    assert found.high <= sure.high


@given(st.integers(300, 700), st.integers(20, 980))
def test_a_sample_of_a_large_part_leaves_little_in_doubt(size, truth):
    """The interval of half of a small population is narrower, and as often right."""
    ways, hit = math.comb(1_000, size), 0
    for hits in range(max(0, size + truth - 1_000), min(size, truth) + 1):
        found = share(hits, Drawn(size, 1_000))
        assert found.high - found.low < (wide := share(hits, Drawn(size, MANY))).high - wide.low
        if found.of(1_000).low <= truth <= found.of(1_000).high:
            hit += math.comb(truth, hits) * math.comb(1_000 - truth, size - hits)
    assert 0.9 <= hit / ways


def test_a_sample_of_all_is_exact():
    """If everybody is in the sample there is nothing to estimate."""
    assert Estimate(0.3, 0.3, 0.3) == share(3, Drawn(10, 10))
    assert Estimate(3, 3, 3) == share(3, Drawn(10, 10)).of(10)


def test_an_empty_sample_says_nothing():
    """Without a sample, any share is possible."""
    assert Estimate(0.0, 0.0, 1.0) == share(0, Drawn(0, 10))
