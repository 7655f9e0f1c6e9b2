"""Leases of streams on a server: rows that their holder renews, and that others watch.

A holder counts its lease by its own clock, from before it has asked for the renewal. Another run
takes the lease over only after it has watched, by its own clock too, for a whole lease that the
counter stood still. So no two clocks are ever compared. Each holder has a higher fence than the one
before, and every change of a run proves that its fence is still in the row.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
import typing as t
from functools import partial

import msgspec
from psycopg import errors, sql

from target_moengage_cohort.core.errors import LedgerError, TargetError
from target_moengage_cohort.ledger.postgres import server_tables
from target_moengage_cohort.ledger.postgres.connection import Channel
from target_moengage_cohort.ledger.postgres.lease_watch import LeaseWatch, Sightings, Watched
from target_moengage_cohort.ledger.records import Holder

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.core.interrupts import Patience
    from target_moengage_cohort.ledger.control.database import Rows
    from target_moengage_cohort.ledger.postgres.ledger_server import Server

MARGIN_SECONDS = 30.0
"""A lease lasts so much longer than an attempt at a request."""
_RENEWALS = 5  # in the time that a lease lasts
_END_SECONDS = 5.0  # to wait in the end for a renewal, whose server may not answer


def boot_clock() -> float:
    """Return seconds that also count while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease(msgspec.Struct, frozen=True):
    """A lease that this process has; the counter as of its last change or renewal."""

    fence: int
    counter: int


