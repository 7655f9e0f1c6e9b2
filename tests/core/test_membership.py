from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import RowError
from target_moengage_cohort.core.membership import (
    Action,
    Member,
    cohort_name_fault,
    identifier,
    membership,
)
from target_moengage_cohort.singer.decoding import decode_record

WORDS = "must be a boolean, 0/1, true/false, t/f, yes/no, y/n or add/remove"
decode = msgspec.json.Decoder(float_hook=Decimal).decode


@given(st.text(min_size=1))
def test_text_is_an_identifier_as_it_is(text):
    """Text is taken as it is: not trimmed, case-folded or normalised."""
    assert text == identifier(text)


@pytest.mark.parametrize("value", [None, "", msgspec.UNSET], ids=["null", "empty", "absent"])
def test_null_and_empty_mean_absent(value):
    """Null, empty and missing values mean no identifier, without an error."""
    assert None is identifier(value)


@given(st.integers(-(10**1000) + 1, 10**1000 - 1))
def test_whole_numbers_keep_every_digit(number):
    """An integer read from JSON becomes its digits, however long it is."""
    assert str(number) == identifier(decode(str(number)))


@given(st.integers(-(10**60), 10**60), st.integers(1, 30))
def test_integral_decimals_keep_every_digit(number, zeros):
    """A number with a fraction of zeros becomes its whole digits, never through a float."""
    assert str(number) == identifier(decode(f"{number}.{'0' * zeros}"))


@given(st.integers(1, 2**53), st.integers(0, 15))
def test_small_exponents_are_written_out(number, exponent):
    """A whole number in scientific notation becomes its digits, as long as a float has them all."""
    if number * 10**exponent <= 2**53:
        assert str(number) + "0" * exponent == identifier(decode(f"{number}e{exponent}"))


@given(st.integers(2**53 + 1, 10**40), st.sampled_from("eE"), st.integers(0, 6), st.booleans())
def test_a_number_that_came_through_a_float_is_refused(number, letter, zeros, negative):
    """A number with an exponent beyond 2^53 has lost digits, however it is written."""
    digits = str(number)
    text = f"{'-' * negative}{digits[0]}.{digits[1:]}{'0' * zeros}{letter}+{len(digits) - 1}"
    with pytest.raises(RowError, match="came through a float") as raised:
        identifier(decode_record(b'{"id":%b}' % text.encode())["id"])
    assert "invalid_identifier" == raised.value.code


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("4711", "4711.0"),
        ("4711", "4.711e3"),
        ("4711", "47110e-1"),
        ("9007199254740992", "9.007199254740992e15"),
        ("9007199254740993", "9007199254740993.0"),
        ("12345678901234567890", "12345678901234567890.00"),
        ("12345678901234567890", "12345678901234567890"),
    ],
)
def test_exact_numbers_keep_their_digits(expected, text):
    """Integers, exact decimals and floats up to 2^53 are identifiers."""
    assert expected == identifier(decode_record(b'{"id":%b}' % text.encode())["id"])


@given(st.integers(1, 9), st.integers(1_000, 10**17))
def test_huge_exponents_are_refused_without_being_written_out(digit, exponent):
    """An exponent of millions takes neither the time nor the memory of its digits."""
    with pytest.raises(RowError) as raised:
        identifier(decode(f"{digit}e{exponent}"))
    assert "invalid_identifier" == raised.value.code


@given(st.integers(1, 10**30), st.integers(1, 10**17))
def test_fractions_are_refused(number, exponent):
    """A number with a fraction is not an identifier, however small the fraction is."""
    value = Decimal(f"{number}1e-{exponent}")
    with pytest.raises(RowError) as raised:
        identifier(value)
    assert "is a number with a fraction" == raised.value.reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "is a boolean"),
        (1.0, "is a float, which may have lost digits; make it text or an integer"),
        (10**1000, "is a number with more than 1000 digits"),
        (-(10**1000), "is a number with more than 1000 digits"),
        (Decimal("Infinity"), "is a number with more than 1000 digits"),
        (Decimal("NaN"), "is a number with more than 1000 digits"),
        ([7341], "is neither text nor a whole number"),
        ({"id": 7341}, "is neither text nor a whole number"),
        (b"7341", "is neither text nor a whole number"),
    ],
    ids=["boolean", "float", "long", "long negative", "infinity", "nan", "list", "object", "bytes"],
)
def test_other_types_are_refused_without_their_value(value, reason):
    """A value that is neither text nor a whole number is refused without showing it."""
    with pytest.raises(RowError) as raised:
        identifier(value)
    assert ("invalid_identifier", reason) == (raised.value.code, raised.value.reason)


