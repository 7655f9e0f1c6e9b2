"""The URI of a server: TLS by default, and no secret in what is shown."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.ledger.postgres import server_uri

VARIABLES = (
    "PGHOST PGHOSTADDR PGSSLMODE PGSSLROOTCERT PGSERVICE PGSERVICEFILE PGPASSWORD PGPASSFILE"
    " PGSYSCONFDIR"
)
SERVICES = """
[plain]
host=db.example.com
password=PLANTED9
[lax]
host=db.example.com
sslmode=require
[local]
host=127.0.0.1
[hostless]
user=u
"""
SYSTEM = """
[lax-of-system]
host=db.example.com
sslmode=require
"""


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """Have no variable of libpq, and a home with some services."""
    for name in VARIABLES.split():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".pg_service.conf").write_text(SERVICES)
    (tmp_path / "pg_service.conf").write_text(SYSTEM)
    return tmp_path


@pytest.mark.parametrize(
    ("mode", "uri", "variables"),
    [
        ("verify-full", "postgresql://u:PLANTED9@db.example.com/x", {}),
        ("verify-full", "postgres://db.example.com", {}),
        ("verify-full", "postgresql://127.0.0.1,db.example.com/x", {}),
        ("verify-full", "postgresql:///x?host=10.0.0.7", {}),
        ("verify-full", "postgresql://localhost/x?hostaddr=10.0.0.7", {}),
        ("verify-full", "postgresql:///x", {"PGHOST": "db.example.com"}),
        ("verify-full", "postgresql:///x?service=plain", {}),
        ("verify-full", "postgresql:///x", {"PGSERVICE": "plain"}),
        ("verify-full", "postgresql:///x?service=hostless", {}),
        ("verify-full", "postgresql:///x?service=of-the-system", {}),
        ("verify-full", "postgresql:///x?service=of-the-system", {"PGHOST": "127.0.0.1"}),
        ("verify-full", "postgresql://127.0.0.1/x?service=of-the-system", {}),
        ("verify-full", "postgresql:///x", {"PGSERVICE": "of-the-system"}),
        (None, "postgresql:///x?service=lax-of-system", {"PGSYSCONFDIR": "~"}),
        ("require", "postgresql://db.example.com/x?sslmode=require", {}),
        ("disable", "postgresql://db.example.com/x?sslmode=disable", {}),
        *(
            ("verify-full", "postgresql://db.example.com/x", {"PGSSLMODE": mode})
            for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
        ),
        ("verify-full", "postgresql:///x?service=plain", {"PGSSLMODE": "disable"}),
        ("require", "postgresql://db.example.com/x?sslmode=require", {"PGSSLMODE": "disable"}),
        (None, "postgresql:///x?service=lax", {"PGSSLMODE": "disable"}),
        (None, "postgresql://127.0.0.1/x", {"PGSSLMODE": "disable"}),
        (None, "postgresql:///x?service=lax", {}),
        (None, "postgresql:///x", {"PGSERVICE": "lax"}),
        (None, "postgresql:///x?service=local", {}),
        (None, "postgresql:///x", {}),
        (None, "postgresql:///x?host=/run/postgresql", {}),
        (None, "postgresql://%2Frun%2Fpostgresql/x", {}),
        (None, "postgresql://localhost:5433/x", {}),
        (None, "postgresql://[::1]/x", {}),
        (None, "postgresql://127.0.0.1,localhost/x", {}),
    ],
)
def test_the_certificate_is_verified_unless_the_uri_says_less(monkeypatch, mode, uri, variables):
    """Without a word about TLS the server must prove its name, except on this machine."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert mode == server_uri.parameters(uri).get("sslmode")


