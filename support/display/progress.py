"""What a run shows in the terminal: its data set, a progress bar, and a line per epoch."""

import sys
import textwrap
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from support import records
from support.datasets.types import Dataset

if TYPE_CHECKING:
    import rich.progress

WIDTH = 78


def announce(dataset: Dataset) -> None:
    """Prints what is to be known of a data set; a fallback is said so that it cannot be missed."""
    if dataset.fallback_reason:
        bar = "!" * WIDTH
        print(bar)
        print("THIS IS NOT MNIST: training on `digits`, 1,797 small digits from scikit-learn.")
        print("Results on them cannot be compared with results on MNIST.")
        print("Train for at least 100 epochs.")
        print(textwrap.fill(f"MNIST is not available: {dataset.fallback_reason}.", WIDTH))
        print(bar)
    for line in dataset.description:
        print(line)
    for notice in (*dataset.notices, *dataset.training_notices):
        print(f"Notice: {notice}")


def sizes(dataset: Dataset) -> str:
    """Returns what a data set is called, how many images it has, and of which classes."""
    counts = [
        f"{len(split.images):,} {name}"
        for name, split in (
            ("train", dataset.train),
            ("validation", dataset.validation),
            ("test", dataset.test),
        )
    ]
    sentence = f"Data set {dataset.name}: {', '.join(counts)} images."
    if dataset.classes:
        classes = records.classes_as_typed(dataset.classes, dataset.class_names)
        sentence += f" Training and validation images are only those of {classes:.400} (--digits)."
    return sentence


class Progress:
    """A bar on a terminal, and one line at the end of each epoch.

    Args:
        epochs: epochs of the run.
        steps_per_epoch: steps per epoch.
        batch_size: images per step.
        done: steps of the run that are already done.
        shown: False: nothing is printed.
    """

    def __init__(
        self, epochs: int, steps_per_epoch: int, batch_size: int, done: int, shown: bool
    ) -> None:
        self._epochs, self._steps_per_epoch = epochs, steps_per_epoch
        self._batch_size, self._shown = batch_size, shown
        self._first_step = self._done = self._epoch_first_step = done
        self._started = self._epoch_started = self._now = time.monotonic()
        self._bar = self._new_bar() if shown and sys.stdout.isatty() else None

    def _new_bar(self) -> "rich.progress.Progress":
        from rich import progress

        # Only one colour: a second one is hard to tell from an empty bar, or resembles an error.
        part = progress.BarColumn(12, complete_style="green", finished_style="green")
        columns = "{task.description}", part, "{task.fields[status]}"
        # Refreshed by hand, so that no other thread runs at the same time as the training.
        bar = progress.Progress(*columns, transient=True, auto_refresh=False)
        bar.add_task("", total=self._steps_per_epoch, status="")
        return bar

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, loss_total: float) -> None:
        """Shows that `done` steps of the run are done, and the newest -ELBO."""
        self._done, self._now = done, time.monotonic()
        if not self._bar:
            return
        seconds_per_step = (self._now - self._started) / (done - self._first_step)
        epoch_index, last_index = divmod(done - 1, self._steps_per_epoch)
        left_in_epoch = self._steps_per_epoch - last_index - 1
        left_in_run = self._epochs * self._steps_per_epoch - done
        epoch_left, run_left = (
            timedelta(seconds=round(seconds_per_step * left))
            for left in (left_in_epoch, left_in_run)
        )
        self._bar.update(
            self._bar.task_ids[0],
            completed=last_index + 1,
            refresh=True,
            description=f"Epoch {epoch_index + 1}/{self._epochs}",
            status=f"loss_total {loss_total:.1f}, left: epoch {epoch_left}, run {run_left}",
        )
        self._bar.start()

    def end_epoch(
        self,
        trained: Mapping[str, float],
        validated: Mapping[str, float],
        distorted: float = 0.0,
    ) -> None:
        """Prints the line of an epoch.

        Args:
            trained: means over the epoch's steps, by name.
            validated: means over the validation images, by name.
            distorted: the fraction of training images that were distorted, unlike those of
                validation.
        """
        if self._bar:
            self._bar.stop()
        if self._shown:
            images = self._batch_size * (self._done - self._epoch_first_step)
            speed = images / max(self._now - self._epoch_started, 1e-9)
            note = f" ({100 * distorted:.0f} % distorted)" if distorted else ""
            print(
                f"Epoch {self._done // self._steps_per_epoch}/{self._epochs}: "
                f"loss_total {trained['loss_total']:.2f} train{note}, "
                f"{validated['loss_total']:.2f} validation; {speed:,.0f} images/s",
                flush=True,
            )
        self._epoch_first_step, self._epoch_started = self._done, time.monotonic()
