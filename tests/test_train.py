"""train.py: a run, its rest after an interruption, what it refuses, what it leaves on disk."""

import glob
import json
import os
import shutil
import signal

import numpy as np
import pytest
from conftest import SMALL, files_in, last_line, points, train, weights_of

import config_file
import data
import loop
import measure
import train as script
import weights

TAGS = set(loop.ROW)
TRAIN_ONLY, VAL_ONLY = {"learning_rate", "beta"}, {"active_units"}
STEPS = 240 // 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of three epochs at a constant rate."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, "--epoch", "3", "--schedule", "constant") == 0
    return folder


def same_run(one, other):
    """Weights, config and every point of every curve are equal to the bit."""
    for value, expected in zip(
        weights_of(one / "weights"), weights_of(other / "weights"), strict=True
    ):
        np.testing.assert_array_equal(value, expected)
    configs = [json.loads((run / "weights" / "config.json").read_text()) for run in (one, other)]
    for config in configs:
        del config["run_id"]
    assert configs[0] == configs[1]
    for part in ("train", "val"):
        assert points(one / "log" / part) == points(other / "log" / part)


def test_a_run_writes_curves_weights_and_config(whole):
    trained, validated = points(whole / "log" / "train"), points(whole / "log" / "val")
    assert set(trained) == TAGS | TRAIN_ONLY and set(validated) == TAGS | VAL_ONLY
    assert [step for step, _ in trained["loss_bce"]] == list(range(5, 3 * STEPS + 1, 5))
    assert [step for step, _ in validated["RMSE"]] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert trained["loss_total"][-1][1] < trained["loss_total"][0][1]
    for curves in (trained, validated):
        total, bce, kld = (np.array(curves[f"loss_{n}"])[:, 1] for n in ("total", "bce", "KLD"))
        np.testing.assert_allclose(total, bce + kld, rtol=1e-5)
    config = config_file.read(str(whole / "weights"))
    assert config["dataset"]["name"] == "digits" and config["epochs_done"] == 3
    assert len(config["posterior"]["mu_std"]) == 4
    assert "/" not in json.dumps(config)  # no paths
    names = {path.name for path in (whole / "weights").iterdir()}
    assert names == {"config.json", "vae.weights.h5", "checkpoint"}
    assert len(list((whole / "weights" / "checkpoint").iterdir())) == 3


def test_digits_form_before_ones_eyes(whole):
    """The same images and the same draws, at the first and the last epoch."""
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(whole / "log" / "val"))
    accumulator.Reload()
    assert set(accumulator.Tags()["images"]) == {"reconstructions", "prior_draws"}
    for tag, rows in (("reconstructions", 8), ("prior_draws", 4)):
        events = accumulator.Images(tag)
        assert [event.step for event in events] == [STEPS, 3 * STEPS]
        first, last = (
            tf.io.decode_png(event.encoded_image_string).numpy()[..., 0] for event in events
        )
        assert first.shape == (rows * 31, 310) and (first != last).any()
        if tag == "reconstructions":  # the originals stay
            np.testing.assert_array_equal(first[:28], last[:28])


def test_same_seed_same_bits_and_another_seed_others(whole, tmp_path):
    assert train(tmp_path, "--epoch", "3", "--schedule", "constant") == 0
    same_run(whole, tmp_path)
    assert train(tmp_path / "b", "--epoch", "3", "--schedule", "constant", "--seed", "1") == 0
    other, expected = weights_of(tmp_path / "b" / "weights"), weights_of(whole / "weights")
    assert any((a != b).any() for a, b in zip(other, expected, strict=True))


def test_a_larger_epoch_continues_to_the_same_bits(whole, tmp_path, capsys):
    assert train(tmp_path, "--epoch", "1", "--schedule", "constant") == 0
    assert config_file.read(str(tmp_path / "weights"))["posterior"]
    assert train(tmp_path, "--epoch", "3", "--schedule", "constant") == 0
    assert "Continuing" in capsys.readouterr().out
    same_run(whole, tmp_path)


@pytest.fixture
def windows_of(monkeypatch):
    """A function that makes windows `size` long and sends `signum` after `stop_at` steps in all."""
    build = loop.training_window
    seen = 0

    def patch(size, stop_at=10**9, signum=signal.SIGTERM):
        def built(*args, **kwargs):
            window = build(*args, **kwargs)

            def run(indices):
                nonlocal seen
                rows = window(indices)
                seen += len(rows)
                if seen >= stop_at:
                    os.kill(os.getpid(), signum)
                return rows

            run.size = size
            return run

        monkeypatch.setattr(loop, "training_window", built)

    return patch


