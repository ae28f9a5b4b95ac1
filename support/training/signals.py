"""Ctrl-C and SIGTERM during training: remembered until the loop can save.

with Signals() as signals:
    ...
    if signals.received: save and leave
"""

import os
import signal
from types import FrameType

from support.errors import Interrupted

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Remembers the first SIGINT or SIGTERM; a second one raises `Interrupted` at once.

    Attributes:
        received: the signal's number; None: none has come.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "Signals":
        self._before = {number: signal.signal(number, self._remember) for number in HANDLED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that is not Python's, which Python cannot restore.
            signal.signal(number, handler or signal.SIG_DFL)

    def _remember(self, signum: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted("interrupted twice: stopped without saving", signum)
        self.received = signum
        if os.isatty(2):
            os.write(2, b"\nInterrupted: saving after these steps; again: stop without saving\n")
