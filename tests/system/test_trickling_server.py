"""Processes whose MoEngage sends its answers byte by byte, without end."""

import contextlib
import signal
import socket
import threading

import pytest

from tests.support.singer import finish, lines, record, schema, start, state

PARTS = {
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" "),
    "header": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
SENDS_AFTER_SIGTERM = 8  # seconds, as docs/promises.md says
ROWS = lines(schema(), record(uid="u"), state({"at": 1}))


class TricklingServer:
    """Sends the parts of an answer to each connection until it is closed."""

    def __init__(self, first: bytes, part: bytes):
        self._first, self._part = first, part
        self._ends = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self.port = self._listener.getsockname()[1]
        self.is_sending = threading.Event()
        self.connections = 0

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._threads.append(threading.Thread(target=self._trickle, args=[connection]))
                self._threads[-1].start()

    def _trickle(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.sendall(self._first)
            while not self._ends.wait(0.2):
                connection.sendall(self._part)
                self.is_sending.set()


def settings(server: TricklingServer, **others):
    return {
        "workspace_id": "w",
        "data_api_key": "k",
        "data_center": "01",
        "partner": "p",
        "api_url": f"http://127.0.0.1:{server.port}",
        **others,
    }


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_a_request_ends_at_max_retry_seconds(tmp_path, parts):
    """Attempts that each end at their own deadline end together at that of the whole request."""
    with TricklingServer(*parts) as server:
        options = settings(server, request_timeout_seconds=1, max_retry_seconds=4)
        ended = finish(start(tmp_path / "home", options), ROWS, timeout=30)
        assert 1 < server.connections < 6
    assert (1, []) == (ended.code, ended.states)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_sigterm_ends_an_attempt_that_trickles(tmp_path, parts):
    """However much time the attempt has left, the process ends soon, and writes no STATE."""
    with TricklingServer(*parts) as server:
        options = settings(server, request_timeout_seconds=300)
        process = start(tmp_path / "home", options)
        process.stdin.write(ROWS)
        process.stdin.flush()
        process.stdin.close()
        process.stdin = None
        assert server.is_sending.wait(20)
        process.send_signal(signal.SIGTERM)
        ended = finish(process, timeout=SENDS_AFTER_SIGTERM + 4)  # on a machine that is busy
    assert (143, []) == (ended.code, ended.states)
