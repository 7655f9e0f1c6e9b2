"""The settings that are addresses of the destination, and the directory for state."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from target_moengage_cohort.core.errors import SettingsError

DATA_CENTERS = ("01", "02", "03", "04", "05", "06", "101")


def state_path() -> Path:
    """Return the platform's directory for state that outlives a run; it may not exist yet."""
    return Path(platformdirs.user_state_path("target-moengage-cohort"))


def data_center(value: object) -> str:
    """Return the number of a data center that is written as `1`, `01`, `DC-01`, `dc01` or `101`."""
    match = re.fullmatch(r"(?:dc[-_ ]?)?0*([1-9]\d*)", str(value).strip(), re.IGNORECASE)
    number = match.group(1).zfill(2) if match and isinstance(value, (str, int)) else ""
    if number not in DATA_CENTERS:
        msg = (
            f"data_center: must be one of {', '.join(DATA_CENTERS)}; there is no default, "
            "because a wrong value would send data to another region"
        )
        raise SettingsError("invalid_value", msg)
    return number


def api_url(url: str) -> str:
    """Return a base URL without its trailing slash, if it is valid and keeps the key private."""
    fault = None
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SettingsError("invalid_value", "api_url: is not a valid URL") from None
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        fault = "must be ASCII without spaces or backslashes"
    elif parts.scheme not in {"http", "https"} or not host:
        fault = "must be an https:// URL with a host"
    elif parts.username is not None or parts.password is not None:
        fault = "must not contain credentials; use workspace_id and data_api_key"
    elif "?" in url or "#" in url:
        fault = "must not contain a query or a fragment"
    elif parts.scheme == "http" and not is_loopback(host):
        fault = "must be https, because plain http would expose the key to the network"
    if fault:
        raise SettingsError("invalid_value", f"api_url: {fault}")
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a URL's host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
