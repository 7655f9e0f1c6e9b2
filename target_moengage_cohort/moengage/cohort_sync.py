"""The Cohort Sync API's requests: paths and bodies; pure."""

from __future__ import annotations

import typing as t

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.membership import Action, Cohort
    from target_moengage_cohort.settings import Settings

COHORT_SYNC_PATH = "/v1/integrations/cohortsync"
AUTHENTICATION_PATH = "/v1/integrations/authentication"
_TIMESTAMP = "2026-11-22T04:00:00.123Z"  # every timestamp has this length

_encode = msgspec.json.Encoder().encode


class Envelope(msgspec.Struct, frozen=True):
    """Everything in a cohort's request bodies except the members."""

    cohort: Cohort
    partner: str
    send_timestamp: bool

    def body(self, action: Action, timestamp: str, members: bytes) -> bytes:
        """Return a request body, compact JSON in UTF-8, around encoded members with commas."""
        cohort = self.cohort
        head: dict[str, t.Any] = {"action": action, "partner": self.partner}
        if self.send_timestamp:
            head["timestamp"] = timestamp
        parameters = {"cohort_name": cohort.name, "cohort_id": cohort.cohort_id}
        if cohort.description is not None:
            parameters["cohort_description"] = cohort.description
        parts = (_encode(head)[:-1], _encode(parameters)[:-1], members)
        return b'%b,"parameters":%b,"members":[%b]}}' % parts

    def overhead(self, action: Action) -> int:
        """Return the number of bytes of a body without members."""
        return len(self.body(action, _TIMESTAMP, b""))


def identifiers(body: bytes) -> Iterator[str]:
    """Yield every identifier in a request body; that of a log-in has none."""
    for member in msgspec.json.decode(body).get("parameters", {"members": []})["members"]:
        yield from member.values()


def log_in_body(settings: Settings) -> bytes:
    """Return the body of a request that has MoEngage check the credentials."""
    return _encode(
        {
            "app_id": settings.workspace_id,
            "app_secret": settings.data_api_key,
            "source": settings.partner,
            "region": settings.data_center,
        }
    )
