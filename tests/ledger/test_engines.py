"""The engines of ledgers, by the URI that names a ledger."""

import sys

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.ledger import engines
from target_moengage_cohort.settings import load
from tests.settings.support import BASE

STATE = "HOME/state/target-moengage-cohort/ledger"


def opened(uri):
    """Return the store that a URI names; nothing is created."""
    settings = load(BASE | {"ledger_uri": uri}).settings
    return engines.open_store(settings, run_id="r", wait=lambda _seconds: False)


@pytest.mark.parametrize(
    ("folder", "uri"),
    [
        (STATE, None),
        (STATE, ""),
        ("/var/lib/ledger", "/var/lib/ledger"),
        ("/var/lib/ledger", " /var/lib/ledger\n"),
        ("ledger", "ledger"),
        ("a/b:c", "a/b:c"),
        ("C:\\ledger", "C:\\ledger"),
        ("/var/lib/ledger", "file:///var/lib/ledger"),
        ("/var/lib/ledger", "FILE://localhost/var/lib/ledger"),
        ("/a b%", "file:///a%20b%25"),
        ("/a%20b", "/a%20b"),
        ("HOME/ledger", "~/ledger"),
        ("HOME/ledger", "file://~/ledger"),
        ("./~", "./~"),
    ],
)
def test_the_ledger_is_in_a_directory(monkeypatch, tmp_path, folder, uri):
    """A ledger's address is a path or a file:// URL, and a leading ~ is the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = folder.replace("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/state")
    monkeypatch.chdir(tmp_path)
    assert (tmp_path / expected).absolute() == opened(uri).directory.parent


@pytest.mark.parametrize(
    ("rule", "uri"),
    [
        ("is not a valid postgresql:// URI", "postgresql:PLANTED9"),
        ("is not a valid postgresql:// URI", "POSTGRES://user:PLANTED9@db/ledger?x=PLANTED9"),
        ("has an invalid host, port or database", "postgresql://user:PLANTED9@PLANTED9@db/ledger"),
        ("has an invalid host, port or database", "postgresql://user:PLANTED9/PLANTED9@db/ledger"),
        (
            "has an unknown scheme; use a path, or a URL with one of the schemes file://",
            "s3://PLANTED9/ledger",
        ),
        ("has an unknown scheme", "PLANTED9:ledger"),
        ("must have an absolute path after file://", "file:PLANTED9"),
        ("must have an absolute path after file://", "file://"),
        ("must have an absolute path after file://", "file://PLANTED9/ledger"),
        ("must have an absolute path after file://", "file://localhostPLANTED9"),
        ("contains invalid characters", "file:///PLANTED9%00"),
        ("contains invalid characters", "file:///PLANTED9%ff"),
        ("starts with ~, but that user has no home directory", "~PLANTED9/ledger"),
        ("must not be blank", " "),
    ],
)
def test_other_ledgers_are_refused(rule, uri):
    """A URI that names no directory is refused and not shown: it may contain a password."""
    with pytest.raises(SettingsError) as raised:
        opened(uri)
    assert "invalid_value" == raised.value.code
    assert str(raised.value).startswith(f"ledger_uri: {rule}")
    assert "PLANTED9" not in str(raised.value)


def test_an_engine_is_one_line(monkeypatch):
    """A scheme in the table of engines is all that another engine needs to be opened."""
    monkeypatch.setitem(engines.ENGINES, "other", lambda *_, **options: options["run_id"])
    assert "r" == opened("OTHER://user:password@host/ledger")


def test_a_missing_library_is_named(monkeypatch):
    """Without the extra, everything else works, and the error says what to install."""
    for name in [*sys.modules]:
        if name.partition(".")[0] == "psycopg" or ".ledger.postgres" in name:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError) as raised:
        opened("postgresql://user:PLANTED9@db/ledger")
    assert "missing_extra" == raised.value.code
    assert "pip install 'target-moengage-cohort[postgres]'" in str(raised.value)
    assert opened("ledger").place
