"""What surrounds the training loop: the state of the run, saves, summaries, progress, signals.

The loop in train.py calls a `Run` at two points, as Keras calls its callbacks: after each call of
several steps, and after each epoch.
"""

import contextlib
import dataclasses
import platform
import signal
import time
import uuid
from collections.abc import Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import model
from support import records
from support.analysis import collapse, fitted_prior, metrics
from support.datasets.types import Dataset
from support.display import progress, summaries
from support.errors import Interrupted, NotFiniteError, UserError
from support.storage import weights, weights_file
from support.storage.run_folder import RunFolder
from support.storage.validation import Weights
from support.text import visible
from support.training.config import Config, dataset_record
from support.training.schedule import LearningRate
from support.training.selection import BestEpoch
from support.training.signals import Signals
from support.training.workers import Workers

# Epochs between two pictures of the same digits in TensorBoard; the last epoch has one, too.
PICTURE_EPOCHS = 5
# The terms of each step that the curves show.
TERM_NAMES = ("objective", *model.TERMS)


class Run:
    """A run in progress; a context manager.

    Args:
        config: the run's configuration.
        dataset: the data set that it is trained on.
        folder: its folders, already entered as a context.
        workers: the workers that share it.
        log_every: steps between two points of a training curve.
        save_every: seconds between two saves.

    Attributes:
        workers: the workers that share it.
        step: how many steps are done.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        folder: RunFolder,
        workers: Workers,
        log_every: int,
        save_every: float,
    ) -> None:
        workers.require_equal_shares(config.batch_size)
        self.workers, self.step = workers, 0
        self._config, self._dataset, self._folder = config, dataset, folder
        self._save_every = save_every
        self._record = folder.record or _new_record(config, dataset, folder.given)
        self._means = summaries.RunningMeans(TERM_NAMES, log_every)
        self._signals = Signals()
        self._resources = contextlib.ExitStack()
        self._progress: progress.Progress | None = None
        self._best: BestEpoch | None = None
        self._waits_to_replace = False
        self._warned = False
        self._saved_at = time.monotonic()

    def __enter__(self) -> "Run":
        self._resources.enter_context(self._signals)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.step // self._config.steps_per_epoch

    @property
    def ended_early(self) -> bool:
        """Whether the validation objective has not improved for `patience` epochs."""
        return self._best is not None and self._best.out_of_patience(self.epoch)

    def start_or_resume(
        self,
        vae: model.VAE,
        optimizer: keras.optimizers.Optimizer,
        learning_rate: LearningRate,
    ) -> None:
        """Makes the first save of a new run, then loads the newest save, new or old.

        Args:
            vae, optimizer: both built; they are filled from the save.
            learning_rate: the schedule, for the curve of the learning rate.

        Raises:
            UserError: the save is damaged, or not all workers see the same one.
        """
        self._learning_rate = learning_rate
        self._vae, self._optimizer = vae, optimizer
        if self._config.keep == "best":
            self._best = BestEpoch(vae.trainable_variables, self._config.patience)
        writer = summaries.Summaries(self._folder.log_dir if self.workers.chief else None)
        self._summaries = self._resources.enter_context(writer)
        if self._folder.record is None and self._folder.given and self.workers.chief:
            weights.fill(vae, self._folder.given)
        # With several workers, all of them must find the first save of this run, and no other.
        self._waits_to_replace = self._folder.holds_earlier_run and self.workers.strategy is None
        if not self._waits_to_replace:
            self._make_first_save()
            self._resume()

    def _make_first_save(self) -> None:
        """Saves step 0 of a new run, after removing what `--overwrite` replaces."""
        if self._folder.record is None and self.workers.chief:
            if self._folder.overwrite:
                self._folder.saves.remove_earlier_run()
                summaries.clear(self._folder.log_dir)
            self._save()
        self.workers.wait()

    def _resume(self) -> None:
        """Loads the newest save, and marks the log folder as this run's own."""
        self._require_same_save()
        self._load()
        log_dir = self._folder.log_dir
        if self.workers.chief:
            if self.step and not summaries.event_files(log_dir):
                print(
                    f"Notice: {visible(log_dir)} holds no event files of the first {self.step} "
                    "steps of this run: its curves begin at this step."
                )
            if self.step:
                done = self.step / self._config.steps_per_epoch
                epochs = self._config.epochs
                print(f"Continuing at step {self.step}, after {done:.4g} of {epochs} epochs.")
            summaries.claim(log_dir, self._record.run_id)

    def _replace_earlier_run(self) -> None:
        """Replaces the earlier run with the first save of this one, as `--overwrite` asks.

        Until there is something to replace them with, the earlier weights stay as they are. If the
        process is killed in here, the weights of one of the two runs remain.
        """
        self._waits_to_replace = False
        summaries.clear(self._folder.log_dir)
        summaries.claim(self._folder.log_dir, self._record.run_id)
        self._summaries.start(0, self._record)
        self._summaries.flush()
        self._save()
        self._folder.saves.remove_earlier_run(kept_step=self.step)

    def _require_same_save(self) -> None:
        """Raises a `UserError` if the workers do not all see the same newest save."""
        found = weights.read_record(self._folder.path)
        run_id, step = (found.run_id, found.step) if found else ("0", 0)
        self.workers.require_same(
            (int(run_id[:12], 16), step),
            f"the workers do not see the same run in {self._folder.path}: use a folder that all of "
            "them share, and give all of them the same flags",
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
        if self._best:
            self._best.restore(training)

    def _training_arrays(self) -> dict[str, NDArray]:
        """Returns what a save needs besides the weights so that the run can be continued."""
        store: dict[str, object] = {}
        self._optimizer.save_own_variables(store)
        optimizer = {f"optimizer_{name}": np.asarray(value) for name, value in store.items()}
        best = self._best.state() if self._best else {}
        return optimizer | self._means.state() | best

    def remaining(
        self, batches: NDArray[np.int32], steps_per_call: int
    ) -> Iterator[NDArray[np.int32]]:
        """Yields the batches of the current epoch that are not done yet, several at a time.

        Args:
            batches: all batches of the epoch, (steps_per_epoch, batch).
            steps_per_call: the largest number of batches that one call takes.
        """
        if self._progress is None:
            # Everything is compiled: the clocks of the progress bar and of TensorBoard start now.
            self._progress = self._resources.enter_context(self._new_progress())
            if not self._waits_to_replace:
                self._summaries.start(self.step, self._record)
        for first in range(self.step % self._config.steps_per_epoch, len(batches), steps_per_call):
            yield batches[first : first + steps_per_call]

    def _new_progress(self) -> progress.Progress:
        config = self._config
        return progress.Progress(
            config.epochs, config.steps_per_epoch, config.batch_size, self.step, self.workers.chief
        )

    def after_steps(self, terms: Mapping[str, NDArray[np.float64]]) -> None:
        """Checks and records several steps, and saves if a save is due or Ctrl-C was pressed.

        Args:
            terms: the mean of each term in each step, (steps,) by name.

        Raises:
            NotFiniteError: a loss is NaN or infinite.
            Interrupted: a signal has arrived, and the run is saved.
        """
        objective = terms["objective"]
        if not np.isfinite(objective).all():
            raise self._not_finite(self.step + int(np.argmin(np.isfinite(objective))) + 1)
        for step, means in self._means.add(self.step, terms):
            rate = float(self._learning_rate(step - 1))
            self._summaries.scalars("train", step, means | {"learning_rate": rate})
        self.step += len(objective)
        assert self._progress is not None  # `remaining` has created it
        self._progress.update(self.step, terms["loss_total"][-1])
        # At the end of an epoch, after_epoch saves, so that the validation is included.
        if self.step % self._config.steps_per_epoch:
            if self._waits_to_replace:
                self._leave(self._signals.received is not None)
            else:
                self._save_if_due()

    def after_epoch(self, validated: Mapping[str, float], encoded: fitted_prior.Encoded) -> None:
        """Records the validation of an epoch, and saves if a save is due.

        Args:
            validated: the points of the validation curves, by name.
            encoded: q(z | x) of the validation images, for histograms.

        Raises:
            Interrupted: a signal has arrived, and the run is saved.
        """
        self._summaries.scalars("val", self.step, validated)
        if self._best:
            self._best.update(self.epoch, validated["objective"])
        epoch_index = self.epoch - 1
        is_last = self.step == self._config.total_steps or self.ended_early
        if is_last or epoch_index % PICTURE_EPOCHS == 0:
            self._summaries.pictures(self.step, self._pictures())
            self._write_latent_space(encoded)
        assert self._progress is not None
        trained = self._means.end_epoch(self._config.steps_per_epoch)
        self._progress.end_epoch(trained, validated, self._distorted_share())
        self._warn_of_collapse(validated)
        self._save_if_due()

    def _write_latent_space(self, encoded: fitted_prior.Encoded) -> None:
        """Writes histograms of q(z | x) of the validation images, and the KL of each dimension."""
        self._summaries.histograms(self.step, {"mu": encoded.mu, "log_var": encoded.log_var})
        self._summaries.kld_by_rank(self.step, metrics.kld_by_dimension(encoded))

    def _distorted_share(self) -> float:
        """Returns the fraction of training images that were distorted in the epoch that ends."""
        if not self._config.elastic:
            return 0.0
        steps = np.arange(self.step - self._config.steps_per_epoch, self.step)
        return float(np.mean(self._learning_rate.share_of_peak(steps)))

    def _warn_of_collapse(self, validated: Mapping[str, float]) -> None:
        """Says once that no latent dimension is active, when that is no longer to be expected."""
        first_judged = max(
            collapse.STEPS_BEFORE_JUDGED, self._config.steps_in(self._config.kl_warmup_epochs)
        )
        if self._warned or self.epoch < 2 or self.step < first_judged:
            return
        if validated["active_units"] == 0 and self.workers.chief:
            self._warned = True
            print(collapse.warning(self._record_at(self.step)), flush=True)

    def _pictures(self) -> Mapping[str, NDArray[np.uint8]]:
        """Returns the pictures for TensorBoard, of the first validation images and of samples."""
        config = self._config
        images = config.evaluation_images(self._dataset.validation.images[: metrics.PICTURED])
        return metrics.pictures(self._vae, images, config.seed)

    def _save_if_due(self) -> None:
        stop = self.workers.any(self._signals.received is not None)
        seconds = time.monotonic() - self._saved_at
        ended = self.step == self._config.total_steps or self.ended_early
        if self._waits_to_replace:
            self._replace_earlier_run()
        elif stop or ended or seconds > self._save_every or self._signals.take_save_request():
            self._summaries.flush()
            self._save()
        self._leave(stop)

    def leave_if_interrupted(self) -> None:
        """Raises `Interrupted` if a signal has reached any worker; the last step is saved."""
        self._leave(self.workers.any(self._signals.received is not None))

    def _leave(self, stop: bool) -> None:
        if not stop:
            return
        signum = self._signals.received or signal.SIGTERM
        if self._waits_to_replace:
            raise Interrupted(
                f"interrupted before the end of the first epoch; {self._folder.path} still holds "
                "the earlier run: repeat the command to start again",
                signum,
            )
        again = "repeat the command"
        if self._folder.overwrite:
            again += " without --overwrite"
        raise Interrupted(
            f"interrupted; saved in {self._folder.path}: {again} to continue the run",
            signum,
        )

    def _save(self) -> None:
        # A loss belongs to the weights before its step, so the newest weights are checked here.
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
            self._record,
            step=step,
            epochs_done=step // self._config.steps_per_epoch,
            log_dir=self._folder.log_dir_from_weights,
        )

    def _not_finite(self, step: int) -> NotFiniteError:
        saved = weights_file.saved_steps(self._folder.path)
        if self._waits_to_replace:
            kept = "the earlier run is kept"
        elif saved:
            kept = f"the save of step {saved[-1]} is kept"
        else:
            kept = "there is no save"
        return NotFiniteError(
            f"the loss became NaN or infinite at step {step} ({kept} in {self._folder.path}): "
            "train again with a smaller --learning_rate and another --save_weight_dir and --log_dir"
        )

    def select_weights(self) -> bool:
        """Gives the model the weights that the run keeps: the last ones, or the best epoch's.

        Returns:
            Whether they are others than those of the last epoch.
        """
        best = self._best
        if best is None:
            return False
        best.select()
        if self.workers.chief:
            self._print_kept(best)
        return best.epoch != self.epoch

    def _print_kept(self, best: BestEpoch) -> None:
        if best.epoch == self.epoch:
            print(
                f"Kept the weights of the last epoch ({best.epoch}), which have the lowest "
                f"objective on the validation images: {best.objective:.2f}."
            )
        else:
            print(
                f"Kept the weights of epoch {best.epoch} of {self.epoch}, which have the lowest "
                f"objective on the validation images: {best.objective:.2f} "
                f"({best.last_objective:.2f} after the last epoch)."
            )

    def finish(
        self,
        posterior: records.Posterior,
        prior: fitted_prior.PriorArrays | None,
        prior_record: records.PriorRecord,
        result: Mapping[str, float],
    ) -> records.RunRecord:
        """Writes the finished weights, then removes the earlier saves of the run.

        Args:
            posterior: moments of q(z | x) over the training images.
            prior: the fitted prior; None: there is none.
            prior_record: the outcome of fitting it.
            result: the metrics of the model on the validation images, by name.

        Returns:
            The record of the finished run.

        Raises:
            NotFiniteError: readers would reject the posterior, since it is not finite or too large.
        """
        if not posterior.finite:
            raise self._not_finite(self.step)
        if self._progress is None:
            # No step was left to do: the event files of this part are not open yet.
            self._summaries.start(self.step, self._record)
        self._summaries.result(self.step, result)
        self._summaries.flush()
        record = dataclasses.replace(
            self._record,
            posterior=posterior,
            prior=prior_record,
            # Perhaps other ones than those that began the run.
            versions=versions(),
            kept_epoch=self._best.epoch if self._best else self.epoch,
            log_dir="",
        )
        if self._folder.writes:
            self._folder.saves.write_finished(self._vae, record, prior)
        self.workers.wait()
        return record


def _new_record(config: Config, dataset: Dataset, given: Weights | None) -> records.RunRecord:
    """Returns the record of a new run at step 0, from given weights or random ones."""
    source = records.Source(given.record.run_id, given.record.step) if given else None
    return records.RunRecord(
        run_id=uuid.uuid4().hex,
        dataset=dataset_record(dataset),
        architecture=config.architecture,
        training=config.settings(),
        step=0,
        epochs_done=0,
        versions=versions(),
        source=source,
    )


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that affect a result, by name."""
    packages = {"tensorflow": tf, "keras": keras, "numpy": np}
    found = {name: str(package.__version__) for name, package in packages.items()}
    return {"python": platform.python_version()} | found
