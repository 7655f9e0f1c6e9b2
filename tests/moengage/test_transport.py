from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from base64 import b64encode
from urllib.parse import urlsplit

import msgspec
import pytest

from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.emulator import Emulator, ManualClock
from target_moengage_cohort.moengage.answers import Outcome
from target_moengage_cohort.moengage.cohort_sync import COHORT_SYNC_PATH, Envelope
from target_moengage_cohort.moengage.transport import Transport
from target_moengage_cohort.settings import load

KEY = "Key-0f9a8b7c6d"
ACCEPTED = b'{"status":"success"}'


def body(*uids) -> bytes:
    members = b",".join(Member(uid).encode() for uid in uids or ("u1",))
    envelope = Envelope(Cohort("vip", "VIP"), "acme", send_timestamp=True)
    return envelope.body(Action.ADD, iso_utc(1_800_000_000.123), members)


def client(url, key=KEY, timeout=5.0, workspace_id="ws") -> Transport:
    raw = {"workspace_id": workspace_id, "data_api_key": key, "data_center": "01"}
    settings = load(raw | {"partner": "acme", "api_url": url}).settings
    return Transport(msgspec.structs.replace(settings, request_timeout_seconds=timeout))


def response(content=ACCEPTED, status="200 OK", *headers, length=None) -> bytes:
    size = f"Content-Length: {length or len(content)}"
    lines = [f"HTTP/1.1 {status}", size, "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


class Server:
    """A server on loopback that gives each connection one prepared answer and keeps the
    requests."""

    def __init__(self, *answers, stall=False):
        self.requests = []
        self._answers = answers
        self._stall = threading.Event() if stall else None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        if self._stall is not None:
            self._stall.set()
        with contextlib.suppress(OSError):  # wakes `accept` on any system
            socket.create_connection(self._listener.getsockname(), timeout=1).close()
        self._thread.join()
        self._listener.close()

    def _serve(self):
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                request = self._request(connection)
                if not request:
                    return
                self.requests.append(request)
                with contextlib.suppress(OSError):
                    connection.sendall(answer)
                if self._stall is not None:
                    self._stall.wait()

    @staticmethod
    def _request(connection) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data or not data.endswith(b"]}}"):
            if not (more := connection.recv(65_536)):
                break
            data += more
        return data


def headers(request) -> dict[str, str]:
    head = request.split(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}


@pytest.fixture(scope="module")
def shared_emulator():
    with Emulator(clock=ManualClock()) as running:
        yield running


@pytest.fixture
def emulator(shared_emulator):
    shared_emulator.reset()
    return shared_emulator


def of(emulator, **changes) -> Transport:
    credentials = {"key": emulator.data_api_key, "workspace_id": emulator.workspace_id}
    return client(emulator.url, **credentials | changes)


def test_an_accepted_request(emulator):
    """A valid body is accepted, and its members are in the cohort."""
    assert Outcome.ACCEPTED is of(emulator).send(body("u1", "\u00fc2")).outcome
    assert {("u1", None), ("\u00fc2", None)} == emulator.members("vip")


@pytest.mark.parametrize("wrong", [{"key": "other"}, {"workspace_id": "other"}], ids=str)
def test_credentials_that_are_refused(emulator, wrong):
    """A wrong key or workspace is reported as such, without being shown."""
    answer = of(emulator, **wrong).send(body())
    assert Outcome.CREDENTIALS is answer.outcome
    assert answer.summary.startswith("HTTP 401 Authentication")


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Outcome.RETRY, 503), (Outcome.TOO_LARGE, 413), (Outcome.UNEXPECTED, 404)],
)
def test_other_answers_are_classified(emulator, outcome, status):
    """A status becomes an outcome and never an exception."""
    emulator.fail_next(status)
    answer = of(emulator).send(body())
    assert outcome is answer.outcome
    assert answer.summary.startswith(f"HTTP {status}")


def test_a_rate_limit_says_how_long_to_wait():
    """The header's name is found in any case."""
    with Server(response(b"{}", "429 Slow", "RETRY-AFTER: 7")) as server:
        answer = client(server.url).send(body())
    assert (Outcome.RATE_LIMITED, 7.0) == (answer.outcome, answer.wait_seconds)


def test_an_error_that_quotes_a_member_is_scrubbed(emulator):
    """A message of MoEngage never shows a member's id or the key."""
    emulator.poison(["pl4nt3d-1"], message="No user {id}, key " + emulator.data_api_key)
    answer = of(emulator).send(body("u1", "pl4nt3d-1"))
    assert Outcome.REFUSED is answer.outcome
    assert "No user [redacted], key [redacted]" in answer.summary


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dropped_connection_is_tried_again(emulator, when):
    """A dropped request may or may not have been applied, so the same bytes may be sent again, and
    are accepted."""
    emulator.drop_next(when=when)
    transport = of(emulator)
    answer = transport.send(body())
    assert Outcome.RETRY is answer.outcome
    host = urlsplit(emulator.url).netloc
    assert f"{host}: the connection failed (ConnectionResetError)" == answer.summary
    assert Outcome.ACCEPTED is transport.send(body()).outcome


