from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from target_moengage_cohort.core.interrupts import Interrupt, TerminationSignals


@pytest.fixture
def interrupt():
    made = Interrupt()
    yield made
    made.close()


def test_every_kind_of_wait_ends(interrupt):
    """A wait, a select and a callback all notice the interrupt."""
    called = []
    interrupt.call_when_set(lambda: called.append(threading.current_thread().name))
    waited = threading.Thread(target=lambda: called.append(interrupt.wait(60)))
    selected = threading.Thread(target=lambda: called.append(_readable(interrupt, 60)))
    waited.start()
    selected.start()
    assert not interrupt.is_set()
    interrupt.set()
    waited.join()
    selected.join()
    assert interrupt.is_set()
    assert [threading.current_thread().name, True, True] == sorted(called, key=str)


def test_it_is_set_once(interrupt):
    """A second `set` calls no callback, and the interrupt stays set."""
    called = []
    interrupt.call_when_set(lambda: called.append(1))
    interrupt.set()
    interrupt.set()
    assert [1] == called
    assert [True, True, True] == [interrupt.is_set(), interrupt.wait(60), _readable(interrupt, 0)]


def test_a_wait_ends_by_itself(interrupt):
    """Without an interrupt a wait ends after its time."""
    assert [False, False] == [interrupt.wait(0), _readable(interrupt, 0)]


def _readable(interrupt, seconds) -> bool:
    return bool(select.select([interrupt.fileno()], [], [], seconds)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_sets_the_interrupt(interrupt, number):
    """SIGTERM and SIGINT end the waits, even in the main thread, and are recorded."""
    before = signal.getsignal(number)
    with TerminationSignals(interrupt) as signals:
        assert None is signals.received
        os.kill(os.getpid(), number)
        assert interrupt.wait(60)
        assert number == signals.received
    assert before is signal.getsignal(number)
    assert -1 == signal.set_wakeup_fd(-1)


def test_other_handled_signals_are_left_alone(interrupt):
    """A signal with another handler neither sets the interrupt nor ends the process."""
    got = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: got.set())
    try:
        with TerminationSignals(interrupt) as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert got.wait(60)
            assert not interrupt.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.wait(60)
            os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.SIGTERM == signals.received
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_without_a_signal_nothing_happens(interrupt):
    """The block ends normally, and no signal is recorded."""
    with TerminationSignals(interrupt) as signals:
        pass
    assert (None, False) == (signals.received, interrupt.is_set())


STUBBORN = """
import threading
from target_moengage_cohort.core.interrupts import Interrupt, TerminationSignals
interrupt = Interrupt()
interrupt.call_when_set(lambda: print("interrupted", flush=True))
with TerminationSignals(interrupt):
    print("ready", flush=True)
    with threading.Lock() as _:
        threading.Event().wait()
"""


def test_a_second_signal_ends_the_process():
    """A second signal ends the process with the signal's code, whatever it waits for."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert "ready\n" == process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert "interrupted\n" == process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert 143 == process.wait(30)
        assert "" == process.stderr.read()


def test_two_signals_in_quick_succession_are_one_request(interrupt):
    """Meltano sends SIGTERM right after Ctrl-C, which all processes of a pipeline get: there is
    still time to end in good order."""
    with TerminationSignals(interrupt) as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.SIGINT == signals.received