class LeaseRows:
    """The leases of one process.

    An optional lease counts as taken if the server, or the role's rights, allow no change.
    """

    def __init__(
        self,
        server: Server,
        partner: str,
        attempt_seconds: float,
        *,
        is_optional: bool,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._server = server
        self._partner = partner
        self._attempt_seconds = attempt_seconds
        self.seconds = attempt_seconds + MARGIN_SECONDS
        self._is_optional = is_optional
        self._clock = clock
        self._holder = secrets.token_hex(16)
        self._channel = Channel(server, writes=not is_optional)
        self._channel.reconnected = self.compare
        self._channel.wait = self._wait
        self._lock = threading.Lock()
        self._held: dict[str, Lease] = {}  # by stream
        self._sightings = Sightings()
        self._expires = 0.0
        self._failure: LedgerError | None = None
        self._is_over = False
        self._is_stuck = False  # whether a renewal waits for the server in the end
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def _wait(self, seconds: float) -> bool:
        """Wait before another attempt at a connection; return whether to give up instead."""
        return self._ended.is_set() or self._server.wait(seconds)

    # Taking

    def take(self, stream: str, me: Holder, patience: Patience) -> None:
        """Wait for a stream's lease; raise a `BusyError` that names its holder if it takes long."""
        acquire = partial(self._acquire, stream, me)
        watch = LeaseWatch(acquire, self._look, self._sightings, self._clock)
        watch.wait(stream, self.seconds, patience)

    def _acquire(self, stream: str, me: Holder, watched: Watched | None) -> bool:
        """Take a lease if it is free, or still as it was watched; return whether it was."""
        former = ["", 0, 0]
        if watched is not None:
            former = [watched.holder, watched.fence, watched.counter]
        mine = [self._holder, self.seconds, me.run_id, me.pid, me.host, me.since]
        channel, key, began = self._channel, [self._partner, stream], self._clock()
        with channel.lock, channel.translated():
            take = channel.bound(server_tables.TAKE_LEASE, [*key, *mine, *former])
            try:
                rows = channel.transact(f"{channel.bound(server_tables.LOCK_LEASE, key)}; {take}")
            except errors.LockNotAvailable:
                return False
            except (errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege):
                if not self._is_optional:
                    raise
                return True
        for fence, counter in rows:
            with self._lock:
                if not self._held:
                    self._expires = began + self.seconds
                self._held[stream] = Lease(fence, counter)
            self._begin_renewals()
        return bool(rows)

    def _look(self) -> None:
        """Watch the leases of all other runs."""
        channel = self._channel
        with channel.lock, channel.translated():
            query = channel.bound(server_tables.LEASES_OF_OTHERS, [self._partner, self._holder])
            rows = self._channel.transact(query)
        leases: dict[str, Watched] = {}
        for stream, holder, fence, counter, seconds, run_id, pid, host, since in rows:
            run = Holder(pid=pid, host=host, run_id=run_id, since=since)
            leases[stream] = Watched(holder, fence, counter, seconds, run)
        self._sightings.note(leases, self._clock())

    # Keeping

    def _begin_renewals(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)
            self._thread.start()

    def _renew(self) -> None:
        while not self._ended.wait(self.seconds / _RENEWALS):
            # If it fails, the leases expire, unless a later attempt succeeds before that.
            with contextlib.suppress(TargetError):
                self.renew()

    def renew(self) -> None:
        """Let all leases last from now on; raise a `LedgerError` if one of them is lost."""
        with self._channel.lock, self._channel.translated(), self.proven() as proof:
            if proof.statement:
                proof.check(self._channel.transact(proof.statement), self._channel)

    def check(self) -> None:
        """Raise a `LedgerError` unless all leases outlive an attempt that begins now."""
        if self._failure is not None:
            raise self._failure.again()
        if self._is_over:
            raise LedgerError("lease_lost", "this run has ended and sends nothing more; run again")
        if self._held and self._expires - self._clock() < self._attempt_seconds:
            self.renew()
            if self._expires - self._clock() < self._attempt_seconds:
                msg = (
                    f"the leases of this run in {self._server.place} cannot be renewed in time: "
                    "the server is too slow. Nothing more is sent; run again"
                )
                raise LedgerError("lease_lost", msg)

    @contextlib.contextmanager
    def proven(self) -> Iterator[Proof]:
        """Have a transaction prove that the leases are this process's own, and renew them."""
        if self._failure is not None:
            raise self._failure.again()
        proof = Proof(self)
        began = self._clock()
        yield proof
        with self._lock:  # it is committed
            for stream, fence, counter in proof.rows:
                if stream in self._held:
                    latest = max(counter, self._held[stream].counter)
                    self._held[stream] = Lease(fence, latest)
            if proof.rows:
                self._expires = max(self._expires, began + self.seconds)

    @property
    def statement(self) -> str:
        """SQL that counts a change and returns the leases; none without any."""
        partner, holder = (sql.Literal(text).as_string() for text in (self._partner, self._holder))
        return server_tables.COUNT_CHANGE.format(partner=partner, holder=holder)

    @property
    def lock_statement(self) -> str:
        """SQL that keeps others from taking the leases over; it does not hinder renewals."""
        partner, holder = (sql.Literal(text).as_string() for text in (self._partner, self._holder))
        return server_tables.LOCK_OWN_LEASES.format(partner=partner, holder=holder)

    @property
    def held(self) -> dict[str, Lease]:
        """The leases of this process by stream, as they are now."""
        with self._lock:
            return {**self._held}

    def compare(self, channel: Channel) -> None:
        """Compare the leases on the server, after it was lost, with what was committed last."""
        held = self.held
        if not held:
            return
        query = channel.bound(server_tables.LEASES_OF, [self._partner])
        rows = channel.run(f"BEGIN READ ONLY; {self._server.settings()} {query}; COMMIT")
        found = {stream: facts for stream, *facts in rows}
        for stream, lease in held.items():
            if stream not in self.held:
                continue  # it has just been released
            holder, fence, counter, *run = found.get(stream, ("", -1, -1))
            if fence > lease.fence:
                self.lose(stream, *run)
            if (holder, fence) != (self._holder, lease.fence) or counter < lease.counter:
                msg = (
                    f"the ledger {self._server.place} has lost changes that it had confirmed, "
                    "for example because a lagging replica became the primary server. Nothing "
                    "more is sent; run again to compare the ledger with this machine's record"
                )
                self._fail(LedgerError("ledger_lost_commits", msg))

    def lose(self, stream: str, *run: object) -> t.NoReturn:
        """Raise the error for a lease that another run has taken over."""
        who = "run {} (process {} on {}, since {})".format(*run) if run else "another run"
        msg = (
            f"the lease of stream {stream!r} was lost: {who} has taken it over, because this run "
            f"did not renew it for {self.seconds:g} s. Nothing more is sent or written; run again"
        )
        self._fail(LedgerError("lease_lost", msg))

    def _fail(self, error: LedgerError) -> t.NoReturn:
        self._failure = error
        raise error

    # The end

    def end(self) -> None:
        """Let no attempt begin from now on, because the leases are about to be released."""
        self._is_over = True

    def release(self, stream: str, *, expires: bool) -> None:
        """Release a lease, or let it expire, as it does without the server."""
        with self._lock:
            lease = self._held.pop(stream, None)
        if lease is None or expires or not self._channel.is_open:
            return
        values = [self._partner, stream, self._holder]
        if not self._channel.lock.acquire(timeout=0.0 if self._is_stuck else _END_SECONDS):
            self._is_stuck = True
            return
        with contextlib.suppress(TargetError), contextlib.ExitStack() as stack:
            stack.callback(self._channel.lock.release)
            stack.enter_context(self._channel.translated())
            self._channel.transact(self._channel.bound(server_tables.FREE_LEASE, values))

    def close(self) -> None:
        """End the renewals, and close the connection unless one still waits for its server."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(0.0 if self._is_stuck else _END_SECONDS)
            if self._thread.is_alive():
                return
        self._channel.close()


class Proof:
    """The proof, in one transaction, that the leases are this process's own."""

    def __init__(self, leases: LeaseRows) -> None:
        self._leases = leases
        self._held = leases.held
        self.statement = leases.statement if self._held else ""
        self.lock_statement = leases.lock_statement if self._held else ""
        self.rows: Rows = []

    def check(self, rows: Rows, channel: Channel) -> None:
        """Take the rows of the statement; raise a `LedgerError` if a lease is lost."""
        if not self._held:
            return
        found = {stream: (fence, counter) for stream, fence, counter in rows}
        for stream, lease in self._held.items():
            fence, counter = found.get(stream, (-1, -1))
            is_own = fence == lease.fence and counter > lease.counter
            if not is_own and stream in self._leases.held:  # or it has just been released
                channel.roll_back()
                self._leases.compare(channel)
                self._leases.lose(stream)
        self.rows = rows
