"""A connection between target and emulator that can be cut in the middle of a message."""

import contextlib
import socket
import struct
import threading
import typing as t
from typing import Self

from target_moengage_cohort.emulator import Emulator

Way = t.Literal["request", "answer"]
_PIECE_BYTES = 65_536
_LINGER_NONE = struct.pack("ii", 1, 0)


class Wire:
    """A proxy in front of an emulator.

    Attributes:
        workspace_id: The emulator's workspace ID.
        data_api_key: The emulator's API key.
        url: The proxy's address.
        cuts: The number of cut connections.
    """

    def __init__(self, emulator: Emulator) -> None:
        self.workspace_id = emulator.workspace_id
        self.data_api_key = emulator.data_api_key
        self._to = ("127.0.0.1", int(emulator.url.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0
        self._lock = threading.Lock()
        self._due: list[tuple[Way, float]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Accept no more connections; existing ones end with the emulator's."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self, way: Way, part: float) -> None:
        """Reset the connection of the next bytes in this direction, after a part of them."""
        with self._lock:
            self._due.append((way, part))

    def clear(self) -> None:
        """Cancel the pending cuts."""
        with self._lock:
            self._due.clear()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            try:
                there = socket.create_connection(self._to)
            except OSError:
                here.close()
                continue
            for end in (here, there):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for way, ends in {"request": (here, there), "answer": (there, here)}.items():
                threading.Thread(target=self._carry, args=(way, *ends), daemon=True).start()

    def _carry(self, way: Way, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                part = self._part(way)
                to.sendall(piece if part is None else piece[: int(part * len(piece))])
                if part is not None:
                    break
            else:
                to.shutdown(socket.SHUT_WR)
                return
        for end in (source, to):  # cut here, or by one end; the other end must notice
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
                end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _part(self, way: Way) -> float | None:
        with self._lock:
            for due in self._due:
                if due[0] == way:
                    self._due.remove(due)
                    self.cuts += 1
                    return due[1]
        return None
