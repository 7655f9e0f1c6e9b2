"""Text files that the user names."""

from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.core.errors import InputError

if t.TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise what prevents a file from being read as text as an `InputError` that names it."""
    try:
        yield
    except OSError as error:
        msg = f"{name}: cannot be read ({error.strerror}); choose another file"
        raise InputError("unreadable_file", msg) from None
    except UnicodeError:
        msg = f"{name}: is not valid UTF-8; save it in that encoding"
        raise InputError("not_utf8", msg) from None
