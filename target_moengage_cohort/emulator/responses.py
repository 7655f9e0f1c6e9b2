"""The bodies of MoEngage's answers, as documented."""

from __future__ import annotations

import typing as t

import msgspec

from .model import Fault, Refusal

JSON = {"content-type": "application/json"}

_TYPES = {
    400: "MissingAttributeError",
    401: "Authentication required",
    403: "BlockedClient",
    413: "Payload too large",
    415: "Unsupported media type",
    429: "Rate Limits Exceeded",
}


class _Error(msgspec.Struct, omit_defaults=True):
    message: str
    type: str
    request_id: str
    attribute: str | None = None


class _Failure(msgspec.Struct):
    error: _Error
    status: t.Literal["fail"] = "fail"


ACCEPTED = msgspec.json.encode(
    {
        "status": "success",
        "message": "Your request has been accepted and will be processed soon.",
    }
)
KNOWN = msgspec.json.encode({"status": "success", "app_name": "MoEngage emulator"})


def failure(refusal: Refusal, number: int) -> bytes:
    """Encode an error as JSON; the request id ends with the request's number in the log."""
    error = _Error(
        message=refusal.message,
        type=refusal.type,
        request_id=f"emulated-{number}",
        attribute=refusal.attribute,
    )
    return msgspec.json.encode(_Failure(error))


def refusal_of(fault: Fault, status: int) -> Refusal:
    """Return the documented error that a fault with a status imitates."""
    kind = fault.error_type or _TYPES.get(status, "Server Error")
    return Refusal(status, kind, fault.message or "Injected by the emulator")
