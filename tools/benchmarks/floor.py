"""The lower bound: decode the lines of standard input into typed structs, and drop them.

    python floor.py [--blocks]

The structs have only the mapped column, as the target's do. By lines is the work of a reader that
looks at each message separately; by blocks is the least work of any reader in Python.
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
    """The required fields of a message."""

    type: str
    stream: str | None = None
    record: Row | None = None


def by_lines() -> None:
    """Decode line by line."""
    decode = msgspec.json.Decoder(Message).decode
    for line in sys.stdin.buffer:
        decode(line)


def by_blocks() -> None:
    """Decode all lines of a block in one call."""
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