@pytest.mark.parametrize("value", [Decimal("-0.0"), decode("-0"), decode("0.00")], ids=str)
def test_zero_is_one_identifier(value):
    """Zero is `0`, whatever its sign."""
    assert identifier(value) == "0"


@pytest.mark.parametrize(
    ("action", "value"),
    [
        *((Action.ADD, value) for value in (True, 1, Decimal("1.0"), "1", "t", "YES", "Y")),
        *((Action.REMOVE, value) for value in (False, 0, Decimal(0), "0", "F", "No", "n")),
    ],
    ids=repr,
)
def test_membership_words(action, value):
    """Booleans, 0 and 1, and the known words in any case say whether a member belongs."""
    assert action is membership(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "is null"),
        (msgspec.UNSET, "is null"),
        ("", WORDS),
        (" yes", WORDS),
        ("maybe", WORDS),
        (2, WORDS),
        (-1, WORDS),
        (
            Decimal("1e99999999"),
            WORDS,
        ),
        ([1], WORDS),
        ({}, WORDS),
    ],
    ids=repr,
)
def test_other_values_are_not_a_membership(value, reason):
    """Null or an unknown word rejects the row and is never taken for a non-member."""
    with pytest.raises(RowError) as raised:
        membership(value)
    assert ("invalid_membership", reason) == (raised.value.code, raised.value.reason)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (None, "VIP users (paying) & others"),
        (None, "x" * 200),
        (None, "€" * 200),
        ("must have at most 200 characters, not 201", "x" * 201),
        ("must not be blank", ""),
        ("must not be blank", " \t"),
        ("must not be 'All Users', which MoEngage reserves", "All Users"),
        ("must not be 'All Users', which MoEngage reserves", " all users "),
        (None, "All Users of ours"),
        ("must not start with a period", ".vip"),
        (None, "v.i.p."),
        ("must not contain ':', '|'", "a|b:c"),
        *((f"must not contain '{bad}'", f"a{bad}b") for bad in ':|*?\\<>=$"'),
    ],
    ids=lambda value: str(value)[:20],
)
def test_cohort_names_keep_moengages_rules(fault, name):
    """All documented rules for cohort names are checked, because MoEngage may drop one silently."""
    assert fault == cohort_name_fault(name)


@pytest.mark.parametrize(
    ("key", "member"),
    [
        ("u1", Member("u1")),
        ("u1", Member("u1", "a1")),
        (("u1",), Member(None, "u1")),
    ],
    ids=["uid", "both", "anonymous"],
)
def test_a_member_is_its_uid_else_its_anonymous_id(key, member):
    """A member is its uid if it has one; the two kinds of identifiers are separate namespaces."""
    assert key == member.key


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)
def test_members_are_encoded_compactly(uid, anonymous_id):
    """A member is compact UTF-8 JSON with the identifiers that it has, and no others."""
    member = {"uid": uid} | ({} if anonymous_id is None else {"anonymous_id": anonymous_id})
    encoded = Member(uid, anonymous_id).encode()
    assert member == json.loads(encoded)
    assert len(encoded) <= len(
        json.dumps(member, ensure_ascii=False, separators=(",", ":")).encode()
    )


def test_half_a_surrogate_pair_is_a_faulty_row():
    """An identifier that is not valid text rejects its row without showing it."""
    with pytest.raises(RowError) as raised:
        identifier("secret\ud800")
    assert "invalid_identifier" == raised.value.code
    assert "secret" not in str(raised.value)