@pytest.mark.parametrize("signum, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_anywhere_it_continues_to_the_same_bits(
    whole, tmp_path, windows_of, capsys, signum, code
):
    """A signal after 5 and after 17 steps, in windows of other lengths each time."""
    argv = ["--epoch", "3", "--schedule", "constant"]
    windows_of(5, 5, signum)
    assert train(tmp_path, *argv) == code
    printed = capsys.readouterr().err
    assert last_line(printed).startswith("train.py: error: interrupted; saved in")
    assert "same command continues" in printed
    windows_of(3, 17, signum)
    assert train(tmp_path, *argv) == code
    windows_of(4)
    assert train(tmp_path, *argv) == 0
    same_run(whole, tmp_path)


@pytest.mark.parametrize(
    "objective",
    [
        ["--binarize", "dynamic", "--importance_samples", "2"],
        ["--recon_loss", "gaussian", "--elbo_samples", "2"],
    ],
)
def test_every_objective_continues_to_the_same_bits(tmp_path, windows_of, objective):
    argv = ["--epoch", "2", *objective]
    assert train(tmp_path / "whole", *argv) == 0
    windows_of(7, 7)
    assert train(tmp_path / "parts", *argv) == 143
    windows_of(5)
    assert train(tmp_path / "parts", *argv) == 0
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_points_written_past_the_last_checkpoint_appear_once(whole, tmp_path, monkeypatch):
    """As after SIGKILL: the newest checkpoints are gone, their points are in the event files."""
    argv = ["--epoch", "3", "--schedule", "constant"]
    assert train(tmp_path, *argv) == 0
    checkpoints = sorted((tmp_path / "weights" / "checkpoint").iterdir())
    for folder in checkpoints[1:]:
        shutil.rmtree(folder)
    path = tmp_path / "weights" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"epochs_done": 2}))
    assert train(tmp_path, *argv) == 0
    same_run(whole, tmp_path)


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(whole, tmp_path, capsys):
    argv = ["--epoch", "3", "--schedule", "constant"]
    assert train(tmp_path, "--epoch", "2", "--schedule", "constant") == 0
    newest = sorted((tmp_path / "weights" / "checkpoint").iterdir())[-1]
    data = newest / "state.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    capsys.readouterr()
    assert train(tmp_path, *argv) == 0
    captured = capsys.readouterr()
    assert "is damaged: taking the one before it" in captured.err
    assert "after 1 epochs" in captured.out
    same_run(whole, tmp_path)


def test_finished_says_so_and_changes_nothing(trained, capsys):
    before = files_in(trained.parent)
    assert train(trained.parent, "--epoch", "2") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert files_in(trained.parent) == before


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--epoch", "2", "--latent_dim", "5"], "its --latent_dim is 4, not 5"),
        (["--epoch", "2", "--seed", "9"], "its --seed is 0, not 9"),
        (["--epoch", "2", "--limit", "100"], "its --limit is 240, not 100"),
        (["--epoch", "4"], "--load_weight_dir"),
        (["--epoch", "1"], "would change from its start"),
    ],
)
def test_another_configuration_is_refused(trained, capsys, argv, says):
    before = files_in(trained.parent)
    assert train(trained.parent, *argv) == 2
    line = last_line(capsys.readouterr().err)
    assert line.startswith("train.py: error: --save_weight_dir") and says in line
    assert "--overwrite" in line
    assert files_in(trained.parent) == before


def test_overwrite_removes_only_our_files(copy, trained, capsys):
    shutil.copytree(trained.parent / "log", copy.parent / "log")
    (copy / "notes.txt").write_text("mine")
    (copy.parent / "log" / "train" / "mine.txt").write_text("mine")
    folders = ["--save_weight_dir", str(copy), "--log_dir", str(copy.parent / "log")]
    argv = [*SMALL, *folders, "--epoch", "1", "--seed", "3"]
    assert script.main(argv) == 2
    assert script.main([*argv, "--overwrite"]) == 0
    assert (copy / "notes.txt").read_text() == "mine"
    assert (copy.parent / "log" / "train" / "mine.txt").read_text() == "mine"
    assert config_file.read(str(copy))["training"]["seed"] == 3
    curve = points(copy.parent / "log" / "val")["loss_total"]
    assert [step for step, _ in curve] == [STEPS]


def test_a_log_folder_belongs_to_one_run(trained, tmp_path, capsys):
    before = files_in(trained.parent / "log")
    folders = ["--save_weight_dir", str(tmp_path / "w"), "--log_dir", str(trained.parent / "log")]
    assert script.main([*SMALL, *folders, "--epoch", "1"]) == 2
    assert "--log_dir" in last_line(capsys.readouterr().err)
    assert files_in(trained.parent / "log") == before


