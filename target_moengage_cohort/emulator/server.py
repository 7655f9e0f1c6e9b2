"""The emulator on a socket: a server in a background thread, and the handle tests steer it by."""

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

from .app import ABORT, build_app
from .control import DropNext, FailNext, RequestsQuery
from .faults import SERVER_ERRORS, Latency, Poison, ShareOfErrors
from .model import Options
from .state import State

if t.TYPE_CHECKING:
    from typing import Self

    from .model import CohortSummary, Member, RequestRecord, Totals

_START_SECONDS = 10.0
_KEEP_ALIVE_SECONDS = 75
_LINGER_NONE = struct.pack("ii", 1, 0)


T = t.TypeVar("T")


class _Protocol(H11Protocol):
    """HTTP/1.1 whose connections an application can reset without an answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does this only for sockets that name their protocol; without it 40 ms an answer.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, ABORT: self.abort}

    def abort(self) -> None:
        """Close the connection with a TCP reset."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.transport.abort()


class _Server(uvicorn.Server):
    """A server that ends as soon as it is told to, whatever is still unanswered."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    def end(self) -> None:
        """Tell the server to end; may be called from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
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
        port: The port to listen on; 0 takes a free one.
        **options: Those of `Options`.

    Attributes:
        state: All that it knows.
        clock: Its clock.
        workspace_id: The user of HTTP Basic, and `MOE-APPKEY`.
        data_api_key: The password of HTTP Basic.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, **options: t.Any) -> None:
        self.state = State(Options(**options))
        self.clock = self.state.options.clock
        self.workspace_id = self.state.options.workspace_id
        self.data_api_key = self.state.options.data_api_key
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end; the port is known once it has started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def start(self) -> None:
        """Listen, and answer from a background thread.

        Raises:
            OSError: If the address can't be listened on.
            RuntimeError: If the server doesn't start.
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
        """Reset all connections and end the thread; what it holds can still be looked at."""
        if self._server is not None and self._thread is not None:
            self._server.end()
            self._thread.join()
            self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Looking -----------------------------------------------------------------------------

    def cohorts(self) -> list[CohortSummary]:
        """Describe all cohorts, in the order in which they were created."""
        return self.state.cohorts()

    def members(self, cohort_id: str, partner: str | None = None) -> set[Member]:
        """Give a cohort's members; none if there is no such cohort.

        Args:
            cohort_id: The cohort.
            partner: Its partner; may be left out if only one uses the identifier.

        Returns:
            `Member(uid, anonymous_id)`, each of which equals the plain tuple.

        Raises:
            LookupError: If several partners have a cohort of this identifier.
        """
        return set(self.state.members(cohort_id, partner) or ())

    def requests(self, **query: t.Any) -> list[RequestRecord]:
        """Copy entries of the log, in order of arrival.

        Args:
            **query: `cohort_id`, `partner`, `action`, `status`, `outcome`: only those;
                `after`: only those with a larger number.
        """
        return self.state.requests(_checked(RequestsQuery, **query).wants)

    def totals(self) -> Totals:
        """Sum up what happened since the last reset."""
        return self.state.totals()

    def wait_until(self, reached: t.Callable[[Totals], bool], timeout: float = 10.0) -> None:
        """Block until the totals are as wanted, as in `lambda totals: totals.requests >= 3`.

        Args:
            reached: Asked after every request and every answer.
            timeout: Seconds of real time to wait at most.

        Raises:
            TimeoutError: If they aren't in time.
        """
        if not self.state.wait_until(reached, timeout):
            msg = f"not reached within {timeout} s: {self.totals()}"
            raise TimeoutError(msg)

    # Steering ----------------------------------------------------------------------------

    def fail_next(self, status: int, count: int = 1, **answer: t.Any) -> None:
        """Answer the next requests with a status.

        Args:
            status: From 300 to 599.
            count: How many requests.
            **answer: `headers`, `error_type`, `message`, `body` (instead of an error's),
                `applied` (True applies the change all the same), `cohort_id` (only its).
        """
        order = _checked(FailNext, status=status, count=count, **answer)
        self.state.steer(lambda faults: faults.schedule(order.fault(), count))

    def drop_next(
        self,
        count: int = 1,
        when: t.Literal["before", "after"] = "before",
        cohort_id: str | None = None,
    ) -> None:
        """Reset the connections of the next requests without an answer.

        Args:
            count: How many requests.
            when: Before or after the change is applied.
            cohort_id: Only requests of this cohort.
        """
        order = _checked(DropNext, when=when, count=count, cohort_id=cohort_id)
        self.state.steer(lambda faults: faults.schedule(order.fault(), count))

    def fail_share(
        self,
        share: float,
        seed: int = 0,
        statuses: tuple[int, ...] = SERVER_ERRORS,
        *,
        applied: bool = False,
    ) -> None:
        """Answer a share of the requests, drawn with a seed, with one of the statuses."""
        order = _checked(ShareOfErrors, share=share, seed=seed, statuses=statuses, applied=applied)
        self.state.steer(lambda faults: faults.fail_share(order))

    def latency(self, seconds: float, count: int | None = None) -> None:
        """Let answers come late: those to the next `count` requests, or all from now on."""
        order = _checked(Latency, seconds=seconds, count=count)
        self.state.steer(lambda faults: faults.slow_down(order))

    def poison(self, ids: t.Iterable[str], message: str | None = None) -> None:
        """Refuse requests that list one of these members with 400.

        Args:
            ids: Identifiers of either kind.
            message: The error's message; `{id}` in it becomes the identifier.
        """
        text = {} if message is None else {"message": message}
        order = _checked(Poison, ids=list(ids), **text)
        self.state.steer(lambda faults: faults.poison(order))

    def hold(self) -> None:
        """Apply changes but hold all answers back until `release`."""
        self.state.steer(lambda faults: faults.hold(held=True))

    def release(self) -> None:
        """Let the answers go that were held back."""
        self.state.steer(lambda faults: faults.hold(held=False))

    def clear_faults(self) -> None:
        """Forget all faults, and let answers go that were held back."""
        self.state.steer(lambda faults: faults.clear())

    def use_up(self, count: int) -> int:
        """Let other integrations send so many requests, and say how many were admitted."""
        return self.state.use_up(count)

    def apply_late(self, cohort_id: str | None = None, partner: str | None = None) -> int:
        """Apply the changes that are held back, and say how many there were."""
        return self.state.apply_late(cohort_id, partner)

    def reset(self) -> None:
        """Forget everything: cohorts, log, totals, faults and the rate limit's window."""
        self.state.reset()


def _checked(kind: type[T], **values: t.Any) -> T:
    """Build a value as the control endpoints do, with the same checks."""
    return msgspec.convert(values, kind)
