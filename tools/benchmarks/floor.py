"""The floor: decode the lines of standard input into typed structs, and drop them.

    python floor.py [--blocks]

The structs hold only the mapped column, as the target's do. By lines is what a reader does that
looks at one message after the other; by blocks is the least that any reader in Python could do.
"""

import itertools
import os
import sys

import msgspec

BLOCK_BYTES = 1 << 20


class Row(msgspec.Struct, gc=False):
    """The mapped column of a record."""

    uid: str | None = None


class Message(msgspec.Struct, gc=False):
    """What is needed of any message."""

    type: str
    stream: str | None = None
    record: Row | None = None


def by_lines() -> None:
    """Decode one line after the other."""
    decode = msgspec.json.Decoder(Message).decode
    for line in sys.stdin.buffer:
        decode(line)


def by_blocks() -> None:
    """Decode all lines of a block at once."""
    decode = msgspec.json.Decoder(Message).decode_lines
    rest = b""
    for block in itertools.takewhile(len, iter(lambda: os.read(0, BLOCK_BYTES), None)):
        head, newline, tail = block.rpartition(b"\n")
        if newline:
            decode(rest + head)
            rest = tail
        else:
            rest += tail
    decode(rest)


if __name__ == "__main__":
    (by_blocks if "--blocks" in sys.argv else by_lines)()
