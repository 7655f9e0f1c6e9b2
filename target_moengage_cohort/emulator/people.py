"""The users of a workspace."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable

Space = t.Literal["uid", "anonymous_id"]

User = tuple[Space, str]
"""A name space and an identifier; a user who has both is one by the uid."""


class People:
    """The users that MoEngage knows; all users, until some are named."""

    def __init__(self) -> None:
        self._known: set[User] | None = None

    def know(self, uids: Iterable[str], anonymous_ids: Iterable[str] = ()) -> None:
        """Know these users and, from now on, no others."""
        known: set[User] = self._known or set()
        known.update(("uid", uid) for uid in uids)
        known.update(("anonymous_id", each) for each in anonymous_ids)
        self._known = known

    def among(self, users: set[User]) -> set[User]:
        """Return those of some users that exist."""
        return users if self._known is None else users & self._known

    def everyone(self, mentioned: Iterable[set[User]]) -> set[User]:
        """Return all users; if no users were named, those in any segment."""
        return set().union(*mentioned) if self._known is None else self._known
