from __future__ import annotations

import pytest

from target_moengage_cohort.settings import is_loopback
from tests.settings.support import faults, messages, settings


@pytest.mark.parametrize(
    ("number", "written"),
    [
        *(("01", written) for written in ("1", 1, "01", "DC-01", "dc01", "DC_1", " dc 1 ")),
        ("101", "101"),
        ("101", 101),
        ("06", "dc-6"),
    ],
    ids=repr,
)
def test_data_centers_are_normalised(number, written):
    """A data center may be written in every form of MoEngage's pages."""
    assert f"https://api-{number}.moengage.com" == settings(data_center=written).base_url


@pytest.mark.parametrize("written", ["7", "0", "10", "eu", True, 1.0, ["1"], "-1", "https://x"])
def test_an_unknown_data_center_is_never_guessed(written):
    """There is no default, because the wrong data center is another region."""
    assert [("invalid_value", "data_center")] == faults(data_center=written)


@pytest.mark.parametrize(
    "url",
    [
        "https://proxy.example/moengage",
        "http://127.0.0.1:8025",
        "http://[::1]:80",
        "http://LocalHost",
    ],
)
def test_base_urls_are_https_or_loopback(url):
    """A custom base URL loses its trailing slash; plain http is for loopback only."""
    assert url == settings(api_url=f" {url}/\n").base_url


@pytest.mark.parametrize(
    ("rule", "url"),
    [
        ("must be https, because", "http://api-01.moengage.com"),
        ("must be https, because", "http://127.0.0.1.example"),
        ("must be https, because", "http://localhost.example"),
        ("must be https, because", "http://0.0.0.0:80"),
        ("must be an https:// URL", "ftp://127.0.0.1"),
        ("must be an https:// URL", "api-01.moengage.com"),
        ("must be an https:// URL", "https://"),
        ("must not contain credentials", "https://user@example.com"),
        ("must not contain credentials", "http://127.0.0.1@example.com"),
        ("must be ASCII without spaces or backslashes", "http://127.0.0.1\\@example.com"),
        ("must be ASCII without spaces or backslashes", "https://a b"),
        ("must not contain a query or a fragment", "https://x/?"),
        ("must not contain a query or a fragment", "https://x/#a"),
        ("is not a valid URL", "http://[::1"),
        ("is not a valid URL", "http://127.0.0.1:99999"),
        ("must be text, not an integer", 5),
    ],
)
def test_other_urls_are_refused(rule, url):
    """Credentials never go over plain http to another machine, nor to a doubtful address."""
    assert [("invalid_value", "api_url")] == faults(api_url=url)
    assert messages(api_url=url)[0].startswith(f"api_url: {rule}")


@pytest.mark.parametrize(
    ("loopback", "host"),
    [(True, "127.8.9.1"), (True, "::1"), (True, "localhost"), (False, "10.0.0.1"), (False, "")],
)
def test_loopback_is_this_machine_only(loopback, host):
    """Only a loopback address or the name localhost is this machine itself."""
    assert loopback is is_loopback(host)
