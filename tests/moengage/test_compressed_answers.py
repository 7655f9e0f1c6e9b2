"""Compressed answers from a real socket."""

import gzip
import socket
import threading
import tracemalloc
import zlib

import pytest

from target_moengage_cohort.moengage.answers import Outcome
from target_moengage_cohort.moengage.transport import Transport
from target_moengage_cohort.settings import load

ACCEPTED = b'{"status": "success", "message": "accepted"}'


def send(content: bytes, encoding: str):
    """Send one request to a server that answers with such a content; return the answer."""
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(content)}"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + content)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        raw = {"workspace_id": "w", "data_api_key": "key", "data_center": "01", "partner": "p"}
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        answered = Transport(load(raw | {"api_url": url}).settings).send(b"{}")
        thread.join(5)
    return answered


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_answer_is_read(encoding, pack):
    """An answer counts, however it is compressed."""
    assert Outcome.ACCEPTED is send(pack(ACCEPTED), encoding).outcome


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_takes_little_memory(encoding):
    """An answer that would inflate to 64 MB takes less than 4 MB."""
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    content = pack(b" " * (64 << 20))
    send(pack(ACCEPTED), encoding)  # imports
    tracemalloc.start()
    try:
        answered = send(content, encoding)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert Outcome.RETRY is answered.outcome
    assert peak < 4 << 20


def test_a_damaged_answer_is_tried_again():
    """An answer that cannot be inflated says nothing, so the request is tried again."""
    assert Outcome.RETRY is send(b"no gzip", "gzip").outcome
