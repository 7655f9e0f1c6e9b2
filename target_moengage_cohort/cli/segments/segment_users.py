"""The users in files of the last day, which the commands on all machines count together."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.moengage.calls import FILE_USERS, USERS_A_PERMIT

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.core.rate_limits import RateLimit


class FileUsers:
    """Counts users as other limits count calls, a begun thousand of a command as a whole one.

    `reserve` takes permits of a limit, or returns the seconds until there may be as many; `release`
    gives some of them back.
    """

    def __init__(
        self,
        reserve: Callable[[RateLimit, int], float],
        release: Callable[[RateLimit, int], None],
    ) -> None:
        self._reserve, self._release = reserve, release
        self._permits = 0

    def take(self, users: int) -> float:
        """Count users, or return the seconds until a day has room for them."""
        permits = min(-(-users // USERS_A_PERMIT), FILE_USERS.spans[0].requests)
        seconds = self._reserve(FILE_USERS, permits) if permits else 0.0
        self._permits = 0 if seconds else permits
        return seconds

    def note(self, users: int) -> float:
        """Count users that MoEngage has already, as far as a day has room for them.

        Return the seconds until a day has room for all of them.
        """
        if seconds := self.take(users):
            most = FILE_USERS.spans[0].requests
            for exponent in reversed(range(most.bit_length())):  # all the room that there is
                self._reserve(FILE_USERS, min(2**exponent, most))
        return seconds

    def keep(self, users: int) -> None:
        """Count only some of the users that `take` has counted: the others were not sent."""
        if unused := self._permits - -(-users // USERS_A_PERMIT):
            self._release(FILE_USERS, unused)
