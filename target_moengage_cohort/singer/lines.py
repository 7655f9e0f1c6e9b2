"""Input in chunks of bytes, cut into whole lines."""

from __future__ import annotations

import os
import select
import stat
import time
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from target_moengage_cohort.core.errors import InputError
    from target_moengage_cohort.core.interrupts import Interrupt

CHUNK_BYTES = 1 << 16  # what a pipe holds; larger ones leave the cache before they are decoded
PIECE_BYTES = 1 << 16  # an unusual line makes its piece slow, so pieces are small

LONGEST_LINE = 1 << 27
"""Bytes; a longer line cannot be a row, and a whole line has to fit into memory."""

_DISCARD_SECONDS = 10.0
_DISCARD_POLL_SECONDS = 0.1

_Chunk = t.TypeVar("_Chunk", bytes, "bytes | None")


def chunks(source: t.IO[t.Any], interrupt: Interrupt) -> Iterator[bytes | None]:
    """Yield the bytes of an input as they arrive, and ``None`` before a wait for more."""
    try:
        descriptor = source.fileno()
    except OSError:  # a file in memory
        text = source.read()
        yield text.encode() if isinstance(text, str) else text
        return
    watched = [descriptor, interrupt.fileno()]
    while True:
        readable, _, _ = select.select(watched, [], [], 0)
        if not readable:
            yield None
            readable, _, _ = select.select(watched, [], [])
        if interrupt.fileno() in readable:
            return
        chunk = os.read(descriptor, CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def discard(
    source: t.IO[t.Any] | None,
    is_stopped: t.Callable[[], bool],
    clock: t.Callable[[], float] = time.monotonic,
) -> None:
    """Read and drop the rest of a pipe until its writer ends it, for at most 10 seconds.

    Otherwise a tap that still writes would print a traceback of a broken pipe after our error.
    Any other kind of input is left alone. `is_stopped` returns whether to end immediately.
    """
    try:
        descriptor = -1 if source is None else source.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):  # in memory, or closed
        return
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return
    deadline = clock() + _DISCARD_SECONDS
    while not is_stopped() and (left := deadline - clock()) > 0:
        seconds = min(left, _DISCARD_POLL_SECONDS)
        readable, _, _ = select.select([descriptor], [], [], seconds)
        if readable:
            try:
                if not os.read(descriptor, CHUNK_BYTES):
                    return
            except OSError:  # such as a socket that its writer has reset
                return


def blocks(chunks: Iterable[_Chunk], too_long: t.Callable[[], InputError]) -> Iterator[_Chunk]:
    """Yield whole lines: cut each chunk at its last line break. The last line may lack its own.

    ``None`` is passed on. ``too_long`` returns the error for a line longer than `LONGEST_LINE`,
    which follows the lines yielded so far.
    """
    rest = bytearray()
    for chunk in chunks:
        if chunk is None:
            yield chunk
            continue
        end = chunk.rfind(b"\n") + 1
        if end:
            yield bytes(rest) + chunk[:end]
            rest.clear()
        rest += chunk[end:]
        if len(rest) > LONGEST_LINE:
            raise too_long()
    if rest:
        yield bytes(rest)


def pieces(block: bytes) -> Iterator[bytes]:
    """Cut a block into pieces of a few whole lines."""
    start = 0
    while start < len(block):
        end = block.find(b"\n", start + PIECE_BYTES) + 1 or len(block)
        yield block[start:end]
        start = end


def split_lines(piece: bytes) -> list[bytes]:
    """Return the lines of a piece without their line breaks."""
    return piece.removesuffix(b"\n").split(b"\n")


def count_lines(piece: bytes) -> int:
    """Return the number of lines of a piece."""
    breaks = len(piece) - len(piece.replace(b"\n", b""))  # in Python 3.11 faster than counting
    return breaks + bool(piece and not piece.endswith(b"\n"))
