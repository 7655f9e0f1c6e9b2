"""An address in front of servers, which a fail-over moves from one to the other."""

import contextlib
import select
import socket
import threading
import typing as t

_CHUNK = 1 << 16


class Forwarder:
    """A port on loopback that leads to the port `to` of a server; use it as a context manager.

    Without a server it drops every connection.

    Attributes:
        port: Its own port.
        dropped: The number of connections that it has dropped because there was no server.
    """

    def __init__(self, to: int | None = None) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._clients: set[socket.socket] = set()
        self.dropped = 0

    def __enter__(self) -> t.Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.lead_to(None)

    def lead_to(self, to: int | None) -> None:
        """Lead to another server, or to none, from now on; drop the connections there are."""
        self._to = to
        for client in [*self._clients]:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=[client], daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        self._clients.add(client)
        with client, contextlib.suppress(OSError):
            if self._to is None:
                self.dropped += 1
            else:
                with socket.create_connection(("127.0.0.1", self._to)) as server:
                    _exchange(client, server)
        self._clients.discard(client)


def _exchange(client: socket.socket, server: socket.socket) -> None:
    other = {client: server, server: client}
    while True:
        for source in select.select([client, server], [], [])[0]:
            if not (data := source.recv(_CHUNK)):
                return
            other[source].sendall(data)
