"""Strategies for hypothesis that several tests use."""

from hypothesis import strategies as st


def histories(elements: st.SearchStrategy, longest: int) -> st.SearchStrategy[list]:
    """Lists of any length alike; `st.lists` alone draws six elements or so, which fills nothing."""
    return st.integers(1, longest).flatmap(
        lambda length: st.lists(elements, min_size=length, max_size=length)
    )
