"""What surrounds the training loop: where the run stands, saves, summaries, progress, signals.

The loop in train.py talks to a `Run` at two points, as Keras talks to its callbacks: after each
call of several steps, and after each epoch.
"""

import contextlib
import dataclasses
import importlib.metadata
import platform
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

import model
from support import records
from support.analysis import metrics
from support.display import progress, summaries
from support.errors import Interrupted, NotFiniteError, UserError
from support.storage import weights, weights_file
from support.storage.run_folder import RunFolder
from support.storage.validation import Weights
from support.training.distribution import Workers
from support.training.schedule import LearningRate
from support.training.signals import Signals

# Epochs between two pictures of the same digits in TensorBoard; the last epoch has one, too.
PICTURE_EPOCHS = 5
# The terms of each step that the curves show.
TERM_NAMES = ("objective", *model.TERMS)


class Plan(NamedTuple):
    """What a run needs to know of its loop.

    Attributes:
        epochs, steps_per_epoch, batch_size: of the loop.
        log_every: steps between two points of a train curve.
        save_every: seconds between two saves.
        seed: of the pictures in TensorBoard.
        pictured: uint8 (n, 784), validation images of which TensorBoard shows the first few.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    log_every: int
    save_every: float
    seed: int
    pictured: NDArray[np.uint8]


class Run:
    """A run in progress; a context manager.

    Args:
        plan: of its loop.
        workers: that share it.
        folder: where it lives, entered already.
        record: of a new run, at step 0.
        given: the weights that a new run starts from; None: random ones.

    Attributes:
        workers: that share it.
        step: how many steps are done.
    """

    def __init__(
        self,
        plan: Plan,
        workers: Workers,
        folder: RunFolder,
        record: records.RunRecord,
        given: Weights | None,
    ) -> None:
        self.workers, self.step = workers, 0
        self._folder, self._record, self._given, self._plan = folder, record, given, plan
        self._means = summaries.RunningMeans(TERM_NAMES, plan.log_every)
        self._signals = Signals()
        self._resources = contextlib.ExitStack()
        self._progress: progress.Progress | None = None
        self._saved_at = time.monotonic()

    def __enter__(self) -> "Run":
        self._resources.enter_context(self._signals)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.step // self._plan.steps_per_epoch

    @property
    def _last_step(self) -> int:
        return self._plan.epochs * self._plan.steps_per_epoch

    def restore(
        self,
        vae: model.VAE,
        optimizer: keras.optimizers.Optimizer,
        learning_rate: LearningRate,
    ) -> None:
        """Makes the first save of a new run, then loads the newest save, whoever wrote it.

        Args:
            vae, optimizer: both built; filled from the save.
            learning_rate: its schedule, for the curve.

        Raises:
            UserError: the save is damaged, or not all workers see the same one.
        """
        self._learning_rate = learning_rate
        self._vae, self._optimizer = vae, optimizer
        if self._folder.record is None and self._folder.writes:
            self._folder.clear()
            if self._given:
                weights.fill(vae, self._given)
            self._save()
        self.workers.wait()
        self._require_same_save()
        self._load()
        chief = self.workers.chief
        if chief:
            summaries.claim(self._folder.log_dir, self._record.run_id)
        if self.step and chief:
            epochs_done = self.step / self._plan.steps_per_epoch
            print(
                f"Continuing at step {self.step}, after {epochs_done:.4g} of "
                f"{self._plan.epochs} epochs."
            )
        writer = summaries.Summaries(self._folder.log_dir if chief else None)
        self._summaries = self._resources.enter_context(writer)
        self._summaries.start(self.step, self._record)

    def _require_same_save(self) -> None:
        """Raises where the workers do not all see the same newest save."""
        found = weights.read_record(self._folder.path)
        run_id, step = (found.run_id, found.step) if found else ("0", 0)
        self.workers.require_same(
            (int(run_id[:12], 16), step),
            f"{self._folder.path} is not one folder that all workers see, or their flags differ",
        )

    def _load(self) -> None:
        """Fills model, optimizer and running means from the newest save."""
        found = self._folder.read(training_like=self._training_arrays())
        training = found.training
        assert training is not None  # since it was asked for
        self._record, self.step = found.record, found.record.step
        weights.fill(self._vae, found)
        count = len(self._optimizer.variables)
        store = {str(i): training[f"optimizer_{i}"] for i in range(count)}
        self._optimizer.load_own_variables(store)
        if int(self._optimizer.iterations.numpy()) != self.step:
            raise UserError(
                f"{self._folder.path}: run.json and the optimizer of the newest save disagree on "
                "the number of steps: start again with --overwrite, or in another folder"
            )
        self._means.restore(training)

    def _training_arrays(self) -> dict[str, NDArray]:
        """Returns what a save needs beside weights to be continued."""
        store: dict[str, object] = {}
        self._optimizer.save_own_variables(store)
        optimizer = {f"optimizer_{name}": np.asarray(value) for name, value in store.items()}
        return optimizer | self._means.state()

    def remaining(
        self, batches: NDArray[np.int32], steps_per_call: int
    ) -> Iterator[NDArray[np.int32]]:
        """Yields the batches of the current epoch that are not done yet, several at a time.

        Args:
            batches: of the whole epoch, (steps_per_epoch, batch).
            steps_per_call: the most that one call takes.
        """
        if self._progress is None:
            # From now on, when everything is compiled, time counts.
            self._progress = self._resources.enter_context(self._new_progress())
        for first in range(self.step % self._plan.steps_per_epoch, len(batches), steps_per_call):
            yield batches[first : first + steps_per_call]

    def _new_progress(self) -> progress.Progress:
        plan = self._plan
        return progress.Progress(
            plan.epochs, plan.steps_per_epoch, plan.batch_size, self.step, self.workers.chief
        )

    def after_steps(self, terms: Mapping[str, NDArray[np.float64]]) -> None:
        """Checks and records several steps, and saves where a save is due or Ctrl-C was pressed.

        Args:
            terms: the mean of each term in each step, (steps,) by name.

        Raises:
            NotFiniteError: a loss is not finite.
            Interrupted: a signal came; everything is saved.
        """
        objective = terms["objective"]
        if not np.isfinite(objective).all():
            raise self._not_finite(self.step + int(np.argmin(np.isfinite(objective))) + 1)
        for step, means in self._means.add(self.step, terms):
            rate = float(self._learning_rate(step - 1))
            self._summaries.scalars("train", step, means | {"learning_rate": rate})
        self.step += len(objective)
        assert self._progress is not None  # `remaining` has made it
        self._progress.update(self.step, terms["loss_total"][-1])
        # At the end of an epoch, after_epoch saves: with the validation.
        if self.step % self._plan.steps_per_epoch:
            self._save_if_due()

    def after_epoch(self, validated: Mapping[str, float]) -> None:
        """Records the validation of an epoch, and saves where a save is due.

        Args:
            validated: the points of the validation curves, by name.

        Raises:
            Interrupted: a signal came; everything is saved.
        """
        self._summaries.scalars("val", self.step, validated)
        epoch_index = self.epoch - 1
        if self.step == self._last_step or epoch_index % PICTURE_EPOCHS == 0:
            pictured = metrics.pictures(self._vae, self._plan.pictured, self._plan.seed)
            self._summaries.pictures(self.step, pictured)
        assert self._progress is not None
        self._progress.end_epoch(self._means.end_epoch(self._plan.steps_per_epoch), validated)
        self._save_if_due()

    def _save_if_due(self) -> None:
        stop = self.workers.any(self._signals.received is not None)
        seconds = time.monotonic() - self._saved_at
        if stop or self.step == self._last_step or seconds > self._plan.save_every:
            self._summaries.flush()
            self._save()
        self._leave(stop)

    def leave_if_interrupted(self) -> None:
        """Raises `Interrupted` where a signal has come to any worker; the last step is saved."""
        self._leave(self.workers.any(self._signals.received is not None))

    def _leave(self, stop: bool) -> None:
        if not stop:
            return
        again = "the same command"
        if self._folder.overwrite:
            again += " without --overwrite"
        raise Interrupted(
            f"interrupted; saved in {self._folder.path}: {again} continues the run",
            self._signals.received or signal.SIGTERM,
        )

    def _save(self) -> None:
        # A loss is that of the weights before its step, so the newest weights are checked here.
        for variable in self._vae.trainable_variables:
            if not np.isfinite(variable.numpy()).all():
                raise self._not_finite(self.step)
        self._saved_at = time.monotonic()
        if not self._folder.writes:
            return
        self._record = self._record_at(self.step)
        self._folder.saves.write(self._vae, self._record, self._training_arrays())

    def _record_at(self, step: int) -> records.RunRecord:
        return dataclasses.replace(
            self._record, step=step, epochs_done=step // self._plan.steps_per_epoch
        )

    def _not_finite(self, step: int) -> NotFiniteError:
        saved = weights_file.saved_steps(self._folder.path)
        kept = f"the save of step {saved[-1]} is" if saved else "no save is"
        return NotFiniteError(
            f"the loss is no longer finite at step {step}: {kept} in {self._folder.path}; try a "
            "smaller --learning_rate, in another folder"
        )

    def finish(
        self,
        posterior: records.Posterior,
        prior: Mapping[str, NDArray] | None,
        prior_record: records.PriorRecord,
    ) -> None:
        """Writes the finished weights, then removes the saves of the way there.

        Args:
            posterior: moments over the training images.
            prior: the arrays of the fitted prior; None: there is none.
            prior_record: what became of it.

        Raises:
            NotFiniteError: the posterior is one that no reader would accept.
        """
        if not posterior.finite:
            raise self._not_finite(self.step)
        if self._folder.writes:
            record = dataclasses.replace(self._record, posterior=posterior, prior=prior_record)
            self._folder.saves.write_finished(self._vae, record, prior)
        self.workers.wait()


def new_record(
    dataset: records.DatasetRecord,
    architecture: records.Architecture,
    training: Mapping[str, records.Setting],
    given: Weights | None,
) -> records.RunRecord:
    """Returns the record of a new run at step 0.

    Args:
        dataset: what it is trained on.
        architecture: its network.
        training: every flag that shapes the result.
        given: the weights that it starts from; None: random ones.
    """
    source = records.Source(given.record.run_id, given.record.step) if given else None
    return records.RunRecord(
        run_id=uuid.uuid4().hex,
        dataset=dataset,
        architecture=architecture,
        training=training,
        step=0,
        epochs_done=0,
        versions=versions(),
        source=source,
    )


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that shape a result, by name."""
    packages = ("tensorflow", "keras", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version()} | found
