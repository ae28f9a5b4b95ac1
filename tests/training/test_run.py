"""support/training/run.py: saves, summaries and signals around a simulated training loop."""

import contextlib
import dataclasses
import os
import platform
import shutil
import signal
import time

import keras
import numpy as np
import pytest

import data
import model
from support import records
from support.analysis import collapse, fitted_prior
from support.errors import Interrupted, NotFiniteError, UserError
from support.storage import weights, weights_file
from support.storage.run_folder import RunFolder
from support.training import optimizer as optimizers
from support.training import run as run_module
from support.training.config import Config
from support.training.schedule import LearningRate
from support.training.workers import Workers
from tests.helpers import files_in, points
from tests.training.test_config import CONFIG as SETTINGS

DATASET = data.load("digits", limit=245)
CONFIG: Config = dataclasses.replace(SETTINGS, epochs=2)  # of 12 steps each
NAMES = run_module.TERM_NAMES
ENCODED = fitted_prior.Encoded(*np.ones((2, 5, 2), np.float32))


@pytest.fixture
def folder(tmp_path):
    return tmp_path


class Play:
    """A run whose steps change nothing but the step count."""

    def __init__(self, run, config):
        keras.utils.set_random_seed(config.seed)
        self.run, self.config = run, config
        self.vae = model.VAE(*config.architecture)
        rate = LearningRate(0.004, "linear", 3, config.total_steps)
        self.optimizer = optimizers.build("adamw", self.vae.trainable_variables, rate)
        run.start_or_resume(self.vae, self.optimizer, rate)

    def steps(self, count, value=1.0):
        """Reports some steps of the current epoch."""
        batches = np.zeros((self.config.steps_per_epoch, 20), np.int32)
        block = next(self.run.remaining(batches, count))
        assert len(block) == count
        self.optimizer.iterations.assign_add(count)
        self.run.after_steps({name: np.full(count, value) for name in NAMES})

    def epoch(self, objective=5.0, value=1.0, active_units=2):
        """Reports the rest of the current epoch, and its validation."""
        self.steps(12 - self.run.step % 12, value)
        validated = {"objective": objective, "loss_total": 7.0, "active_units": active_units}
        self.run.after_epoch(validated, ENCODED)


@contextlib.contextmanager
def played(folder, config=CONFIG, overwrite=False, save_every=1e6, given=None, workers=None):
    identity = config.identity(DATASET, given=())
    place = RunFolder(str(folder / "w"), str(folder / "log"), identity, overwrite)
    if given:
        place.start_from(str(given))
    with (
        place,
        run_module.Run(config, DATASET, place, workers or Workers(), 5, save_every) as run,
    ):
        yield Play(run, config)


def saved(folder):
    return weights_file.saved_steps(str(folder / "w"))


def finish(run):
    moments = records.Posterior((0.0, 0.0), (1.0, 1.0), (0.5, 0.5))
    run.finish(moments, None, records.PriorRecord(None, "too few images"), {"loss_total": 6.5})


def test_a_new_run_is_saved_at_once(folder):
    with played(folder) as play:
        assert saved(folder) == [0] and play.run.step == 0 and play.run.epoch == 0
        record = weights.read_record(str(folder / "w"))
    assert record.step == 0 and record.dataset.name == "digits" and record.source is None
    assert record.architecture == CONFIG.architecture
    assert record.training == CONFIG.settings()
    assert len(record.run_id) == 32
    assert record.versions["python"] == platform.python_version()
    assert record.versions["keras"] == keras.__version__
    assert set(record.versions) == {"python", "tensorflow", "keras", "numpy"}


def test_the_steps_of_an_epoch_come_in_blocks_and_from_where_the_run_stands(folder):
    batches = np.arange(24).reshape(12, 2)
    with played(folder) as play:
        blocks = list(play.run.remaining(batches, 5))
        assert [len(block) for block in blocks] == [5, 5, 2]
        np.testing.assert_array_equal(np.concatenate(blocks), batches)
        play.steps(7)
        np.testing.assert_array_equal(next(play.run.remaining(batches, 5)), batches[7:12])


@pytest.mark.parametrize("seconds, expected", [(0.0, [4, 9]), (100.0, [0, 9])])
def test_a_save_is_made_when_so_many_seconds_have_passed(folder, monkeypatch, seconds, expected):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with played(folder, save_every=seconds) as play:
        for count in (4, 5):
            now[0] += 60
            play.steps(count)
        assert saved(folder) == expected


