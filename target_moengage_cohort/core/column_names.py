"""Names of columns in messages: quoted, with what is invisible in them; pure."""

from __future__ import annotations

import typing as t
import unicodedata

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Iterable

_BYTE_ORDER_MARK = "\ufeff"
_NAMES = {
    _BYTE_ORDER_MARK: "a byte order mark",
    " ": "a space",
    "\t": "a tab",
    "\n": "a line break",
    "\r": "a carriage return",
    "\xa0": "a no-break space",
}


def quote_name(name: str) -> str:
    """Return a name in quotes, with escapes for what cannot be seen, and what that is."""
    faults = []
    for place, rest in (("in front", name.lstrip()), ("at the end", name.rstrip())):
        edge = name[:1] if place == "in front" else name[-1:]
        if rest != name and name.strip():
            faults.append(f"{_described(edge)} {place}")
    for character in dict.fromkeys(name):
        is_inner = character != " " and character in name.strip()
        if is_inner and (not character.isprintable() or character.isspace()):
            place = " in front" if name.startswith(character) else ""
            faults.append(f"{_described(character)}{place}")
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)
    return f"'{shown}'" + (f" (with {' and '.join(faults)})" if faults else "")


def quote_all(names: Iterable[str]) -> str:
    """Return names in quotes, with a comma between two."""
    return ", ".join(map(quote_name, names))


def _described(character: str) -> str:
    if (name := _NAMES.get(character)) is not None:
        return name
    return f"a {unicodedata.name(character, f'character U+{ord(character):04X}').lower()}"


class SimilarName(msgspec.Struct, frozen=True):
    """A name that differs from the expected one only in case or in what cannot be seen."""

    name: str
    differs_in_case: bool

    def remedy(self, setting: str) -> str:
        """Return what to do about it where a setting names the column."""
        if self.differs_in_case:
            return f"{quote_name(self.name)} differs only in case: set {setting}: {self.name}"
        return f"{quote_name(self.name)} looks the same but is a different name: {self._rename}"

    @property
    def _rename(self) -> str:
        if _BYTE_ORDER_MARK in self.name:
            return "set the tap's encoding to utf-8-sig"
        return "rename the column in the source, or with a stream map"


def differs_how(name: str, others: Iterable[str]) -> SimilarName | None:
    """Return the name among others that looks like a missing one, if there is any."""
    others = list(others)
    for other in others:
        if other.lower() == name.lower() and other != name:
            return SimilarName(other, differs_in_case=True)
    for other in others:
        if other != name and _visible(other) == _visible(name):
            return SimilarName(other, differs_in_case=False)
    return None


def _visible(name: str) -> str:
    text = unicodedata.normalize("NFKC", name)
    return "".join(each for each in text if each.isprintable() and each != " ").casefold()
