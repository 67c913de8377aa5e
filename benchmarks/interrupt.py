"""Ctrl-C between two steps of a sweep, not amid one."""

import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """While it is entered, SIGINT waits for ``check``; a second one does not.

    A sweep that is broken off while it starts a process leaves one that complains of half a message, and Python drops
    an exception that a signal raises inside a finaliser. A handler that is not Python's own is left in charge.
    """

    def __init__(self) -> None:
        self._asked = False
        self._mine = False

    def check(self) -> None:
        """Raise what was held back.

        Raises:
            KeyboardInterrupt: SIGINT came meanwhile.
        """
        if self._asked:
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.check()
        self._asked = True

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            try:
                signal.signal(signal.SIGINT, self._hear)
                self._mine = True
            except ValueError:  # not the main thread, which is the one that hears signals
                pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)
