"""MoEngage's documented rules for requests, as pure functions: credentials, payload, names."""

from __future__ import annotations

import base64
import binascii
import re
import typing as t
from datetime import UTC, datetime

import msgspec

from .model import Action, CohortSync, Incoming, Refusal

if t.TYPE_CHECKING:
    from .options import Options

T = t.TypeVar("T")

MAX_NAME_LENGTH = 200
FORBIDDEN_IN_NAMES = frozenset(':|*?\\<>=$"')

UNAUTHENTICATED = Refusal(401, "Authentication required", "Authentication is required")
MISMATCH = Refusal(401, "Authentication Mismatch", "The credentials do not match")
UNSUPPORTED = Refusal(415, "Unsupported media type", "The content type must be application/json")
MALFORMED = Refusal(400, "Malformed JSON", "The body is not valid JSON")
RATE_EXCEEDED = Refusal(429, "Rate Limits Exceeded", "The limit of requests per minute is exceeded")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MISSING = re.compile(r"missing required field `(\w+)`")
_PATH = re.compile(r"at `\$\.?(\w+)(?:\.(\w+))?")

Text = t.Annotated[str, msgspec.Meta(pattern=r"\S")]
Identifier = t.Annotated[str, msgspec.Meta(min_length=1)]


class _Member(msgspec.Struct, frozen=True, gc=False):
    uid: Identifier | msgspec.UnsetType = msgspec.UNSET
    anonymous_id: Identifier | msgspec.UnsetType = msgspec.UNSET


class _Parameters(msgspec.Struct, frozen=True):
    cohort_name: Text
    cohort_id: Text
    members: t.Annotated[list[_Member], msgspec.Meta(min_length=1)]
    cohort_description: str | msgspec.UnsetType = msgspec.UNSET


class _Payload(msgspec.Struct, frozen=True):
    action: Action
    partner: Text
    parameters: _Parameters
    timestamp: str | msgspec.UnsetType = msgspec.UNSET


class _Login(msgspec.Struct, frozen=True):
    app_id: Text
    app_secret: Text
    source: Text
    region: Text


_PAYLOAD = msgspec.json.Decoder(_Payload)
_LOGIN = msgspec.json.Decoder(_Login)


def check_credentials(incoming: Incoming, options: Options) -> Refusal | None:
    """Compare HTTP Basic and `MOE-APPKEY` with the workspace's credentials."""
    if (basic := basic_credentials(incoming)) is None:
        return UNAUTHENTICATED
    expected = (options.workspace_id, options.data_api_key, options.workspace_id)
    return None if (*basic, incoming.app_key) == expected else MISMATCH


def basic_credentials(incoming: Incoming) -> tuple[str, str] | None:
    """Return the user and the password of HTTP Basic; None without well-formed ones."""
    scheme, _, encoded = (incoming.authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    if not colon:
        return None
    return user.decode(errors="replace"), password.decode(errors="replace")


def is_json(incoming: Incoming) -> bool:
    """Return whether the content type is the one that MoEngage requires."""
    return (incoming.content_type or "").partition(";")[0].strip().lower() == "application/json"


def check_login(incoming: Incoming, options: Options) -> Refusal | None:
    """Validate a request to the endpoint that only checks credentials."""
    login = _decode(_LOGIN, incoming, options.max_payload_bytes)
    if isinstance(login, Refusal):
        return login
    sent = (incoming.app_key, login.app_id, login.app_secret)
    expected = (options.workspace_id, options.workspace_id, options.data_api_key)
    return None if sent == expected else MISMATCH


def parse_sync(incoming: Incoming, max_bytes: int) -> CohortSync | Refusal:
    """Validate a request's content type, size and payload.

    Args:
        incoming: The request.
        max_bytes: The largest accepted body.

    Returns:
        The requested change, or the first documented error in this order: 415, 413, malformed
        JSON, missing or ill-typed attribute.
    """
    payload = _decode(_PAYLOAD, incoming, max_bytes)
    if isinstance(payload, Refusal):
        return payload
    timestamp = payload.timestamp or None
    moment = None if payload.timestamp is msgspec.UNSET else _moment(payload.timestamp)
    if isinstance(moment, Refusal):
        return moment
    members = payload.parameters.members
    without_uid = [member for member in members if not member.uid]
    if not all(member.anonymous_id for member in without_uid):
        return _missing("members", "A member has neither uid nor anonymous_id")
    return CohortSync(
        action=payload.action,
        partner=payload.partner,
        cohort_id=payload.parameters.cohort_id,
        cohort_name=payload.parameters.cohort_name,
        cohort_description=payload.parameters.cohort_description or None,
        timestamp=timestamp,
        moment=moment,
        by_uid={member.uid: member.anonymous_id or None for member in members if member.uid},
        by_anonymous_id={m.anonymous_id: None for m in without_uid if m.anonymous_id},
        members=len(members),
    )


def is_good_name(name: str) -> bool:
    """Return whether a cohort's name follows the documented rules."""
    return (
        bool(name.strip())
        and len(name) <= MAX_NAME_LENGTH
        and name != "All Users"
        and not name.startswith(".")
        and FORBIDDEN_IN_NAMES.isdisjoint(name)
    )


def _decode(decoder: msgspec.json.Decoder[T], incoming: Incoming, max_bytes: int) -> T | Refusal:
    if not is_json(incoming):
        return UNSUPPORTED
    if incoming.size > max_bytes:
        return Refusal(413, "Payload too large", f"The body is larger than {max_bytes} bytes")
    try:
        incoming.body.decode()
        return decoder.decode(incoming.body)
    except msgspec.ValidationError as error:
        return _ill_typed(incoming.body, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return MALFORMED


def _ill_typed(body: bytes, reason: str) -> Refusal:
    """Name the wrong attribute, unless the body is malformed further on."""
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return MALFORMED
    if missing := _MISSING.search(reason):
        return _missing(missing[1], reason)
    path = _PATH.search(reason)
    return _missing(path[2] or path[1] if path else "body", reason)


def _moment(timestamp: str) -> int | Refusal:
    try:
        parsed = msgspec.convert(timestamp, datetime)
    except msgspec.ValidationError:
        return _missing("timestamp", "The timestamp is not ISO 8601")
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    since = parsed - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _missing(attribute: str, message: str) -> Refusal:
    return Refusal(400, "MissingAttributeError", message, attribute)
