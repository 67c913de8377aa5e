"""The first interrupt waits for a place to stop at, the second does not."""

import signal

import pytest

from masterkey.benchmarks.interrupt import Interrupts


def test_an_interrupt_waits_for_the_end_of_a_step_and_a_second_one_does_not():
    with Interrupts() as interrupts:
        interrupts.check()
        signal.raise_signal(signal.SIGINT)  # is held back
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    heard: list[int] = []
    try:
        signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert heard == [signal.SIGINT]
