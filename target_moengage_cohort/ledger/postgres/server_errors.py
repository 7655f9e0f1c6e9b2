"""Errors of PostgreSQL as those of a ledger, without any value that a statement had."""

from __future__ import annotations

import contextlib
import typing as t

import psycopg
from psycopg import errors

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError, TargetError

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TRANSIENT = "Nothing more is sent. Fix the problem, then run again"
BUSY = (errors.LockNotAvailable, errors.QueryCanceled)
"""The errors of statements that wait or take too long."""
NO_ACCESS = (errors.InsufficientPrivilege, errors.UndefinedTable, errors.InvalidSchemaName)
"""The errors of roles that lack a privilege: without `USAGE`, a schema's tables are not found."""
_READ_ONLY = (errors.ReadOnlySqlTransaction,)
_IS_READ_ONLY = "read-only"  # in libpq's text about a server that is not `target_session_attrs`
_PASSING = (_IS_READ_ONLY, "too many connections", "connection slots")
"""Parts of texts about connections that may be made later, after a password, too."""


class Target(t.NamedTuple):
    """The place and the role that an error names."""

    place: str
    role: str


def forbidden(target: Target, grants: Sequence[str]) -> LedgerError:
    """Return the error for a role that needs some more privileges."""
    msg = (
        f"the ledger {target.place} cannot be used by the role {target.role!r}, which lacks "
        f"privileges. As the owner or a superuser, run: {' '.join(grants)}"
    )
    return LedgerError("ledger_forbidden", msg)


def read_only(target: Target) -> LedgerError:
    """Return the error for a server that takes no changes."""
    msg = (
        f"the ledger {target.place} is read-only: the server is a replica, or "
        "default_transaction_read_only is on. Set ledger_uri to the primary server, then run "
        "again"
    )
    return LedgerError("ledger_read_only", msg)


def other_encoding(place: str, encoding: str) -> SettingsError:
    """Return the error for a database that cannot keep all characters."""
    msg = (
        f"ledger_uri: the database of {place} has the encoding {encoding}, which lacks "
        "characters that identifiers may have. Create a database for the ledger, and set "
        "ledger_uri to it: CREATE DATABASE ledgers ENCODING 'UTF8' TEMPLATE template0;"
    )
    return SettingsError("ledger_encoding", msg)


def unreachable(place: str, cause: str) -> LedgerError:
    """Return the error for a connection that could not be made or was lost."""
    if _IS_READ_ONLY in cause:
        return read_only(Target(place, ""))
    msg = (
        f"the ledger {place} cannot be reached ({cause}). Check ledger_uri, the password "
        f"(PGPASSWORD or a password file), the network and the server. {_TRANSIENT}"
    )
    return LedgerError("ledger_unreachable", msg)


def not_connected(place: str, error: psycopg.Error) -> LedgerError:
    """Return the error for a connection that could not be made."""
    return unreachable(place, reason(error))


def stopped(place: str) -> LedgerError:
    """Return the error for a connection that a run did not wait for, because it was stopped."""
    msg = f"the ledger {place} was not reached before the run was stopped. {_TRANSIENT}"
    return LedgerError("ledger_unreachable", msg)


def reason(error: psycopg.Error) -> str:
    """Return why a connection could not be made.

    The text is libpq's or the server's own, and names hosts, roles and databases.
    """
    lines = str(error).splitlines()
    return lines[0].strip() if lines else type(error).__name__


def may_pass(error: psycopg.Error) -> bool:
    """Return whether a connection that could not be made may be made later.

    A server that has asked for a password refuses it, or the role, unless its text says something
    that passes: libpq reports no code.
    """
    is_known = error.pgconn is not None and error.pgconn.used_password
    return not is_known or any(text in str(error) for text in _PASSING)


def explained(
    error: psycopg.Error, target: Target, grants: Sequence[str], *, is_lost: bool
) -> TargetError:
    """Return the error for what a statement has failed with.

    `grants` give the role the privileges that it lacks, as far as they are known.
    """
    place = target.place
    if isinstance(error, NO_ACCESS):
        return forbidden(target, grants) if grants else _inaccessible(error, target)
    if isinstance(error, _READ_ONLY):
        return read_only(target)
    if isinstance(error, BUSY):
        msg = (
            f"the ledger {place} is locked by another process, which may have been stopped, or the "
            "server is slow; run again"
        )
        return BusyError("ledger_busy", msg)
    if isinstance(error, errors.DiskFull):
        msg = f"the disk of the ledger's server {place} is full; free some space. {_TRANSIENT}"
        return LedgerError("ledger_unusable", msg)
    if is_lost:
        return unreachable(place, error.diag.message_primary or "the server does not answer")
    msg = f"the ledger {place} cannot be used ({_cause(error)}). {_TRANSIENT}"
    return LedgerError("ledger_unusable", msg)


def _inaccessible(error: psycopg.Error, target: Target) -> LedgerError:
    """Return the error for a statement that lacks a privilege, a table or a schema."""
    is_forbidden = isinstance(error, errors.InsufficientPrivilege)
    code = "ledger_forbidden" if is_forbidden else "ledger_unusable"
    msg = (
        f"the ledger {target.place} cannot be used by the role {target.role!r} ({_cause(error)}): "
        "it lacks privileges, or a table or schema is missing. Nothing more is sent. To see the "
        f"missing privileges, run: {suggest('check')}"
    )
    return LedgerError(code, msg)


def _cause(error: psycopg.Error) -> str:
    """Return the kind of an error, whose text may quote an identifier."""
    return f"{type(error).__name__}, {error.sqlstate}"


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore errors of a connection that is given up."""
    with contextlib.suppress(psycopg.Error, OSError):
        yield
