"""The English of pages and messages: words and turns that readers stumble over."""

import re

import pytest

from tests.support.documents import PAGES, ROOT, messages, name, prose

HABITS = {  # what is found, and what to write instead
    r"mend(?:s|ed|ing)?": "fix",
    r"besides?": "in addition to, together with",
    r"at once": "immediately, concurrently, in one pass",
    r"whoever|(?:add|remove)s? who\b": "members that",
    r"(?:no|every|any)body": "members, users",
    r"(?<!there )(?:is|are|was|were) no (?!longer|more|less|fewer)": "is not a, is not an",
    r"(?<!/)folders?": "directory",
    r"lets? \S+(?: \S+)? go": "release",
    r"work(?:s|ed|ing)?(?: \S+)? out": "compute",
    r"(?-i:See that)": "Check that",
    r"in doubt": "unconfirmed",
    r"sealed": "finished",
    r"void": "expired",
    r"costs? (?:nothing|no|\d)": "takes no request",
    r"requests a (?:second|minute|hour|day)": "requests per minute",
    r"go(?:es)? on (?:from|where|with)": "resumes from",
}
PATTERNS = {rf"\b(?:{habit})\b": better for habit, better in HABITS.items()}
FORMS = sorted((ROOT / ".github").rglob("*.md")) + sorted((ROOT / ".github").glob("ISSUE*/*.yml"))
TEXTS = [*PAGES, ROOT / "CHANGELOG.md", *FORMS]


def habits(text: str) -> list[str]:
    """Return what to reword in a text, with its surroundings; code is left alone."""
    plain = " ".join(re.sub(r"`[^`\n]*`", "`…`", text).split())
    return [
        f"{plain[max(0, match.start() - 30) : match.end() + 20]!r}: {better}"
        for pattern, better in PATTERNS.items()
        for match in re.finditer(pattern, plain, re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_a_page_has_none_of_the_habits(page):
    """Pages, the changelog and issue forms contain none of the words in the list."""
    assert [] == habits(prose(page))


def test_a_message_has_none_of_the_habits():
    """No message, description or docstring of the package contains a word of the list."""
    texts = [(place, text) for place, text in messages() if " " in text]  # others are names
    assert [] == [(place, found) for place, text in texts for found in habits(text)]


@pytest.mark.parametrize(
    "text", ["Mend it", "two at\nonce", "it is no URL", "let them go", "works it out", "void"]
)
def test_a_habit_is_found(text):
    """A word of the list is found in any case, form and across lines."""
    assert 1 == len(habits(text))
    assert [] == habits(f"There is no default, it is no longer `{text.split()[0]}`.")
