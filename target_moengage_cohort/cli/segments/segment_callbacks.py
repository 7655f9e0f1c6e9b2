"""Listens for MoEngage's callbacks, which say how many users of a file were found and matched."""

from __future__ import annotations

import queue
import secrets
import socket
import threading
import time
import typing as t
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec

from target_moengage_cohort.core.errors import SettingsError

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.interrupts import Interrupt

_PROCESSED = 201
_MOST_BYTES = 65_536
_MOST_DIGITS = 18
_TIMEOUT_SECONDS = 10.0
_Count = t.Annotated[int, msgspec.Meta(ge=0)]


class Callback(msgspec.Struct, frozen=True):
    """MoEngage's report on a file.

    Attributes:
        status: 201 if the file was processed; else an error's status.
        found: Values in the file.
        processed: Values processed.
        matched: Users that have one of the values.
        error: Why the file was not processed; it may quote values of the file.
    """

    status: int
    found: _Count | None = msgspec.field(name="values_found", default=None)
    processed: _Count | None = msgspec.field(name="values_processed", default=None)
    matched: _Count | None = msgspec.field(name="user_count", default=None)
    error: str | None = msgspec.field(name="error_message", default=None)

    @property
    def is_processed(self) -> bool:
        """Whether the file was processed."""
        return self.status == _PROCESSED


class CallbackListener:
    """Listens while it is open as a context manager.

    Anyone can reach it, so each file has its own unguessable address.

    Args:
        host: The address to listen on.
        port: The port; 0 takes a free one.
        url: The address under which MoEngage reaches it, without the file's own part.
        interrupt: Ends every wait.
        seconds: How long to wait for all callbacks together.

    Attributes:
        seconds_left: How long to wait from now on.
    """

    def __init__(
        self, host: str, port: int, url: str, interrupt: Interrupt, seconds: float
    ) -> None:
        self._url, self._interrupt = url.rstrip("/"), interrupt
        self.seconds_left = seconds
        self._tokens: set[str] = set()
        self._received: queue.SimpleQueue[tuple[str, Callback] | None] = queue.SimpleQueue()
        interrupt.call_when_set(lambda: self._received.put(None))
        try:
            self._server = _server(host, port, self._take)
        except OSError as error:
            msg = (
                f"--callback-listen: cannot listen on {host} port {port} "
                f"({error.strerror or type(error).__name__}); choose another one"
            )
            raise SettingsError("cannot_listen", msg) from None
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> t.Self:
        threading.Thread(target=self._server.serve_forever, name="callbacks", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def expect(self) -> str:
        """Return a new address for the callback of one file."""
        token = secrets.token_urlsafe(16)
        self._tokens.add(token)
        return f"{self._url}/{token}"

    @property
    def is_interrupted(self) -> bool:
        """Whether the command is to end."""
        return self._interrupt.is_set()

    def wait(self, address: str) -> Callback | None:
        """Return the callback to an address, or ``None`` if none comes or the command ends."""
        token, deadline = address.rpartition("/")[2], time.monotonic() + self.seconds_left
        try:
            while not self.is_interrupted:
                received = self._received.get(timeout=max(0.0, deadline - time.monotonic()))
                if received is not None and received[0] == token:  # no other one that came twice
                    return received[1]
        except queue.Empty:
            pass
        finally:
            self.seconds_left = max(0.0, deadline - time.monotonic())
        return None

    def _take(self, path: str, body: bytes) -> HTTPStatus:
        """Take a request; return the status of its answer."""
        token = path.partition("?")[0].rpartition("/")[2]
        if token not in self._tokens:
            return HTTPStatus.NOT_FOUND
        try:
            callback = msgspec.json.decode(body, type=Callback, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return HTTPStatus.BAD_REQUEST
        self._received.put((token, callback))
        return HTTPStatus.OK


def _server(
    host: str, port: int, take: t.Callable[[str, bytes], HTTPStatus]
) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_SECONDS

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            status = HTTPStatus.LENGTH_REQUIRED
            if length.isascii() and length.isdecimal() and len(length) <= _MOST_DIGITS:
                status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                if int(length) <= _MOST_BYTES:
                    status = take(self.path, self.rfile.read(int(length)))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing: the path is a secret."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Ignore connections that break."""

    return Server((host, port), Handler)