def test_the_last_step_is_saved_and_nothing_in_between_unless_it_is_due(folder):
    with played(folder) as play:
        play.epoch()
        assert saved(folder) == [0]
        play.steps(11)
        assert saved(folder) == [0]
        play.steps(1)
        assert saved(folder) == [0]  # before the validation
        play.run.after_epoch({"objective": 5.0, "loss_total": 7.0}, ENCODED)
        assert saved(folder) == [0, 24]
        finish(play.run)
    record = weights.read_record(str(folder / "w"))
    assert record.finished and record.step == 24 and record.epochs_done == 2
    assert record.kept_epoch == 2 and record.prior.reason == "too few images"
    assert saved(folder) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_the_run(folder, signum):
    with played(folder) as play, pytest.raises(Interrupted) as stop:
        play.steps(4)
        os.kill(os.getpid(), signum)
        play.steps(3)
    assert stop.value.code == 128 + signum
    assert str(stop.value) == (
        f"interrupted; saved in {folder / 'w'}: repeat the command to continue the run"
    )
    assert saved(folder) == [0, 7]
    assert points(folder / "log" / "train")["loss_bce"] == [(5, 1.0)]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_sigusr1_saves_and_the_run_goes_on(folder):
    with played(folder) as play:
        play.steps(4)
        os.kill(os.getpid(), signal.SIGUSR1)
        play.steps(3)
        assert saved(folder) == [0, 7]
        play.steps(2)
        assert saved(folder) == [0, 7]


def test_finished_weights_name_the_versions_that_ended_the_run(folder, monkeypatch):
    with played(folder) as play:
        play.epoch()
        play.epoch()
        monkeypatch.setattr(run_module, "versions", lambda: {"python": "3.99"})
        finish(play.run)
    assert weights.read_record(str(folder / "w")).versions == {"python": "3.99"}


def test_a_signal_at_the_end_of_an_epoch_waits_for_its_validation(folder):
    with played(folder) as play, pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        play.epoch()
    assert points(folder / "log" / "val")["loss_total"] == [(12, 7.0)]
    assert saved(folder) == [0, 12]


