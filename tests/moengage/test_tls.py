"""Promise 7: credentials are sent to MoEngage over verified TLS, and nowhere else."""

import socket
import sys
from base64 import b64encode

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.settings import load
from tests.support.emulator import EmulatorProcess
from tests.support.singer import config, finish, lines, record, schema, start
from tests.support.tls import Authority, proxy, server

KEY = "planted-key-7f3a9c"
NAME = "moengage.invalid"  # which no name server knows; the proxy does
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """Leave out the proxies that this environment may have."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def sync(folder, url, **variables):
    """Run the target on one row, as a process."""
    settings = {
        "workspace_id": "w",
        "data_api_key": KEY,
        "data_center": "01",
        "partner": "acme",
        "api_url": url,
        "max_retry_seconds": 0,
        "request_timeout_seconds": 10,
    }
    process = start(folder / "home", settings, **variables, LOGLEVEL="DEBUG")
    ended = finish(process, lines(schema(), record(uid="u")))
    assert KEY not in ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


def trusting(authority):
    return {"REQUESTS_CA_BUNDLE": str(authority.file)}


def test_a_ca_of_ones_own_is_trusted_if_it_is_named(tmp_path, authority):
    """With REQUESTS_CA_BUNDLE a certificate of a private CA is trusted, and the request arrives."""
    with server(authority.context("127.0.0.1")) as (port, seen):
        assert 0 == sync(tmp_path, f"https://127.0.0.1:{port}", **trusting(authority)).code
    basic = b64encode(f"w:{KEY}".encode()).decode()
    assert [f"Basic {basic}"] == [headers["Authorization"] for headers in seen]


@pytest.mark.parametrize(
    ("why", "host", "days", "is_trusted"),
    [
        ("unable to get local issuer certificate", "127.0.0.1", 1, False),
        ("mismatch", "127.0.0.2", 1, True),
        ("certificate has expired", "127.0.0.1", -1, True),
    ],
    ids=["unknown CA", "another host", "expired"],
)
def test_a_wrong_certificate_is_refused(tmp_path, authority, why, host, days, is_trusted):
    """An untrusted certificate ends the run. The message has the reason and the remedy, and the
    server receives nothing."""
    with server(authority.context(host, days=days)) as (port, seen):
        variables = trusting(authority) if is_trusted else {}
        ended = sync(tmp_path, f"https://127.0.0.1:{port}", **variables)
    assert 1 == ended.code
    assert "the server's TLS certificate is not trusted" in ended.stderr
    assert why in ended.stderr
    assert "REQUESTS_CA_BUNDLE" in ended.stderr
    assert [] == seen


def test_a_server_without_tls_gets_nothing(tmp_path):
    """If https is configured, plain HTTP is never used instead."""
    with server(None) as (port, seen):
        assert 1 == sync(tmp_path, f"https://127.0.0.1:{port}").code
    assert [] == seen


@pytest.mark.parametrize("is_https", [True, False], ids=["https", "http"])
def test_a_redirect_is_followed_nowhere(tmp_path, authority, is_https):
    """Neither another host nor the same one without TLS receives the credentials or a request."""
    context = authority.context("localhost", "127.0.0.1")
    scheme = "https://localhost" if is_https else "http://127.0.0.1"
    with (
        server(context if is_https else None) as (elsewhere, strays),
        server(context, f"{scheme}:{elsewhere}/v1/integrations/cohortsync") as (port, seen),
    ):
        ended = sync(tmp_path, f"https://127.0.0.1:{port}", **trusting(authority))
    assert (1, 1) == (ended.code, len(seen))
    assert [] == strays


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_from_the_environment_is_used_and_sees_nothing(tmp_path, authority, variable):
    """A request passes through the proxy in the environment, in a tunnel in which the proxy can
    read neither credentials nor members."""
    with server(authority.context(NAME)) as (port, seen), proxy(port) as (through, asked):
        variables = trusting(authority) | {variable: f"http://127.0.0.1:{through}"}
        assert 0 == sync(tmp_path, f"https://{NAME}", **variables).code
    assert 1 == len(seen)
    assert [["CONNECT", f"{NAME}:443"]] == [head.split()[:2] for head in asked]
    assert "authorization" not in asked[0].lower()
    assert "MOE-APPKEY" not in asked[0]


def test_no_proxy_names_hosts_that_need_none(tmp_path, authority):
    """A host in NO_PROXY is contacted directly."""
    with server(authority.context("0.0.0.0")) as (port, seen), proxy(port) as (through, asked):
        variables = {"HTTPS_PROXY": f"http://127.0.0.1:{through}", "NO_PROXY": "0.0.0.0"}
        url = f"https://0.0.0.0:{port}"  # which is this machine, though no loopback address
        assert 0 == sync(tmp_path, url, **trusting(authority), **variables).code
    assert (1, []) == (len(seen), asked)


@pytest.mark.parametrize(
    "host", ["api-01.moengage.com", "0.0.0.0", "10.0.0.1", "localhost.evil.example", "[::2]"]
)
def test_plain_http_is_for_loopback_alone(host):
    """Without TLS, any host but this machine is refused before anything is sent."""
    with Emulator() as emulator, pytest.raises(SettingsError, match="api_url: must be https"):
        load(config(emulator, api_url=f"http://{host}"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 must be set up first")
def test_the_emulator_listens_on_loopback_alone_unless_told():
    """By default the emulator is not reachable at a non-loopback address; --host changes that."""
    with EmulatorProcess() as emulator:
        port = int(emulator.url.rpartition(":")[2])
        assert f"http://127.0.0.1:{port}" == emulator.url
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))
    with Emulator(host="0.0.0.0") as exposed:
        port = int(exposed.url.rpartition(":")[2])
        socket.create_connection(("127.0.0.2", port)).close()
