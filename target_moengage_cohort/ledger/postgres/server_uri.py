"""The URI of a PostgreSQL database: libpq's parameters, TLS by default, and a text without secrets.

libpq takes what the URI leaves out from its environment variables, a service file and a password
file.
"""

from __future__ import annotations

import configparser
import os
import re
import ssl
import typing as t
from itertools import starmap
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings.addresses import is_loopback

Parameters: t.TypeAlias = dict[str, str]

_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # milliseconds
    "fallback_application_name": "moengage-cohort",
    "client_encoding": "UTF8",
}
_ROOTS = (  # of Debian, Red Hat, and Alpine or macOS
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
_ENVIRONMENT = {  # not PGSSLMODE, which is easily left over from something else
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "sslrootcert": "PGSSLROOTCERT",
    "service": "PGSERVICE",
}
_SECRETS = {
    "password",
    "sslpassword",
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
}
_QUERY_IN_USER = "//[^:@/]*[?][^@/]*@"
"""A query that libpq takes for a user, because it has an ``@``."""
_NO_URI = "is not a valid postgresql:// URI"
_NO_SERVICE = "names a service whose file cannot be read"
_UNENCODED = (
    "has an invalid host, port or database; if user or password contain one of @ : / ? # [ ] %, "
    "write it percent-encoded, as %40 for @"
)


def parameters(uri: str) -> Parameters:
    """Return libpq's parameters of a URI; verify the server's certificate unless it says less.

    So may the service that it or ``PGSERVICE`` names, but not ``PGSSLMODE``.

    Raise a `SettingsError` that quotes nothing of it, because it may contain a password.
    """
    given = _parsed(uri)
    known = _from_environment() | given
    is_found, service = _service(known.get("service"))
    known |= service | given
    if "sslmode" not in known:
        if is_found and _is_local(known):
            known["sslmode"] = os.environ.get("PGSSLMODE", "")  # which libpq takes itself
        else:
            given["sslmode"] = known["sslmode"] = "verify-full"
    roots = Path("~/.postgresql/root.crt").expanduser()
    if known["sslmode"] == "verify-full" and "sslrootcert" not in known and not roots.exists():
        given["sslrootcert"] = system_roots()
    return _DEFAULTS | given


def without_secrets(uri: str) -> str:
    """Return a URI of the same parameters except secrets, to be shown and pasted."""
    given = {name: text for name, text in _parsed(uri).items() if name not in _SECRETS}
    user, database = (quote(given.pop(name, ""), safe="") for name in ("user", "dbname"))
    hosts, ports = (given.get(name, "").split(",") for name in ("host", "port"))
    servers = ""
    if "/" not in given.get("host", "") and len(hosts) == len(ports):  # else the query has them
        servers = ",".join(starmap(_server, zip(hosts, ports, strict=True)))
        given = {name: text for name, text in given.items() if name not in {"host", "port"}}
    query = "&".join(f"{name}={quote(text, safe='/:,')}" for name, text in given.items())
    start = f"postgresql://{user}@" if user else "postgresql://"
    return f"{start}{servers}/{database}{'?' if query else ''}{query}"


def _server(host: str, port: str) -> str:
    name = f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe="")
    return f"{name}:{port}" if port else name


def place(given: Parameters, schema: str) -> str:
    """Return where the ledger is, for messages: nothing but hosts, ports, database and schema.

    The state directory's file about a ledger is named after it, so the user must not change it.
    """
    hosts = (given.get("host") or given.get("hostaddr", "")).split(",")
    ports = given.get("port", "").split(",")
    ports = ports if len(ports) == len(hosts) else ports * len(hosts)
    pairs = zip(hosts, ports, strict=False)
    servers = ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}".rstrip(":") for h, p in pairs)
    service = f"?service={given['service']}" if "service" in given else ""
    return f"postgresql://{servers}/{given.get('dbname', '')}{service} (schema {schema})"


def system_roots() -> str:
    """Return the file of the system's root certificates.

    libpq's own ``system`` means a directory that the wheels of psycopg do not have.
    """
    candidates = (ssl.get_default_verify_paths().cafile, *_ROOTS)
    return next((path for path in candidates if path and Path(path).exists()), "system")


def _parsed(uri: str) -> Parameters:
    """Return the parameters that a URI gives."""
    scheme, _, rest = uri.partition(":")
    try:
        parts = conninfo_to_dict(f"{scheme.lower()}:{rest}")
        given = {name: str(value) for name, value in parts.items()}
    except psycopg.Error:
        raise _invalid(_NO_URI) from None
    if re.match(_QUERY_IN_USER, rest):
        raise _invalid(_UNENCODED)
    ports = given.get("port", "").replace(",", "")
    if ports and not ports.isdecimal():
        raise _invalid(_UNENCODED)
    if any(mark in given.get(name, "") for name in ("host", "dbname") for mark in "@?#"):
        raise _invalid(_UNENCODED)
    return given


def _is_local(known: Parameters) -> bool:
    """Return whether all servers are on this machine; without a host there is a Unix socket."""
    hosts = (known.get("hostaddr") or known.get("host", "")).split(",")
    if "service" in known and not any(hosts):
        return False  # they may come from an LDAP server
    return all(not host or host.startswith(("/", "@")) or is_loopback(host) for host in hosts)


def _from_environment() -> Parameters:
    """Return what environment variables say of the server and its certificate."""
    values = {name: os.environ.get(variable) for name, variable in _ENVIRONMENT.items()}
    return {name: value for name, value in values.items() if value}


def _service(name: str | None) -> tuple[bool, Parameters]:
    """Return the parameters of a service, and whether it is in a file that is known here.

    libpq also has its own directory for the system's file, which depends on how it was built.
    """
    if name is None:
        return True, {}
    files = [os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf"]
    if directory := os.environ.get("PGSYSCONFDIR"):
        files.append(f"{directory}/pg_service.conf")
    for path in files:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(Path(path).expanduser(), "utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            raise _invalid(_NO_SERVICE) from None
        if name in parser:
            return True, dict(parser[name])
    return False, {}


def _invalid(fault: str) -> SettingsError:
    return SettingsError("invalid_value", f"ledger_uri: {fault}")