def test_a_run_continues_with_its_weights_its_optimizer_and_its_means(folder, capsys):
    with played(folder) as play, pytest.raises(Interrupted):
        play.steps(3, value=1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        for variable in play.vae.trainable_variables:
            variable.assign(variable + 1.0)
        play.optimizer.variables[2].assign(play.optimizer.variables[2] + 0.5)
        play.steps(4, value=11.0)
    capsys.readouterr()
    with played(folder) as later:
        assert later.run.step == 7
        for variable, other in zip(
            [*later.vae.trainable_variables, *later.optimizer.variables],
            [*play.vae.trainable_variables, *play.optimizer.variables],
            strict=True,
        ):
            np.testing.assert_array_equal(variable.numpy(), other.numpy())
        assert "Continuing at step 7, after 0.5833 of 2 epochs." in capsys.readouterr().out
        later.epoch(value=21.0)
        # The mean of the first epoch: 3 times 1, 4 times 11, 5 times 21.
        said = capsys.readouterr().out
        assert "loss_total 12.67 train (" in said and "), 7.00 validation" in said
    curve = points(folder / "log" / "train")["loss_bce"]
    assert curve == [(5, pytest.approx((3 + 22) / 5)), (10, pytest.approx((22 + 63) / 5))]


def test_a_curve_of_the_learning_rate_shows_that_of_the_step_itself(folder):
    with played(folder) as play:
        play.epoch()
    rate = LearningRate(0.004, "linear", 3, 24)
    expected = [(5, float(rate(4))), (10, float(rate(9)))]
    found = points(folder / "log" / "train")["learning_rate"]
    assert found == [(step, pytest.approx(value)) for step, value in expected]


def test_a_log_folder_that_was_emptied_is_said(folder, capsys):
    with played(folder) as play, pytest.raises(Interrupted):
        play.steps(3)
        os.kill(os.getpid(), signal.SIGTERM)
        play.steps(4)
    for path in files_in(folder / "log"):
        path.unlink()
    with played(folder):
        assert "holds no event files of the first 7 steps" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_names_its_step_and_the_save_before(folder):
    with played(folder) as play:
        play.steps(3)
        terms = {name: np.ones(4) for name in NAMES}
        terms["objective"][2] = np.nan
        with pytest.raises(
            NotFiniteError, match=r"at step 6 \(the save of step 0 is kept in .*smaller"
        ):
            play.run.after_steps(terms)
    assert saved(folder) == [0]


def test_weights_that_are_not_finite_are_never_written(folder):
    """The loss of that step is still finite, as it is computed with the weights before it."""
    with played(folder, save_every=0) as play:
        play.vae.trainable_variables[-1].assign(play.vae.trainable_variables[-1] + np.inf)
        with pytest.raises(NotFiniteError, match="became NaN or infinite at step 4"):
            play.steps(4)
    assert saved(folder) == [0]


def test_a_posterior_that_no_reader_would_accept_is_never_finished(folder):
    with played(folder) as play:
        play.epoch()
        play.epoch()
        moments = records.Posterior((0.0, 0.0), (1.0, 1.0), (0.5, float("inf")))
        with pytest.raises(NotFiniteError, match=r"at step 24 \(the save of step 24 is kept in"):
            play.run.finish(moments, None, records.PriorRecord(None, "x"), {})
    assert saved(folder) == [0, 24] and not (folder / "w" / "vae.keras").exists()


def test_an_optimizer_of_another_step_than_the_record_is_refused(folder):
    with played(folder, save_every=0) as play:
        play.optimizer.iterations.assign(5)
        play.steps(4)
    with pytest.raises(UserError, match="disagree on the number of steps"), played(folder):
        pytest.fail("resumed")


def test_a_new_run_starts_from_given_weights(folder):
    given = folder / "given"
    with played(given) as play:
        finish(play.run)
        run_id = weights.read_record(str(given / "w")).run_id
    config = dataclasses.replace(CONFIG, warm_start=True, seed=4)
    with played(folder, config, given=given / "w") as later:
        for variable, other in zip(
            later.vae.trainable_variables, play.vae.trainable_variables, strict=True
        ):
            np.testing.assert_array_equal(variable.numpy(), other.numpy())
    record = weights.read_record(str(folder / "w"))
    assert record.source == records.Source(run_id, 0) and record.run_id != run_id


def test_the_best_epoch_is_kept_over_an_interruption(folder, capsys):
    config = dataclasses.replace(CONFIG, epochs=4, keep="best")

    def epoch(play, number, objective):
        for variable in play.vae.trainable_variables:
            variable.assign(np.full(variable.shape, number, np.float32))
        play.epoch(objective)

    with played(folder, config) as play, pytest.raises(Interrupted):
        epoch(play, 1, 5.0)
        epoch(play, 2, 3.0)
        os.kill(os.getpid(), signal.SIGTERM)
        epoch(play, 3, 4.0)
    with played(folder, config) as later:
        assert not later.run.ended_early
        epoch(later, 4, 3.5)
        later.run.select_weights()
        finish(later.run)
    said = capsys.readouterr().out
    assert "Kept the weights of epoch 2 of 4, which have the lowest objective" in said
    assert ": 3.00 (3.50 after the last epoch)" in said
    vae, record = weights.load(str(folder / "w"))
    assert record.kept_epoch == 2 and record.step == 48
    assert all((variable.numpy() == 2).all() for variable in vae.trainable_variables)


def test_without_it_the_last_epoch_is_kept(folder):
    with played(folder) as play:
        play.epoch(3.0)
        play.vae.trainable_variables[0].assign_add(np.ones((784, 6), np.float32))
        expected = play.vae.trainable_variables[0].numpy()
        play.epoch(4.0)
        play.run.select_weights()
        assert not play.run.ended_early
        np.testing.assert_array_equal(play.vae.trainable_variables[0].numpy(), expected)


@pytest.mark.parametrize(
    "kl_warmup_epochs, active, expected",
    [(0.5, [0] * 9, 3), (4.5, [0] * 9, 5), (0.5, [0, 0, 1, 1, 1, 0, 0], 6), (0.5, [1] * 5, None)],
)
def test_a_collapse_is_said_once_when_it_is_no_longer_a_beginning(
    folder, monkeypatch, capsys, kl_warmup_epochs, active, expected
):
    """From the second epoch, 30 steps and the end of the KL warm-up on."""
    monkeypatch.setattr(collapse, "STEPS_BEFORE_JUDGED", 30)
    config = dataclasses.replace(CONFIG, epochs=9, kl_warmup_epochs=kl_warmup_epochs)
    said = []
    with played(folder, config) as play:
        for epoch, count in enumerate(active, 1):
            play.epoch(active_units=count)
            if "WARNING: the posterior has collapsed" in capsys.readouterr().out:
                said.append(epoch)
    assert said == ([expected] if expected else [])


def test_patience_ends_a_run_early_and_saves_its_last_step(folder, capsys):
    config = dataclasses.replace(CONFIG, epochs=9, keep="best", patience=2)
    with played(folder, config) as play:
        for objective in (5.0, 4.0, 6.0):
            play.epoch(objective)
        assert not play.run.ended_early and saved(folder) == [0]
        play.epoch(4.5)
        assert play.run.ended_early and saved(folder) == [0, 48]
    with played(folder, config) as later:
        assert later.run.ended_early  # known at once, as after a kill


def test_a_finished_run_leaves_its_result_for_the_table_of_runs(folder):
    """Also if it was killed before its weights were written, and only finishes."""
    with played(folder) as play:
        play.epoch()
        play.epoch()
    with played(folder) as later:
        finish(later.run)
    found = points(folder / "log" / "val")
    assert found["loss_total"] == [(12, 7.0), (24, 7.0)]
    assert found["result/loss_total"] == [(25, 6.5)]
    assert weights.read_record(str(folder / "w")).log_dir == ""


def test_the_line_of_an_epoch_says_how_many_images_were_distorted(folder, capsys):
    """The mean of the learning rate over an epoch, as a fraction of its peak."""
    config = dataclasses.replace(CONFIG, elastic=0.8)
    rate = LearningRate(0.004, "linear", 3, 24)
    with played(folder, config) as play:
        play.epoch()
        play.epoch()
    shares = [float(rate(step)) / 0.004 for step in range(24)]
    said = capsys.readouterr().out
    for epoch in (1, 2):
        mean = np.mean(shares[12 * (epoch - 1) : 12 * epoch])
        line = next(line for line in said.splitlines() if f"Epoch {epoch}/2" in line)
        shown = int(line.partition("train (")[2].partition(" %")[0])
        assert abs(shown - 100 * mean) <= 0.5
    with played(folder / "plain", dataclasses.replace(CONFIG, elastic=0.0)) as play:
        play.epoch()
    assert "distorted" not in capsys.readouterr().out


@pytest.mark.parametrize("log", ["log", "moved", "other", "copied"])
def test_a_run_continues_its_curves_in_their_folder_and_in_no_other(folder, log, capsys):
    with played(folder) as play, pytest.raises(Interrupted):
        play.steps(7)
        os.kill(os.getpid(), signal.SIGTERM)
        play.steps(4)
    assert weights.read_record(str(folder / "w")).log_dir == os.path.join("..", "log")
    if log == "moved":
        (folder / "log").rename(folder / log)
    if log == "copied":
        shutil.copytree(folder / "log", folder / log)
    before = files_in(folder)
    identity = CONFIG.identity(DATASET, given=())
    if log == "other":
        says = f"^the curves of the run in {folder / 'w'} are in {folder / 'log'}, and cannot be "
        says += f"continued in {folder / log}: use --log_dir {folder / 'log'}$"
        with pytest.raises(UserError, match=says):
            RunFolder(str(folder / "w"), str(folder / log), identity)
        assert files_in(folder) == before
        # A new run may use any folder.
        RunFolder(str(folder / "w"), str(folder / log), identity, overwrite=True)
        shutil.rmtree(folder / "log")
    place = RunFolder(str(folder / "w"), str(folder / log), identity)
    with place, run_module.Run(CONFIG, DATASET, place, Workers(), 5, 0.0) as run:
        later = Play(run, CONFIG)
        later.epoch()
    assert ("holds no event files of the first 11" in capsys.readouterr().out) == (log == "other")
    steps = [step for step, _ in points(folder / log / "train").get("loss_bce", [])]
    assert steps == ([] if log == "other" else [5, 10])
    assert weights.read_record(str(folder / "w")).log_dir == os.path.join("..", log)


def test_pictures_come_with_the_first_epoch_every_fifth_and_the_last(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = dataclasses.replace(CONFIG, epochs=8)
    with played(folder, config) as play:
        for _ in range(8):
            play.epoch()
    everything = {"images": 0, "histograms": 0}
    accumulator = EventAccumulator(str(folder / "log" / "val"), size_guidance=everything)
    accumulator.Reload()
    for name in ("reconstructions", "prior_samples"):
        steps = [event.step for event in accumulator.Images(f"others/{name}")]
        assert steps == [12 * epoch for epoch in (1, 6, 8)]
    for name in ("mu", "log_var", "KLD_by_rank"):
        steps = [event.step for event in accumulator.Histograms(f"others/{name}")]
        assert steps == [12 * epoch for epoch in (1, 6, 8)]


def test_the_last_epoch_of_a_run_that_ends_early_has_a_picture(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = dataclasses.replace(CONFIG, epochs=8, keep="best", patience=1)
    with played(folder, config) as play:
        for objective in (9.0, 8.0, 8.5):
            play.epoch(objective)
        assert play.run.ended_early
    accumulator = EventAccumulator(str(folder / "log" / "val"), size_guidance={"images": 0})
    accumulator.Reload()
    assert [event.step for event in accumulator.Images("others/reconstructions")] == [12, 36]


@pytest.fixture
def earlier(folder):
    """A finished run in the folders."""
    with played(folder) as play:
        play.epoch()
        play.epoch()
        finish(play.run)
    return weights.read_record(str(folder / "w")).run_id


def test_overwrite_keeps_the_earlier_run_until_the_first_epoch_is_done(folder, earlier):
    before = files_in(folder)
    config = dataclasses.replace(CONFIG, seed=9)
    with played(folder, config, overwrite=True, save_every=0) as play:
        play.steps(11)
        assert files_in(folder) == before
        play.epoch()
        assert saved(folder) == [12] and not (folder / "w" / "vae.keras").exists()
        play.steps(3)
        assert saved(folder) == [12, 15]
    assert weights.read_record(str(folder / "w")).run_id != earlier
    steps = [step for step, _ in points(folder / "log" / "train")["loss_bce"]]
    assert steps == [5, 10, 15]
    assert points(folder / "log" / "val")["loss_total"] == [(12, 7.0)]


@pytest.mark.parametrize("how", ["signal", "not finite"])
def test_overwrite_that_ends_before_its_first_epoch_changes_nothing(folder, earlier, how):
    before = files_in(folder)
    config = dataclasses.replace(CONFIG, seed=9)
    error, says = (Interrupted, "still holds the earlier run: repeat the command to start")
    if how == "not finite":
        error, says = NotFiniteError, "the earlier run is kept in"
    with (
        played(folder, config, overwrite=True, save_every=0) as play,
        pytest.raises(error, match=says),
    ):
        play.steps(3)
        if how == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        play.steps(4, value=1.0 if how == "signal" else np.nan)
    assert files_in(folder) == before


def test_an_overwriting_run_that_is_interrupted_later_continues_without_the_flag(folder, earlier):
    with played(folder, overwrite=True) as play, pytest.raises(Interrupted) as stop:
        play.epoch()
        os.kill(os.getpid(), signal.SIGTERM)
        play.steps(4)
    assert "repeat the command without --overwrite to continue the run" in str(stop.value)
    assert saved(folder) == [12, 16]


def test_a_signal_between_saves_ends_the_run_where_it_is_asked_for(folder):
    with played(folder) as play:
        play.run.leave_if_interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            play.run.leave_if_interrupted()


def test_a_worker_that_is_not_the_chief_resumes_and_writes_nothing(folder, capsys):
    with played(folder, save_every=0) as play:
        play.steps(7)
    before = files_in(folder)
    capsys.readouterr()
    identity = CONFIG.identity(DATASET, given=())
    place = RunFolder(str(folder / "w"), str(folder / "log"), identity, writes=False)
    workers, numbers = Workers(index=1), []
    workers.require_same = lambda own, message: numbers.append(own)
    with place, run_module.Run(CONFIG, DATASET, place, workers, 5, 0.0) as run:
        play = Play(run, CONFIG)
        assert run.step == 7
        play.epoch()
        play.epoch()
        run.select_weights()
        finish(run)
    assert files_in(folder) == before and capsys.readouterr().out == ""
    # All workers must see the same run and the same newest step.
    run_id = weights.read_record(str(folder / "w")).run_id
    assert numbers == [(int(run_id[:12], 16), 7)]


def test_a_batch_that_workers_cannot_share_is_refused_before_anything_is_made(folder):
    workers = Workers()
    workers.replicas = 3
    with (
        pytest.raises(
            UserError, match="--batch 20 is not a multiple of the number of devices, 3: choose"
        ),
        played(folder, workers=workers),
    ):
        pytest.fail("began")
    assert saved(folder) == []
