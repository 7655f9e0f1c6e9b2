"""A webhook's receiver on loopback."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Takes POSTs at `url` and keeps them; the address has a secret.

    Attributes:
        status: The status to answer.
        is_hanging: Whether to answer nothing, and keep the connection.
        bodies: What it was sent, whether it took that or not.
        taken: What it took, repeats included.
    """

    secret = "T0KEN-in-the-address"

    def __init__(self) -> None:
        self.status, self.is_hanging = 200, False
        self.bodies: list[dict] = []
        self.taken: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self._ended = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                receiver.bodies.append(json.loads(self.rfile.read(size)))
                receiver.headers.append(dict(self.headers))
                if receiver.is_hanging:
                    receiver._ended.wait(60)
                    return
                if receiver.status in range(200, 300):
                    receiver.taken.append(receiver.bodies[-1])
                self.send_response(receiver.status)
                self.send_header("Location", f"{receiver.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/{self.secret}"

    @property
    def events(self) -> list[tuple[str, list[str]]]:
        """The events, each with its streams."""
        return [(body["event"], body["streams"]) for body in self.bodies]

    @contextlib.contextmanager
    def running(self):
        """Serve for the time of the block."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._server.shutdown()
            self._server.server_close()