def test_warm_start(trained, tmp_path, capsys):
    """Given weights, a new run: with a rate of nearly nothing it ends where it began."""
    bare = ["--dataset", "digits", "--limit", "240", "--batch", "20", "--epoch", "1"]
    bare += ["--save_weight_dir", str(tmp_path / "w"), "--log_dir", str(tmp_path / "l")]
    bare += ["--load_weight_dir", str(trained), "--learning_rate", "1e-12"]
    assert script.main([*bare, "--latent_dim", "5"]) == 2
    assert "--latent_dim 5 differs from the 4" in last_line(capsys.readouterr().err)
    assert script.main(bare) == 0
    for value, expected in zip(weights_of(tmp_path / "w"), weights_of(trained), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-9)
    config = config_file.read(str(tmp_path / "w"))
    source = config_file.read(str(trained))
    assert config["training"]["warm_start_sha256"] == source["weights_sha256"]
    assert config["run_id"] != source["run_id"]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, capsys):
    argv = ["--epoch", "3", "--learning_rate", "1e18", "--schedule", "constant"]
    assert train(tmp_path, *argv, "--warmup_epochs", "0") == 3
    line = last_line(capsys.readouterr().err)
    assert "no longer finite at step" in line and "learning rate 1e+18" in line
    assert not glob.glob(str(tmp_path / "weights" / "*.h5"))


def test_weights_that_blow_up_in_the_last_step_are_never_written(tmp_path, monkeypatch, capsys):
    """The loss of that step is still finite: it is of the weights before."""
    build = loop.training_window

    def built(vae, *args, **kwargs):
        window = build(vae, *args, **kwargs)

        def run(indices):
            rows = window(indices)
            if len(rows):
                vae.weights[0].assign(vae.weights[0] * np.inf)
            return rows

        run.size = window.size
        return run

    monkeypatch.setattr(loop, "training_window", built)
    assert train(tmp_path, "--epoch", "1") == 3
    assert "no longer finite at step 12" in last_line(capsys.readouterr().err)
    assert not glob.glob(str(tmp_path / "weights" / "*.h5"))


def test_a_second_run_on_the_same_folder_is_refused(copy, capsys):
    folder = weights.TrainingFolder(str(copy))
    before = files_in(copy)
    try:
        argv = ["--save_weight_dir", str(copy), "--log_dir", str(copy.parent / "log")]
        assert script.main([*SMALL, *argv, "--epoch", "2"]) == 2
        assert "in use by another run" in last_line(capsys.readouterr().err)
        assert files_in(copy) == before
    finally:
        folder.close()
    assert not (copy / weights.LOCK_FILE).exists()


@pytest.mark.parametrize("recon_loss, beta", [("l2", 1.0), ("bce", 0.5)])
def test_the_objective_is_what_the_flags_say(tmp_path, recon_loss, beta):
    assert train(tmp_path, "--epoch", "1", "--recon_loss", recon_loss, "--beta", str(beta)) == 0
    for part in ("train", "val"):
        curves = {tag: np.array(c)[:, 1] for tag, c in points(tmp_path / "log" / part).items()}
        expected = curves[f"loss_{recon_loss}"] + beta * curves["loss_KLD"]
        np.testing.assert_allclose(curves["objective"], expected, rtol=1e-5)


def test_the_gaussian_objective_is_the_likelihood_at_its_best_variance(tmp_path):
    """On validation: recomputed from the folder's weights by another formula."""
    assert train(tmp_path, "--epoch", "1", "--recon_loss", "gaussian") == 0
    images = data.load("digits").validation.images
    config, vae = weights.load_vae(str(tmp_path / "weights"))
    evaluated = measure.evaluation(vae, 0)(images)
    variance = np.mean(evaluated["loss_l2"].astype(float) ** 2) / 784
    expected = 784 / 2 * (np.log(2 * np.pi * variance) + 1) + evaluated["loss_KLD"].mean()
    objective = points(tmp_path / "log" / "val")["objective"][0][1]
    assert objective == pytest.approx(expected, rel=1e-4)
    assert config["variance"] == pytest.approx(variance, rel=0.1)  # that of the training images


def test_the_importance_weighted_objective_is_a_tighter_bound(tmp_path):
    assert train(tmp_path, "--epoch", "2", "--importance_samples", "5") == 0
    for part in ("train", "val"):
        curves = points(tmp_path / "log" / part)
        assert curves["objective"][-1][1] < curves["loss_total"][-1][1] - 0.01


def test_importance_samples_of_another_objective_are_refused(tmp_path, capsys):
    for flag, value in (("--recon_loss", "l2"), ("--beta", "0.5"), ("--elbo_samples", "3")):
        assert train(tmp_path, "--importance_samples", "2", flag, value) == 2
        assert "--importance_samples 2 is a bound" in last_line(capsys.readouterr().err)
    assert not (tmp_path / "weights").exists()


def test_more_images_a_batch_than_there_are(tmp_path, capsys):
    assert train(tmp_path, "--batch", "500") == 2
    assert "--batch 500 is more than the 240 training images" in capsys.readouterr().err
    assert not (tmp_path / "weights").exists()
