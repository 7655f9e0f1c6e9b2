from __future__ import annotations

import pytest

from target_moengage_cohort.core.text import format_minutes, format_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0 bytes", 0),
        ("1 byte", 1),
        ("999 bytes", 999),
        ("1.0 KB", 1_000),
        ("999.9 KB", 999_949),
        ("1.0 MB", 999_950),
        ("1.0 MB", 1_000_000),
        ("2.5 GB", 2_500_000_000),
    ],
)
def test_a_size_has_a_unit_that_shows_it(text, size):
    """Whatever its size, something other than zero is never shown as zero."""
    assert text == format_size(size)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("less than a minute", 0.0033),
        ("less than a minute", 0.99),
        ("1 minute", 1),
        ("1 minute", 1.04),
        ("1.5 minutes", 1.5),
        ("2 minutes", 2),
        ("1,234.5 minutes", 1234.5),
    ],
)
def test_a_duration_in_words(text, minutes):
    """Below a minute nothing more is known; above it a tenth is."""
    assert text == format_minutes(minutes)
