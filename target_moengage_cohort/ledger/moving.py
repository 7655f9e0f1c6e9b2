"""Moves of a whole store, of all partners: between two places, to an archive, and from one.

What is moved are pieces: control as JSON lines, then the members of each stream as Parquet files.
Each exists in one file, until the next one is asked for.
"""

from __future__ import annotations

import contextlib
import itertools
import typing as t

import msgspec

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import LedgerError, TargetError, TryAgainError
from target_moengage_cohort.ledger.movable import UnconfirmedError

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.store_facts import StoreFacts, StreamFacts
    from target_moengage_cohort.settings import Settings

_CONTROL = "control.jsonl"


class Piece(t.NamedTuple):
    """A piece of a store in a file: control, or one table of the members of the n-th stream."""

    name: str  # control.jsonl, or members/n/table.parquet
    path: Path


class Opener(t.NamedTuple):
    """Opens stores for a command.

    Attributes:
        open: Opens the store of some settings; takes `read_only`.
        is_stopped: Returns whether the command is to end.
    """

    open: Callable[..., LedgerStore]
    is_stopped: Callable[[], bool]

    def check(self) -> None:
        """Raise a `TryAgainError` if the command is to end."""
        if self.is_stopped():
            msg = "the command was stopped before it was done, and nothing was changed; run again"
            raise TryAgainError("interrupted", msg)


class _Partners:
    """The stores of all partners in one place."""

    def __init__(self, opener: Opener, settings: Settings, *, read_only: bool = False) -> None:
        self._opener, self._settings, self._read_only = opener, settings, read_only
        self._stack = contextlib.ExitStack()
        self.stores: dict[str, LedgerStore] = {}

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._stack.close()
        except TargetError:
            if kind is None:  # else the first error says more
                raise

    def of(self, partner: str) -> LedgerStore:
        """Return the store of a partner."""
        if partner not in self.stores:
            settings = msgspec.structs.replace(self._settings, partner=partner)
            opened = self._opener.open(settings, read_only=self._read_only)
            self.stores[partner] = self._stack.enter_context(opened)
        return self.stores[partner]


class Source:
    """A store of which all streams are held, with all answered requests folded.

    Attributes:
        facts: What the store is. No stream changes while it is held.
        place: Where it is, for messages.
    """

    def __init__(self, opener: Opener, partners: _Partners, partner: str) -> None:
        self._opener, self._partners = opener, partners
        self._main = partners.of(partner)
        self.place = self._main.place
        self._held: set[StreamFacts] = set()

    def hold(self, directory: Path) -> None:
        """Take all leases, and write control to the directory."""
        self._directory = directory
        self.facts = self._main.facts()
        while new := [each for each in self.facts.streams if each not in self._held]:
            for each in new:
                self._hold(each)
            self.facts = self._main.dump_control(directory / _CONTROL)
        self._prove(self._partners.stores.values())

    def _hold(self, stream: StreamFacts) -> None:
        self._opener.check()
        store = self._partners.of(stream.partner)
        store.take(stream.stream)
        if stream.has_members:
            store.stream(stream.stream)  # checks and folds them
        self._held.add(stream)

    def _prove(self, stores: Iterable[LedgerStore]) -> None:
        """Raise a `LedgerError` unless no other run has had any stream of some stores meanwhile."""
        for store in stores:
            store.prove_leases()

    def pieces(self) -> Iterator[Piece]:
        """Yield all pieces of the store; at the end, all of them are of one moment."""
        return _until_stopped(self._opener, self._pieces())

    def _pieces(self) -> Iterator[Piece]:
        yield Piece(_CONTROL, self._directory / _CONTROL)
        for number, each in enumerate(self.facts.streams):
            if each.has_members:
                stream = self._partners.of(each.partner).stream(each.stream)
                for path in stream.dump(self._directory):
                    yield Piece(f"members/{number}/{path.name}", path)
        self._prove(self._partners.stores.values())

    def move(self, copied: Filled) -> None:
        """Mark the store as moved, then put the copy in its place; there are never two to use.

        If the copy certainly is not in its place, the mark is deleted again.
        """
        stores = self._partners.stores.values()
        others = [each for each in stores if each is not self._main]  # it proves its own itself
        self._main.mark_moved(self.facts, copied.uri, lambda: self._prove(others))
        for store in stores:
            store.ignore_move()  # each has something to note at its end
        try:
            copied.put_in_place()
        except TargetError as error:
            is_certain = not isinstance(error, UnconfirmedError)
            if is_certain and self._is_reopened():
                raise
            use = "Use" if is_certain else "If it has none, use"
            msg = (
                f"{error}. {use} {self.place} again, which is still marked as moved: set "
                f"ledger_uri to {self._main.uri}, then run: {suggest('ledger', 'reopen')}"
            )
            raise LedgerError(error.code, msg) from None

    def _is_reopened(self) -> bool:
        """Delete the mark; return whether that succeeded."""
        try:
            self._main.reopen()
        except TargetError:
            return False
        return True


