from __future__ import annotations

import pytest

from target_moengage_cohort.emulator.origins import refuse

PUBLIC = ("evil.example", "evil.example:8025", "127.0.0.1.evil.example", "localhost.evil.example")
PRIVATE = (
    "127.0.0.1",
    "10.0.0.7:8025",
    "[::1]:8025",
    "localhost:8025",
    "a.localhost",
    "emulator:80",
)


@pytest.mark.parametrize("path", ["", "/_emulator/overview", "/_emulator/members?cohort_id=vip"])
@pytest.mark.parametrize("host", PUBLIC)
def test_rebinding(client, host, path):
    """Under a public name that points to loopback neither the page nor a member can be read."""
    client.add("secret")
    answer = client.session.get(client.emulator.url + path, headers={"Host": host}, timeout=10)

    assert 403 == answer.status_code
    assert b"secret" not in answer.content


@pytest.mark.parametrize("host", PRIVATE)
def test_private_names(client, host):
    """Addresses and names that can't be public are accepted."""
    answer = client.session.get(client.emulator.url, headers={"Host": host}, timeout=10)

    assert 200 == answer.status_code


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_other_origins(client, emulator, origin):
    """Another site's page can't change anything, though its browser reaches the emulator."""
    client.add("u1")
    answer = client.control("POST", "reset", headers={"Origin": origin})

    assert 403 == answer.status_code
    assert {("u1", None)} == emulator.members("vip")


def test_own_origin(client, emulator):
    """A request of the emulator's own page is accepted."""
    client.add("u1")
    answer = client.control("POST", "reset", headers={"Origin": emulator.url})

    assert 200 == answer.status_code
    assert [] == emulator.cohorts()


@pytest.mark.parametrize(
    ("host", "server", "expected"),
    [
        ("emulator.example.com", "10.0.0.7", True),  # listening for others on purpose
        ("emulator.example.com", "127.0.0.1", False),
        ("emulator.example.com", "::1", False),
        ("emulator.example.com", "::ffff:127.0.0.1", False),
        ("host.docker.internal:8025", "127.0.0.1", True),
        ("[::1", "127.0.0.1", False),
    ],
)
def test_names_over_the_network(host, server, expected):
    """A public name is refused only over loopback."""
    assert expected == (refuse(host, None, server) is None)


def test_moengage_endpoints(client, payload):
    """The endpoints that need credentials accept any host: there may be a proxy in between."""
    answer = client.post(payload("u1"), headers={"Host": "api-01.moengage.example"})

    assert 200 == answer.status_code
