"""A proxy in front of a PostgreSQL server that loses the connections that send some text."""

import contextlib
import select
import socket
import threading
import typing as t

_CHUNK = 1 << 16
_READY = b"Z\0\0\0\5"  # and one byte: the server has done everything it was sent


class Losses:
    """A proxy; use it as a context manager.

    Each connection that sends `text` is lost, once the server has executed it, so that only the
    answer is lost, or `before` the server gets it. If it `ends` then, no connection is made later.

    Attributes:
        port: Its port on loopback.
        count: The number of connections that were lost.
    """

    def __init__(self, port: int, text: bytes, *, before: bool = False, ends: bool = False) -> None:
        self._server, self._text, self._before, self._ends = port, text, before, ends
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.count = 0

    def __enter__(self) -> t.Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=[client], daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server)) as server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    if not (data := source.recv(_CHUNK)):
                        return
                    if source is client and self._text in data:
                        self._lose(server, data)
                        return
                    (server if source is client else client).sendall(data)

    def _lose(self, server: socket.socket, data: bytes) -> None:
        self.count += 1
        if self._ends:
            self._end()
        if not self._before:
            server.sendall(data)
            while (answer := server.recv(_CHUNK)) and answer[-6:-1] != _READY:
                pass
