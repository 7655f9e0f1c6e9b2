"""Strategies for hypothesis that several tests use."""

from hypothesis import strategies as st


def histories(elements: st.SearchStrategy, longest: int) -> st.SearchStrategy[list]:
    """Draw lists of any length with equal probability; `st.lists` alone draws short ones."""
    return st.integers(1, longest).flatmap(
        lambda length: st.lists(elements, min_size=length, max_size=length)
    )
