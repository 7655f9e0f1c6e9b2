"""The rules of the settings for alerts."""

from __future__ import annotations

import re
import typing as t
from urllib.parse import urlsplit

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings.addresses import is_loopback

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.settings.declared import Settings

EVENTS = ("failed", "withheld", "missing_input", "turnover", "recovered")
"""The changes of a stream's state, the most urgent first."""


def alert_faults(settings: Settings) -> Iterator[SettingsError]:
    """Yield a fault for each rule that the settings for alerts break; none quotes a value."""
    if settings.notify_url is not None and (fault := _url_fault(settings.notify_url)) is not None:
        yield SettingsError("invalid_value", f"notify_url: {fault}")
    if settings.notified_events.difference(EVENTS):
        msg = f"notify_on: contains an unknown event; the events are {', '.join(EVENTS)}"
        yield SettingsError("invalid_value", msg)
    for name, value in settings.notify_headers.items():
        is_value = isinstance(value, str) and re.fullmatch(r"[ -~]+", value) is not None
        if not (is_value and re.fullmatch(r"[!#-'*+.^-`|~0-9A-Za-z-]+", name)):
            msg = "notify_headers: must be an object of header names and ASCII texts"
            yield SettingsError("invalid_value", msg)
            break
    if (settings.alert_turnover_percent is None) is ("turnover" in settings.notified_events):
        msg = (
            "alert_turnover_percent: requires turnover in notify_on, and turnover requires "
            "it; set both or neither"
        )
        yield SettingsError("conflicting_settings", msg)


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a valid URL"
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        return "must be ASCII without spaces or backslashes"
    if parts.scheme not in {"http", "https"} or not host:
        return "must be an https:// URL with a host"
    if parts.scheme == "http" and not is_loopback(host):
        return "must be https, because plain http would expose it to the network"
    if "@" in parts.netloc:
        return "must not contain credentials, because they would not be sent; use notify_headers"
    return None
