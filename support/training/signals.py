"""Ctrl-C and other signals during training: remembered until the loop can save.

with Signals() as signals:
    ...
    if signals.received: save and leave
"""

import contextlib
import os
import signal
from types import FrameType

from support import cli
from support.errors import Interrupted


class Signals:
    """Remembers the first signal that is to end a run; a second one raises `Interrupted` at once.

    Handles Ctrl-C (SIGINT) and the signals in `cli.TERMINATION`.

    SIGUSR1, which schedulers send some time before they end a process, asks for a save; the run
    then goes on.

    Attributes:
        received: the number of the signal; None: none has arrived.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._save_requested = False
        self._handlers = contextlib.ExitStack()

    def __enter__(self) -> "Signals":
        signals = (signal.SIGINT, *cli.TERMINATION)
        self._handlers.enter_context(cli.handled(signals, self._remember))
        self._handlers.enter_context(cli.handled(cli.SAVE_REQUEST, self._request_save))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    def take_save_request(self) -> bool:
        """Returns whether a save was asked for since the last call."""
        requested, self._save_requested = self._save_requested, False
        return requested

    def _request_save(self, _signum: int, _frame: FrameType | None) -> None:
        self._save_requested = True

    def _remember(self, signum: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted("interrupted twice: stopped without saving", signum)
        self.received = signum
        cli.drop_unread_output()
        if os.isatty(2):
            os.write(
                2,
                b"\nInterrupted: the run will be saved after the current steps. "
                b"Interrupt again to stop without saving.\n",
            )
