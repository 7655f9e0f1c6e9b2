"""The errors of the Segments and the Analytics API, as MoEngage documents their bodies."""

from __future__ import annotations

import typing as t

import msgspec

Family = t.Literal["v2", "v3", "analytics"]


class Problem(Exception):  # noqa: N818 - it is an answer
    """An error of a call: its status, the title or code of its body, its message, and the rest."""

    def __init__(self, status: int, title: str, message: str, **extra: t.Any) -> None:
        super().__init__(message)
        self.status, self.title, self.message, self.extra = status, title, message, extra


class ApiReply(msgspec.Struct, frozen=True):
    """The answer to a call.

    Attributes:
        status: The status; None closes the connection without an answer.
        delay: Seconds to wait before the answer.
    """

    status: int | None
    body: bytes
    headers: dict[str, str]
    delay: float = 0.0


def invalid(family: Family, field: str, reason: str, value: object = "") -> Problem:
    """Return the error of a field that is missing or wrong."""
    if family == "v2":
        return Problem(400, "Invalid request", f"{field} - {reason} : {value}")
    title = "VALIDATION_FAILED" if family == "analytics" else "Invalid request"
    return Problem(400, title, f"{field}: {reason}")


def unauthenticated(family: Family) -> Problem:
    """Return the error of wrong credentials."""
    title = "ER001" if family == "analytics" else "Authentication required"
    return Problem(401, title, "Authentication required")


def out_of_scope(family: Family) -> Problem:
    """Return the error of a key of the workspace that is not for this API."""
    title = "ER007" if family == "analytics" else "Forbidden"
    return Problem(403, title, "The key does not have the scope of this API")


def rate_exceeded(limit: str) -> Problem:
    """Return the error of a request beyond a limit."""
    operations = "File segment operations" if limit == "file" else "Request"
    message = f"{operations} limit breached. Please retry after some time."
    return Problem(429, "Too Many Requests", message)


def body_of(problem: Problem, family: Family, number: int) -> tuple[bytes, str]:
    """Return an error's body and its content type."""
    encode = msgspec.json.encode
    if family == "v2":
        return encode({"title": problem.title, "description": problem.message}), "application/json"
    if family == "analytics" and problem.status in {401, 403}:
        fields = {"code": problem.title, "target": "request", "message": problem.message}
        return encode(fields), "text/plain"
    error = {"code": problem.title, "message": problem.message, **problem.extra}
    if family == "analytics":
        return encode({"error": error}), "application/json"
    return encode(envelope(number, error=error)), "application/json"


def envelope(number: int, **fields: t.Any) -> dict[str, t.Any]:
    """Return a body of v3 with its usual fields."""
    return {"response_id": f"emulated-{number}", "type": "custom_segment", **fields}