def test_the_systems_roots_are_trusted_unless_others_are_named(environment, monkeypatch):
    """Root certificates are the system's, or those of the URI, or of `PGSSLROOTCERT`, which libpq
    reads itself, or the user's own."""
    uri = "postgresql://db.example.com/x"
    assert server_uri.system_roots() == server_uri.parameters(uri)["sslrootcert"]
    named = server_uri.parameters(f"{uri}?sslrootcert=/etc/ours.pem")
    assert ("verify-full", "/etc/ours.pem") == (named["sslmode"], named["sslrootcert"])
    assert "sslrootcert" not in server_uri.parameters(f"{uri}?sslmode=require")
    monkeypatch.setenv("PGSSLROOTCERT", "/etc/ours.pem")
    for mode in ("disable", "verify-ca"):
        monkeypatch.setenv("PGSSLMODE", mode)
        by_variable = server_uri.parameters(uri)
        assert ("verify-full", None) == (by_variable["sslmode"], by_variable.get("sslrootcert"))
    monkeypatch.delenv("PGSSLROOTCERT")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert server_uri.system_roots() == server_uri.parameters("postgresql:///x")["sslrootcert"]
    own = environment / ".postgresql" / "root.crt"
    own.parent.mkdir()
    own.touch()
    assert "sslrootcert" not in server_uri.parameters(uri)


@pytest.mark.parametrize(
    ("place", "uri"),
    [
        ("postgresql://db:5433/x (schema s)", "postgresql://u:PLANTED9@db:5433/x"),
        ("postgresql://db/x (schema s)", "postgresql://u@db/x?password=PLANTED9"),
        ("postgresql://db/x (schema s)", "postgresql://u@db/x?sslpassword=PLANTED9"),
        ("postgresql://a:1,b:2/x (schema s)", "postgresql://u:PLANTED9@a:1,b:2/x"),
        ("postgresql://[::1]:1/x (schema s)", "postgresql://u:PLANTED9@[::1]:1/x"),
        ("postgresql:///?service=plain (schema s)", "postgresql://?service=plain"),
        ("postgresql:///x (schema s)", "POSTGRESQL:///x"),
    ],
)
def test_the_place_has_no_secret(place, uri):
    """Messages show hosts, ports, database and service only."""
    assert place == server_uri.place(server_uri.parameters(uri), "s")


@pytest.mark.parametrize(
    ("shown", "uri"),
    [
        ("postgresql://u@db:5433/x", "postgresql://u:PLANTED9@db:5433/x"),
        ("postgresql://u@db/x", "postgres://u@db/x?password=PLANTED9"),
        ("postgresql://db/x?sslmode=require", "postgresql://db/x?sslpassword=PLANTED9&ssl=true"),
        ("postgresql://u%40v%2F%25@db/x%2Fy", "postgresql://u%40v%2f%25:PLANTED9@db/x%2Fy"),
        ("postgresql://u@a:1,b:2/x", "postgresql://u:PLANTED9@a:1,b:2/x"),
        ("postgresql://a,b:2/", "postgresql://a,b:2"),
        ("postgresql:///x?host=a,b&port=1", "postgresql:///x?host=a,b&port=1"),
        ("postgresql://u@[::1]:1/x", "postgresql://u:PLANTED9@[::1]:1/x"),
        ("postgresql://[fe80::1%25eth0]:1/x", "postgresql://[fe80::1%25eth0]:1/x"),
        ("postgresql://u@/x?host=/run/p", "postgresql://u:PLANTED9@%2Frun%2Fp/x"),
        ("postgresql://u@:5433/x", "postgresql://u:PLANTED9@:5433/x"),
        ("postgresql:///?service=plain", "postgresql://?service=plain"),
        ("postgresql://db/x?options=-c%20y%3Dz%26", "postgresql://db/x?options=-c%20y%3dz%26"),
        ("postgresql:///x", "POSTGRESQL:///x"),
    ],
)
def test_a_uri_is_shown_without_its_secrets(shown, uri):
    """What is shown has the same parameters as the URI, except passwords."""
    assert shown == server_uri.without_secrets(uri)
    expected, found = (conninfo_to_dict(each.lower()) for each in (uri, shown))
    assert found == {name: text for name, text in expected.items() if "password" not in name}


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://db?password=PLANTED9@",
        "postgresql:PLANTED9",
        "postgresql://u:p@PLANTED9@db/x",
        "postgresql://u:PLANTED9/PLANTED9@db/x",
        "postgresql://db/x?PLANTED9=1",
        "postgresql://db:PLANTED9/x",
        "postgresql://u:%PLANTED9@db/x",
    ],
)
def test_a_uri_that_is_misread_is_refused_and_not_shown(uri):
    """A password with characters that must be encoded is not taken for a host, port or database."""
    with pytest.raises(SettingsError) as raised:
        server_uri.parameters(uri)
    assert "invalid_value" == raised.value.code
    assert "PLANTED9" not in str(raised.value)
