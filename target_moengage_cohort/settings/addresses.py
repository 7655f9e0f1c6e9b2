"""The settings that are addresses: where requests go, and where the ledger is."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import platformdirs

from target_moengage_cohort.core.errors import SettingsError

_FILE = "file://"


def state_path() -> Path:
    """The folder for what outlives a run, as the platform has it; it may not be there yet."""
    return Path(platformdirs.user_state_path("target-moengage-cohort"))


def api_url(url: str) -> str:
    """Check a base URL: credentials go over https only, except on loopback.

    Returns:
        The URL without a trailing slash.

    Raises:
        SettingsError: The URL breaks a rule.
    """
    fault = None
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        msg = "api_url: is no URL"
        raise SettingsError(msg) from None
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        fault = "must be ASCII without spaces or backslashes"
    elif parts.scheme not in {"http", "https"} or not host:
        fault = "must be an https:// URL with a host"
    elif parts.username is not None or parts.password is not None:
        fault = "must not hold credentials; use workspace_id and data_api_key"
    elif "?" in url or "#" in url:
        fault = "must not have a query or a fragment"
    elif parts.scheme == "http" and not is_loopback(host):
        fault = "must be https, since plain http would show the key to the network"
    if fault:
        msg = f"api_url: {fault}"
        raise SettingsError(msg)
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def ledger_folder(uri: str) -> str:
    """Check where the ledger is to be: a folder, as a path or as a ``file://`` URL.

    Returns:
        The path, with the user's home in place of ``~``.

    Raises:
        SettingsError: It is no folder's address; the message does not quote it, since the address
            of a database may hold a password.
    """
    fault, path = None, uri
    if uri.lower().startswith(_FILE):
        path = unquote(uri[len(_FILE) :]).removeprefix("localhost")
        if "\0" in path or "\N{REPLACEMENT CHARACTER}" in path:
            fault = "holds characters that are no text"
        elif not path.startswith(("/", "~")):
            fault = "must name a whole path after file://, as in file:///var/lib/ledger"
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri):
        fault = "only folders are supported yet; give a path or a file:// URL"
    elif not uri:
        fault = "must not be blank"
    if fault is None and path.startswith("~"):
        try:
            path = str(Path(path).expanduser())
        except RuntimeError:
            fault = "starts with ~ but no user of that name has a home; write the whole path"
    if fault:
        msg = f"ledger_uri: {fault}"
        raise SettingsError(msg)
    return path
