"""Promise 7 for webhooks: verified TLS, no redirect, bounded in time, no address in a message."""

import socket
import threading
import time

import pytest

from target_moengage_cohort.moengage.webhook import post
from tests.support.tls import Authority, server

HEADERS = {"Authorization": "Bearer planted"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def send(port: int, scheme: str = "https", seconds: float = 5.0):
    return post(f"{scheme}://127.0.0.1:{port}/planted", b"{}", HEADERS, seconds)


def test_only_a_trusted_receiver_gets_an_event(authority, monkeypatch):
    """A certificate that is not trusted gets neither body nor headers; a trusted one gets both."""
    with server(authority.context("127.0.0.1")) as (port, seen):
        answer = send(port)
        assert ([], False) == (seen, answer.is_refused)
        assert "TLS" in answer.fault
        assert "planted" not in answer.fault
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        assert None is send(port).fault
        assert [HEADERS["Authorization"]] == [each["Authorization"] for each in seen]


def test_a_redirect_is_not_followed():
    """A receiver that redirects has not taken the event, and its target gets nothing."""
    with (
        server(None) as (elsewhere, seen),
        server(None, f"http://127.0.0.1:{elsewhere}/") as (
            port,
            asked,
        ),
    ):
        assert "307" in send(port, "http").fault
    assert (1, []) == (len(asked), seen)


def test_a_proxy_is_not_used_on_loopback(monkeypatch):
    """Plain http never leaves this machine by a proxy of the environment."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with server(None) as (port, seen):
        assert None is send(port, "http").fault
    assert 1 == len(seen)


def test_a_trickling_receiver_is_not_waited_for():
    """A receiver that sends a byte now and then is given up after the time that there is."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle():
            connection, _ = listener.accept()
            with connection:
                while not ended.wait(0.05):
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        fault = send(listener.getsockname()[1], "http", seconds=0.5).fault
        assert time.monotonic() - began < 3
        ended.set()
        thread.join()
    assert fault is not None
    assert "planted" not in fault
