"""Connections whose answers have a deadline, whatever the server sends.

The time-out of `requests` is one for each read, so a server that sends a byte now and then, in the
headers or in endless `100 Continue`, would hold a thread for ever.
"""

from __future__ import annotations

import http.client
import io
import threading
import time
import typing as t

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if t.TYPE_CHECKING:
    import socket

_current = threading.local()


def begin(seconds: float) -> None:
    """Set the deadline of the answer that this thread is about to read."""
    _current.deadline = time.monotonic() + seconds


class _Reads(io.RawIOBase):
    """The reads of a socket, which share one deadline."""

    def __init__(self, sock: socket.socket, file: t.BinaryIO) -> None:
        self._sock = sock
        self._file = file  # while it is open, the socket stays open, too

    def readable(self) -> bool:
        """Return ``True``."""
        return True

    def close(self) -> None:
        """Let the socket close."""
        self._file.close()
        super().close()

    def readinto(self, buffer: t.Any) -> int:
        """Read what there is into a buffer; raise a `TimeoutError` after the deadline."""
        left = _current.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        timeout = self._sock.gettimeout()  # that of the next request on this connection
        self._sock.settimeout(left)
        try:
            return self._sock.recv_into(buffer)
        finally:
            self._sock.settimeout(timeout)


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Reads(sock, self.fp))


class _Connection(HTTPConnection):
    response_class = _Response


class _TLSConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class DeadlineAdapter(HTTPAdapter):
    """An adapter of `requests` that makes such connections, also through a proxy."""

    def init_poolmanager(self, *args: t.Any, **kwargs: t.Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """See `HTTPAdapter`."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager
