"""What passes between train.py and its terminal: progress on the screen, signals from the keys.

with console.Signals() as signals:
    ...
    if signals.received: save and leave
"""

import signal
import sys
import time

from support import Interrupted

# The figures of an epoch's line, with their decimals.
SHOWN = {"loss_total": 2, "loss_bce": 2, "loss_KLD": 2, "RMSE": 4}


class Progress:
    """What the user sees of an epoch: Keras's bar on a terminal, and one line at its end.

    Args:
        epoch: counted from 0.
        epochs, steps, batch: of the run, of an epoch, images of a step.
        done: steps that are done already.
        shown: False: nothing is printed.
    """

    def __init__(self, epoch, epochs, steps, batch, done=0, shown=True):
        self._title = f"Epoch {epoch + 1}/{epochs}"
        self._batch, self._first, self._done = batch, done, done
        self._started = time.monotonic()
        self._shown, self._bar = shown, None
        if shown and sys.stdout.isatty():
            from keras.utils import Progbar

            print(self._title)
            self._bar = Progbar(steps, stateful_metrics=["loss_total", "images/s"])

    def update(self, done, loss_total):
        """Shows that `done` steps of the epoch are done."""
        self._done = done
        self._seconds = time.monotonic() - self._started
        if self._bar:
            self._bar.update(done, [("loss_total", loss_total), ("images/s", self._speed())])

    def _speed(self):
        """Images a second, of training alone."""
        return self._batch * (self._done - self._first) / max(self._seconds, 1e-9)

    def finish(self, trained, validated):
        """Prints the line of the epoch; both are dicts of means over the epoch's steps and over
        the validation images."""
        pairs = ", ".join(
            f"{name} {trained[name]:.{digits}f} / {validated[name]:.{digits}f}"
            for name, digits in SHOWN.items()
        )
        if self._shown:
            print(f"{self._title}: train / val {pairs}; {self._speed():,.0f} images/s", flush=True)


class Signals:
    """Remembers SIGINT or SIGTERM in `received` until the loop can act; a second one raises
    `Interrupted` at once."""

    def __init__(self):
        self.received = None

    def __enter__(self):
        self._before = {
            number: signal.signal(number, self._remember)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            # None: not Python's, and not Python's to give back.
            signal.signal(number, handler or signal.SIG_DFL)

    def _remember(self, signum, _frame):
        if self.received:
            raise Interrupted("interrupted twice: stopped without saving", signum)
        self.received = signum
