"""What passes between train.py and its terminal: progress on the screen, signals from the keys."""

import signal
import sys
import time

from flags import UserError


class Progress:
    """What the user sees of an epoch: Keras's bar on a terminal, and one line at its end."""

    def __init__(self, epoch, epochs, steps, batch, done, shown=True):
        self.title = f"Epoch {epoch}/{epochs}"
        self.batch, self.first, self.done = batch, done, done
        self.started = time.monotonic()
        self.bar, self.shown = None, shown
        if shown and sys.stdout.isatty():
            from keras.utils import Progbar

            print(self.title)
            self.bar = Progbar(steps, stateful_metrics=["loss_total", "images/s"])

    def update(self, done, loss_total):
        """Shows that `done` steps of the epoch are done."""
        self.done = done
        self.seconds = time.monotonic() - self.started
        if self.bar:
            self.bar.update(done, [("loss_total", loss_total), ("images/s", self.speed())])

    def speed(self):
        """Images a second, of training alone."""
        return self.batch * (self.done - self.first) / max(self.seconds, 1e-9)

    def finish(self, trained, validated):
        """Prints the line of the epoch; train figures are means over its steps."""
        pairs = ", ".join(
            f"{name} {trained[name]:.{digits}f} / {validated[name]:.{digits}f}"
            for name, digits in (
                ("loss_total", 2),
                ("loss_bce", 2),
                ("loss_KLD", 2),
                ("RMSE", 4),
            )
        )
        if self.shown:
            print(f"{self.title}: train / val {pairs}; {self.speed():,.0f} images/s", flush=True)


class StopRequest:
    """Remembers SIGINT or SIGTERM until the loop can act; a second one gives up at once.

    `agreed` is the signal to act on: what all workers of a run know of.
    """

    def __init__(self):
        self.signum = self.agreed = None

    def __enter__(self):
        self.before = {
            number: signal.signal(number, self._remember)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            # None: not Python's, and not Python's to give back.
            signal.signal(number, handler or signal.SIG_DFL)

    def _remember(self, signum, _frame):
        if self.signum:
            raise UserError("interrupted twice: stopped without saving", 128 + signum)
        self.signum = signum

    def agree(self, team):
        """Makes a signal that any worker got that of all; each of them has to call this."""
        if team.any(bool(self.signum)):
            self.agreed = self.signum or signal.SIGTERM

    def act(self, folder, unfinished):
        """Leaves the script with 130 or 143 where a signal came and work remains."""
        if self.agreed and unfinished:
            raise UserError(
                f"interrupted; saved in {folder}: the same command continues the run",
                128 + self.agreed,
            )
