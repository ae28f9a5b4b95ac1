"""What passes between train.py and its terminal: progress on the screen, signals from the keys.

with console.Signals() as signals:
    ...
    if signals.received: save and leave
"""

import os
import signal
import sys
import textwrap
import time
from datetime import timedelta

from support import Interrupted


def announce(dataset):
    """Says which data a run is on, a `data.Dataset`; of a fallback so that nobody can miss it."""
    if dataset.notice:
        bar = "!" * 78
        print(f"{bar}\nTHIS IS NOT MNIST: training on `digits`, 1,797 digits of scikit-learn.")
        print("Their figures compare with none of MNIST's; so few need 100 epochs or more.")
        print(textwrap.fill(f"MNIST could not be had: {dataset.notice}.", 78), bar, sep="\n")
    parts = ("train", "validation", "test")
    sizes = ", ".join(f"{len(getattr(dataset, part).images):,} {part}" for part in parts)
    print(f"Data set {dataset.name}: {sizes} images.")


class Progress:
    """What the user sees of a run: a bar on a terminal, and one line at the end of each epoch.

    Args:
        epochs, steps, batch: of the run, of an epoch, images of a step.
        done: steps of the run that are done already.
        shown: False: nothing is printed.
    """

    def __init__(self, epochs, steps, batch, done, shown):
        self._epochs, self._steps, self._batch = epochs, steps, batch
        self._first = self._done = self._epoch_first = done
        self._started = self._epoch_started = time.monotonic()
        self._shown, self._bar = shown, None
        if shown and sys.stdout.isatty():
            from rich import progress

            # One colour: others cannot be told from an empty bar, or look like an error.
            part = progress.BarColumn(12, complete_style="green", finished_style="green")
            columns = "{task.description}", part, "{task.fields[told]}"
            # By hand: nothing else runs beside the training.
            self._bar = progress.Progress(*columns, transient=True, auto_refresh=False)
            self._task = self._bar.add_task("", total=steps, told="")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar:
            self._bar.stop()

    def update(self, done, loss_total):
        """Shows that `done` steps of the run are done."""
        self._done, now = done, time.monotonic()
        self._seconds = now - self._epoch_started
        if self._bar:
            pace = (now - self._started) / (done - self._first)
            ends = (-done % self._steps, self._epochs * self._steps - done)
            epoch, run = (timedelta(seconds=round(pace * left)) for left in ends)
            told = f"loss_total {loss_total:.1f}, left: epoch {epoch}, run {run}"
            before, last = divmod(done - 1, self._steps)
            look = {"description": f"Epoch {before + 1}/{self._epochs}", "told": told}
            self._bar.update(self._task, completed=last + 1, refresh=True, **look)
            self._bar.start()

    def end_epoch(self, trained, validated):
        """Prints the line of the epoch; both are dicts of means over the epoch's steps and over
        the validation images."""
        if self._bar:
            self._bar.stop()
        if self._shown:
            speed = self._batch * (self._done - self._epoch_first) / max(self._seconds, 1e-9)
            losses = [part["loss_total"] for part in (trained, validated)]
            print(
                f"Epoch {self._done // self._steps}/{self._epochs}: loss_total {losses[0]:.2f} "
                f"train, {losses[1]:.2f} validation; {speed:,.0f} images/s",
                flush=True,
            )
        self._epoch_first, self._epoch_started = self._done, time.monotonic()


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
        if os.isatty(2):
            os.write(2, b"\nInterrupted: saving after these steps; again: stop without saving\n")