@contextlib.contextmanager
def held(opener: Opener, settings: Settings) -> Iterator[Source]:
    """Hold all streams of a store; raise a `BusyError` that names the first one that is busy."""
    with _Partners(opener, settings) as partners:
        main = partners.of(settings.partner)
        main.require()
        with main.scratch() as directory:
            source = Source(opener, partners, settings.partner)
            source.hold(directory)
            yield source


class Filled(t.NamedTuple):
    """A copy that is whole and checked, but not in its place yet; see `Part`."""

    place: str
    uri: str
    put_in_place: Callable[[], None]


@contextlib.contextmanager
def filled(
    opener: Opener,
    settings: Settings,
    facts: StoreFacts,
    pieces: Callable[[Path], Iterable[Piece]],
    kind: str = "import",
) -> Iterator[Filled]:
    """Make a copy of the store that has some facts, near its place, which must have none.

    `pieces` yields the store's pieces, and may keep them in a directory; `kind` is the command that
    the copy records.
    """
    with opener.open(settings) as target, target.part() as part:
        copied = _until_stopped(opener, pieces(part.directory))
        with opener.open(part.settings) as store:
            if store.create(next(copied).path, kind) != facts:
                what = "control"
                raise _differs(what)
        _fill(opener, part.settings, facts, copied)
        _check(opener, part.settings, facts)
        yield Filled(target.place, target.uri, part.put_in_place)


def _until_stopped(opener: Opener, pieces: Iterable[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        opener.check()
        yield piece


def _fill(opener: Opener, settings: Settings, facts: StoreFacts, pieces: Iterator[Piece]) -> None:
    with _Partners(opener, settings) as partners:
        for number, some in itertools.groupby(pieces, lambda piece: piece.name.split("/")[1]):
            each = facts.streams[int(number)]
            store = partners.of(each.partner)
            store.restore(each.stream, (piece.path for piece in some))


def _check(opener: Opener, settings: Settings, facts: StoreFacts) -> None:
    """Compare the members of a copy, by their rows, with the numbers in control."""
    with _Partners(opener, settings, read_only=True) as partners:
        for each in facts.streams:
            opener.check()
            if each.has_members and partners.of(each.partner).inspect(each.stream):
                where = f"stream {each.stream!r} of partner {each.partner!r}"
                raise _differs(where)


def _differs(what: str) -> LedgerError:
    msg = f"the copy of {what} differs from the original, so the copy was deleted; run again"
    return LedgerError("ledger_copy_differs", msg)


class Copied(t.NamedTuple):
    """A store that was copied from one place to another; see `LedgerStore`."""

    facts: StoreFacts
    origin: str
    place: str
    uri: str


def copy(opener: Opener, origin: Settings, destination: Settings) -> Copied:
    """Copy the store of some settings to another place, and mark it as moved to there."""
    with held(opener, origin) as source:
        facts = source.facts
        pieces = source.pieces()
        with filled(opener, destination, facts, lambda _directory: pieces, kind="copy") as copied:
            source.move(copied)
            with opener.open(destination) as there:
                there.accept_older()  # whatever was in this place before
    return Copied(facts, source.place, copied.place, copied.uri)
