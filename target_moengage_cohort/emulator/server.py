"""The emulator on a socket: a server in a background thread, and the handle for tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import typing as t

import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import build_app
from .endpoints import DropNext, FailNext, RequestsQuery
from .faults import SERVER_ERRORS, Latency, Poison, ShareOfErrors
from .options import Options
from .state import State
from .wire import ABORT

if t.TYPE_CHECKING:
    from typing import Self

    from .model import CohortSummary, Member, RequestRecord, Totals

_START_SECONDS = 10.0
_KEEP_ALIVE_SECONDS = 75
_LINGER_NONE = struct.pack("ii", 1, 0)


T = t.TypeVar("T")


class _Protocol(H11Protocol):
    """HTTP/1.1 with connections that an application can reset without an answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio sets this only on sockets that name their protocol; it saves 40 ms per answer.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, ABORT: self.abort}

    def abort(self) -> None:
        """Close the connection with a TCP reset."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.transport.abort()


class _Server(uvicorn.Server):
    """A server that stops immediately, even with requests unanswered."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    def end(self) -> None:
        """Stop the server; may be called from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has already ended
                self._loop.call_soon_threadsafe(self._end.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.listening.set()
        await self._end.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


class Emulator:
    """MoEngage's Cohort Sync API on a socket, in a thread of this process.

    Use it as a context manager, or call `start` and `stop`.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 chooses a free one.
        **options: The fields of `Options`.

    Attributes:
        state: The emulator without its sockets.
        apis: Its Segments and Analytics APIs.
        clock: Its source of time.
        workspace_id: The user of HTTP Basic, and `MOE-APPKEY`.
        data_api_key: The password of HTTP Basic.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, **options: t.Any) -> None:
        self.state = State(Options(**options))
        self.apis = self.state.apis
        self.clock = self.state.options.clock
        self.workspace_id = self.state.options.workspace_id
        self.data_api_key = self.state.options.data_api_key
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash; the port is known once it has started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def start(self) -> None:
        """Listen, and answer from a background thread.

        Raises:
            OSError: If the address is not available.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, self._port), family=family, backlog=256)
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            build_app(self.state),
            http=_Protocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="critical",
            access_log=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="moengage-emulator", daemon=True
        )
        self._thread.start()
        if not self._server.listening.wait(_START_SECONDS):
            msg = "the emulator's server did not start"
            raise RuntimeError(msg)

    def stop(self) -> None:
        """Reset all connections and end the thread; the state can still be queried."""
        if self._server is not None and self._thread is not None:
            self._server.end()
            self._thread.join()
            self._server = self._thread = None
        self.state.apis.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Queries -----------------------------------------------------------------------------

    def cohorts(self) -> list[CohortSummary]:
        """Return all cohorts, in the order of their creation."""
        return self.state.cohorts()

    def members(self, cohort_id: str, partner: str | None = None) -> set[Member]:
        """Return a cohort's members; none if it does not exist.

        Args:
            cohort_id: The cohort.
            partner: Its partner; may be left out if only one uses the identifier.

        Returns:
            Values `Member(uid, anonymous_id)`; each equals the plain tuple.

        Raises:
            LookupError: If several partners have a cohort with this identifier.
        """
        return set(self.state.members(cohort_id, partner) or ())

    def requests(self, **query: t.Any) -> list[RequestRecord]:
        """Copy entries of the log, in order of arrival.

        Args:
            **query: Filters: `cohort_id`, `partner`, `action`, `status`, `outcome`; `after`
                selects requests with a larger number.
        """
        return self.state.requests(_checked(RequestsQuery, **query).selects)

    def totals(self) -> Totals:
        """Return the sums since the last reset."""
        return self.state.totals()

    def wait_until(self, reached: t.Callable[[Totals], bool], timeout: float = 10.0) -> None:
        """Block until the totals meet a condition, as in `lambda totals: totals.requests >= 3`.

        Args:
            reached: The condition; evaluated after every request and every answer.
            timeout: The longest wait in seconds of real time.

        Raises:
            TimeoutError: If the condition is not met in time.
        """
        if not self.state.wait_until(reached, timeout):
            msg = f"not reached within {timeout} s: {self.totals()}"
            raise TimeoutError(msg)

    # Control -----------------------------------------------------------------------------

    def fail_next(self, status: int, count: int = 1, **answer: t.Any) -> None:
        """Answer the next requests with a status.

        Args:
            status: From 300 to 599.
            count: The number of requests.
            **answer: `headers`, `error_type`, `message`, `body` (instead of an error's),
                `applied` (True applies the change anyway), `cohort_id` (only its requests).
        """
        scripted = _checked(FailNext, status=status, count=count, **answer)
        self.state.change_faults(lambda faults: faults.schedule(scripted.fault(), count))

    def drop_next(
        self,
        count: int = 1,
        when: t.Literal["before", "after"] = "before",
        cohort_id: str | None = None,
    ) -> None:
        """Reset the connections of the next requests without an answer.

        Args:
            count: The number of requests.
            when: Before or after the change is applied.
            cohort_id: Only requests of this cohort.
        """
        scripted = _checked(DropNext, when=when, count=count, cohort_id=cohort_id)
        self.state.change_faults(lambda faults: faults.schedule(scripted.fault(), count))

    def fail_share(
        self,
        share: float,
        seed: int = 0,
        statuses: tuple[int, ...] = SERVER_ERRORS,
        *,
        applied: bool = False,
    ) -> None:
        """Answer a share of the requests, drawn with a seed, with one of the statuses."""
        fault = _checked(ShareOfErrors, share=share, seed=seed, statuses=statuses, applied=applied)
        self.state.change_faults(lambda faults: faults.fail_share(fault))

    def latency(self, seconds: float, count: int | None = None) -> None:
        """Delay the answers to the next `count` requests, or all answers from now on."""
        fault = _checked(Latency, seconds=seconds, count=count)
        self.state.change_faults(lambda faults: faults.slow_down(fault))

    def poison(self, ids: t.Iterable[str], message: str | None = None) -> None:
        """Refuse requests that list one of these members with 400.

        Args:
            ids: Identifiers of either kind.
            message: The error's message; `{id}` in it is replaced by the identifier.
        """
        text = {} if message is None else {"message": message}
        fault = _checked(Poison, ids=list(ids), **text)
        self.state.change_faults(lambda faults: faults.poison(fault))

    def hold(self) -> None:
        """Apply changes, but hold back all answers until `release`."""
        self.state.change_faults(lambda faults: faults.hold(held=True))

    def release(self) -> None:
        """Release the answers that are held back."""
        self.state.change_faults(lambda faults: faults.hold(held=False))

    def clear_faults(self) -> None:
        """Remove all faults, and release the answers that are held back."""
        self.state.change_faults(lambda faults: faults.clear())

    def use_up(self, count: int) -> int:
        """Simulate requests of other integrations, and return how many were admitted."""
        return self.state.use_up(count)

    def apply_late(self, cohort_id: str | None = None, partner: str | None = None) -> int:
        """Apply the changes that are held back, and return their number."""
        return self.state.apply_late(cohort_id, partner)

    def reset(self) -> None:
        """Clear everything: cohorts, log, totals, faults and the rate limit's window."""
        self.state.reset()


def _checked(kind: type[T], **values: t.Any) -> T:
    """Return a value with the checks of the control endpoints."""
    return msgspec.convert(values, kind)
