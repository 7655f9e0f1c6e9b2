"""Members, cohorts and changes of membership, with their rules."""

from __future__ import annotations

import enum
import typing as t
from decimal import Decimal

import msgspec

from target_moengage_cohort.core.errors import RowError

Key: t.TypeAlias = "str | tuple[str]"
"""A member within a cohort: its ``uid``, or ``(anonymous_id,)`` without one; two namespaces."""

COHORT_NAME_MAX_LENGTH = 200
COHORT_NAME_FORBIDDEN = ':|*?\\<>=$"'

_MAX_DIGITS = 1_000  # of an identifier; keeps `1e999999999` from becoming a gigabyte
_TOO_LARGE = 10**_MAX_DIGITS
_TOO_MANY_DIGITS = f"is a number with more than {_MAX_DIGITS} digits"
_EXACT_FLOATS = 2**53  # up to which a float has every whole number
_ESCAPED_BYTES = 6  # the most that a character takes as JSON in UTF-8
_MEMBER_BYTES = 40  # the most that a member takes without its identifiers

_encode = msgspec.json.Encoder().encode


class Action(enum.StrEnum):
    """The effect of a change; the values are those of the Cohort Sync API's ``action``."""

    ADD = "add_members"
    REMOVE = "remove_members"


class SyncMode(enum.StrEnum):
    """The way in which a stream's records become changes."""

    INCREMENTAL = "incremental"
    ADD = "add"
    REMOVE = "remove"
    MIRROR = "mirror"
    ONE_TIME = "one_time"


SNAPSHOT_MODES = frozenset({SyncMode.MIRROR, SyncMode.ONE_TIME})
"""The modes in which a stream's records are the whole cohort."""


class Cohort(msgspec.Struct, frozen=True):
    """A cohort as sent to MoEngage; `name` is that of its segment, see `cohort_name_fault`."""

    cohort_id: str
    name: str
    description: str | None = None


class Member(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The identifiers by which MoEngage looks up a user; at least one is set."""

    uid: str | None = None
    anonymous_id: str | None = None

    @property
    def key(self) -> Key:
        """The uid if there is one, else the anonymous id in its own namespace."""
        if self.uid is not None:
            return self.uid
        return (t.cast("str", self.anonymous_id),)

    def encode(self) -> bytes:
        """Return the member as an element of ``parameters.members``: compact JSON in UTF-8."""
        return _encode(self)

    def check_size(self, room: int) -> None:
        """Raise a `RowError` unless the encoded member fits into a request's bytes for members."""
        # Encoding takes time, so only long members are encoded for that.
        longest = max(len(self.uid or ""), len(self.anonymous_id or ""))
        if largest_size(longest, has_both=True) > room and (size := len(self.encode())) > room:
            reason = f"the member takes {size} bytes, and a request has room for {room}"
            raise RowError("member_too_large", f"{reason} (max_payload_bytes)")


def largest_size(longest: int, *, has_both: bool) -> int:
    """Return the most bytes that an encoded member can take, given its longest identifier."""
    return _MEMBER_BYTES + _ESCAPED_BYTES * longest * (1 + has_both)


class Change(msgspec.Struct, frozen=True, gc=False):
    """An addition of one member to a cohort, or its removal."""

    cohort: Cohort
    action: Action
    member: Member


def cohort_name_fault(name: str) -> str | None:
    """Return the rule of MoEngage's documentation that a name breaks, or ``None``."""
    if not name.strip():
        return "must not be blank"
    if len(name) > COHORT_NAME_MAX_LENGTH:
        return f"must have at most {COHORT_NAME_MAX_LENGTH} characters, not {len(name)}"
    if name.strip().casefold() == "all users":
        return "must not be 'All Users', which MoEngage reserves"
    if name.startswith("."):
        return "must not start with a period"
    if bad := [character for character in COHORT_NAME_FORBIDDEN if character in name]:
        quoted = (f"'{character}'" for character in bad)
        return f"must not contain {', '.join(quoted)}"
    return None


def identifier(value: object) -> str | None:
    """Return a record's value as an identifier: never trimmed, and never through a float.

    Null and empty mean absent: ``None``. A value without a meaning raises a `RowError`. The reader
    decodes numbers other than integers as `Decimal`. Only one that was written with an exponent has
    an exponent of 0 or more there.
    """
    if isinstance(value, str):
        if not value.isascii() and value.encode(errors="replace").decode() != value:
            raise RowError("invalid_identifier", "contains half of a surrogate pair")
        return value or None
    if value is None or value is msgspec.UNSET:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if -_TOO_LARGE < value < _TOO_LARGE:
            return str(value)
        raise RowError("invalid_identifier", _TOO_MANY_DIGITS)
    if isinstance(value, Decimal):
        return _whole_number(value)
    reason = "is neither text nor a whole number"
    if isinstance(value, float):
        reason = "is a float, which may have lost digits; make it text or an integer"
    raise RowError("invalid_identifier", "is a boolean" if isinstance(value, bool) else reason)


def is_padded(text: str) -> bool:
    """Return whether an identifier begins or ends with white space."""
    return text != text.strip()


def _whole_number(value: Decimal) -> str:
    if not value.is_finite() or value.adjusted() >= _MAX_DIGITS:
        raise RowError("invalid_identifier", _TOO_MANY_DIGITS)
    if value != (whole := int(value)):
        raise RowError("invalid_identifier", "is a number with a fraction")
    if t.cast("int", value.as_tuple().exponent) >= 0 and abs(whole) > _EXACT_FLOATS:
        reason = (
            "is a number with an exponent beyond 2^53, so it came through a float and has lost "
            "digits; make it text or an integer"
        )
        raise RowError("invalid_identifier", reason)
    return str(whole)


_MEMBERSHIP: dict[object, Action] = {
    **dict.fromkeys((1, "1", "true", "t", "yes", "y", "add"), Action.ADD),
    **dict.fromkeys((0, "0", "false", "f", "no", "n", "remove"), Action.REMOVE),
}


def membership(value: object) -> Action:
    """Return what a value of a ``membership_column`` means for the record's member.

    Text counts in any case. Any value without a meaning, null and absent too, raises a `RowError`.
    """
    if isinstance(value, str):
        value = value.lower()
    action = _MEMBERSHIP.get(value) if isinstance(value, (str, int, Decimal)) else None
    if action is None:
        reason = "must be a boolean, 0/1, true/false, t/f, yes/no, y/n or add/remove"
        is_null = value is None or value is msgspec.UNSET
        raise RowError("invalid_membership", "is null" if is_null else reason)
    return action