def test_a_refused_connection():
    """A refused connection is retried."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    answer = client(f"http://127.0.0.1:{port}").send(body())
    summary = f"127.0.0.1:{port}: the connection failed (ConnectionRefusedError)"
    expected = (Outcome.RETRY, summary)
    assert expected == (answer.outcome, answer.summary)


def test_the_request_is_exactly_as_documented(tmp_path, monkeypatch):
    """Path, credentials and headers are ours, even if a netrc file has others for the host."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with Server(response()) as server:
        assert Outcome.ACCEPTED is client(server.url + "/base/").send(body()).outcome
    (request,) = server.requests
    assert request.startswith(f"POST /base{COHORT_SYNC_PATH} HTTP/1.1\r\n".encode())
    assert body() == request.split(b"\r\n\r\n", 1)[1]
    sent = headers(request)
    basic = b64encode(f"ws:{KEY}".encode()).decode()
    assert ("ws", f"Basic {basic}") == (sent["moe-appkey"], sent["authorization"])
    assert ("application/json", str(len(body()))) == (sent["content-type"], sent["content-length"])
    assert sent["user-agent"].startswith("target-moengage-cohort/")
    assert "cookie" not in sent


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_no_proxy_stands_between_us_and_loopback(monkeypatch, name):
    """Plain http is for this machine only: a proxy in the environment never receives the key."""
    for variable in ("no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(variable, raising=False)
    with Server(response()) as proxy, Server(response(), response()) as server:
        monkeypatch.setenv(name, proxy.url)
        send = client(server.url).send
        assert [Outcome.ACCEPTED] * 2 == [send(body()).outcome for _ in range(2)]
    assert [] == proxy.requests


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Again", "308 Moved"])
def test_redirects_are_refused(status):
    """Credentials and members are never sent to an address that an answer names."""
    with Server(response()) as elsewhere:
        redirect = response(b"", status, f"Location: {elsewhere.url}/", length=0)
        with Server(redirect) as server:
            answer = client(server.url).send(body())
    assert (Outcome.UNEXPECTED, f"HTTP {status[:3]}") == (answer.outcome, answer.summary)
    assert [] == elsewhere.requests


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (Outcome.UNEXPECTED, response(b"<html>pl4nt3d")),
        (Outcome.RETRY, response(b"")),
        (Outcome.ACCEPTED, response(ACCEPTED, "200 OK", "X-Other: a")),
        (Outcome.RETRY, response(ACCEPTED, length=500)),
        (Outcome.RETRY, b""),
        (Outcome.RETRY, b"garbage pl4nt3d\r\n\r\n"),
        (Outcome.RETRY, b"HTTP/1.1 pl4nt3d OK\r\n\r\n"),
        (Outcome.RETRY, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\npl4nt3d"),
        (Outcome.RETRY, response(b"x" * 900_000, "503 Busy")),
        (Outcome.RETRY, response(b'{"x":"' + b"x" * 900_000 + b'","status":"success"}')),
    ],
    ids=["html", "empty", "good", "cut", "nothing", "no http", "status", "chunks", "large", "long"],
)
def test_other_bytes_than_an_answer(outcome, answer):
    """Any bytes in place of an answer are classified, and none of them are shown."""
    with Server(answer) as server:
        classified = client(server.url).send(body())
    assert outcome is classified.outcome
    assert "pl4nt3d" not in classified.summary


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\n", response(ACCEPTED, length=500)], ids=["", "head", "body"]
)
def test_a_server_that_stalls_is_not_waited_for(start):
    """After the time-out the answer counts as missing, even if a part of it has arrived."""
    with Server(start, stall=True) as server:
        answer = client(server.url, timeout=0.05).send(body())
    assert Outcome.RETRY is answer.outcome


def test_threads_do_not_share_a_connection(emulator):
    """Concurrent attempts from several threads are all answered."""
    send, outcomes = of(emulator).send, []
    threads = [
        threading.Thread(target=lambda uid=f"u{n}": outcomes.append(send(body(uid)).outcome))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Outcome.ACCEPTED] * 8 == outcomes
    assert 8 == len(emulator.members("vip"))


def test_each_request_is_a_debug_line(emulator, caplog):
    """At DEBUG a request has one line, with its numbers and without its members or the key."""
    caplog.set_level(logging.DEBUG)
    emulator.fail_next(400, message="No such user: secret-member")
    transport = of(emulator)
    for uids in ("secret-member", "u1"):
        transport.send(body(uids))
    shown = [each for each in caplog.records if getattr(each, "code", "") == "request"]
    assert [400, 200] == [each.args[1] for each in shown]
    assert all(each.args[2] > 0 and each.args[3] >= 0 for each in shown)
    assert None is not shown[0].args[4]
    assert "secret-member" not in caplog.text
    assert emulator.data_api_key not in caplog.text


ENDLESS = {
    "header": (
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"x",
        b"\r\nContent-Length: 20\r\n\r\n" + ACCEPTED,
    ),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", response()),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 220\r\n\r\n" + ACCEPTED, b" ", b" " * 200),
    "chunk size": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0",
        b"14\r\n%b\r\n0\r\n\r\n" % ACCEPTED,
    ),
}


class Trickle(Server):
    """A server that sends a part of its answer again and again before it sends the rest."""

    def __init__(self, first, part, rest):
        super().__init__(None)
        self._parts = [first, *[part] * 60, rest]

    def _serve(self):
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(OSError):
            self._request(connection)
            for part in self._parts:
                connection.sendall(part)
                time.sleep(0.05)


@pytest.mark.parametrize("answer", ENDLESS.values(), ids=ENDLESS)
def test_an_answer_that_trickles_ends_at_the_deadline(answer):
    """The deadline is one for the whole attempt, wherever the bytes arrive; else this answer would
    be taken, or refused."""
    with Trickle(*answer) as server:
        seen = client(server.url, timeout=0.5).send(body())
    assert (Outcome.RETRY, True) == (seen.outcome, seen.sent)


def test_an_answer_that_is_slow_in_parts_is_taken():
    """Parts of an answer that arrive before the deadline are one answer."""
    first, part, rest = ENDLESS["body"]
    with Trickle(first, part, rest) as server:
        assert Outcome.ACCEPTED is client(server.url, timeout=20.0).send(body()).outcome
