"""The row of a terminal that shows progress, below the log."""

import io
import logging
import threading

import pytest

from target_moengage_cohort.core.status_line import StatusLine, can_show_on, status_line

ERASE = "\r\x1b[2K"


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A terminal of 40 columns."""
    monkeypatch.setenv("COLUMNS", "40")


def test_text_goes_above_the_line():
    """The line is erased before text is written, and drawn again once a text ends its line."""
    stream = io.StringIO()
    line = StatusLine(stream)
    line.write("before\n")
    line.show("1 %")
    line.write("half")
    line.show("2 %")
    line.write(" a line\n")
    line.clear()
    line.write("after\n")
    shown = ("before\n", f"{ERASE}1 %", f"{ERASE}half", " a line\n2 %", ERASE, "after\n")
    assert "".join(shown) == stream.getvalue()


@pytest.mark.parametrize(("columns", "shown"), [("40", 39), ("200", 79), ("1", 79), ("x", 79)])
def test_the_line_never_fills_a_row(monkeypatch, columns, shown):
    """The line is shorter than the terminal's row, and than 80 columns."""
    monkeypatch.setenv("COLUMNS", columns)
    stream = io.StringIO()
    StatusLine(stream).show("x" * 300)
    assert shown == stream.getvalue().count("x")


def test_the_log_writes_through_the_line():
    """Inside the block, handlers of the stream write above the line; afterwards, as before."""
    stream, other = io.StringIO(), io.StringIO()
    log = logging.getLogger("tests.status_line")
    log.propagate = False
    handlers = [logging.StreamHandler(stream), logging.StreamHandler(other)]
    for handler in handlers:
        log.addHandler(handler)
    try:
        with status_line(stream) as line:
            line.show("1 %")
            log.warning("told")
            assert f"1 %{ERASE}told\n1 %" in stream.getvalue()
        log.warning("after")
    finally:
        for handler in handlers:
            log.removeHandler(handler)
    assert stream.getvalue().endswith(f"{ERASE}after\n")
    assert "told\nafter\n" == other.getvalue()


def test_threads_do_not_mix_their_text():
    """Whatever threads write, each text is whole."""
    stream = io.StringIO()
    line = StatusLine(stream)

    def write():
        for _ in range(200):
            line.write("a whole line\n")
            line.show("progress")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [row.split(ERASE)[-1] for row in stream.getvalue().split("\n")]
    assert {"a whole line", "progress"} == {*rows}


def test_only_a_terminal_has_the_line(monkeypatch):
    """A file has no such line, and neither has a terminal that cannot erase."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert [True, False, False] == [*map(can_show_on, (Terminal(), io.StringIO(), None))]
    monkeypatch.setenv("TERM", "dumb")
    assert not can_show_on(Terminal())
