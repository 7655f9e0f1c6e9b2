"""The rules for the files of file segments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.moengage.segment_files import FAULTS, SeenValues, value_fault


@pytest.mark.parametrize(
    "value", ["u-1", "a b", " padded ", "é", "0042", "\ufeff", "a;b", "o'brien", "d'"]
)
def test_what_a_file_can_have(value):
    """A value may have white space and any characters that no rule forbids."""
    assert value_fault(value, "string") is None


@pytest.mark.parametrize(
    ("value", "code"),
    [
        *(("", "blank"), (" ", "blank"), ("\t", "blank"), ('a"b', "quote"), ("'a'", "quoted")),
        *(("'o'brien'", "quoted"), ("'", "quoted"), ("a,b", "comma"), ("a,", "comma")),
        *(("a\nb", "line_break"), ("a\r", "line_break"), ("a\0", "nul_byte"), ("\0", "nul_byte")),
    ],
)
def test_what_a_file_cannot_have(value, code):
    """Blanks, quotes, commas, line breaks and NUL bytes are refused, each with a code."""
    assert code == value_fault(value, "string")
    assert code in FAULTS


@pytest.mark.parametrize(
    ("value", "is_number"),
    [
        *((value, True) for value in ("4711", "-1.5", "1e3", "+.5", "2.", "1E-3")),
        *(
            (value, False)
            for value in ("nan", "inf", "u1", "1_000", " 12 ", "١٢", "1e999", ".", "")
        ),
    ],
)
def test_numbers(value, is_number):
    """Values of a number's attribute must be finite numbers."""
    assert is_number is (value_fault(value, "double") is None)


@given(st.lists(st.sampled_from([f"u{number}" for number in range(400)]), max_size=400))
def test_the_first_repeated_value_is_found(values):
    """The pair that is found is the first value that is there already, and its first place."""
    seen = SeenValues()
    for number, value in enumerate(values, 1):
        seen.add(value.encode(), number)
    places = {}
    expected = next(
        (
            (number, places[value])
            for number, value in enumerate(values, 1)
            if places.setdefault(value, number) != number
        ),
        None,
    )
    assert expected == seen.first_repeated()
