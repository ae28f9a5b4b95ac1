"""train.py: a run, its rest after an interruption, what it refuses, what it leaves on disk."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

import model
import train as script
from support import cli, curves, evaluation, prior, weights, window
from tests.helpers import (
    SMALL,
    STEPS,
    arrays_of,
    files_in,
    folders,
    last_line,
    points,
    same_run,
    stop_after,
    train,
)

TAGS = {"objective", *model.TERMS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of three epochs."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, "--epoch", "3") == 0
    return folder


def test_a_run_writes_curves_and_one_file(whole):
    trained, validated = points(whole / "log" / "train"), points(whole / "log" / "val")
    assert set(trained) == TAGS | {"learning_rate"} and set(validated) == TAGS | {"active_units"}
    assert [step for step, _ in trained["loss_bce"]] == list(range(5, 3 * STEPS + 1, 5))
    assert [step for step, _ in validated["RMSE"]] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert trained["loss_total"][-1][1] < trained["loss_total"][0][1]
    for part in (trained, validated):
        total, bce, kld = (np.array(part[f"loss_{n}"])[:, 1] for n in ("total", "bce", "KLD"))
        np.testing.assert_allclose(total, bce + kld, rtol=1e-5)
    names = {path.name for path in (whole / "weights").iterdir()}
    assert names == {"vae.keras", ".weights.lock"}
    run = weights.read_run(str(whole / "weights"))
    assert run["dataset"]["name"] == "digits" and run["epochs_done"] == 3
    assert run["step"] == 3 * STEPS and len(run["posterior"]["mu_std"]) == 4
    assert "/" not in json.dumps(run)  # no paths


def test_digits_form_before_ones_eyes(whole):
    """The same images and the same draws, at the first and the last epoch."""
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(whole / "log" / "val"))
    accumulator.Reload()
    names = {"reconstructions": 8, "prior_draws": 4}
    assert set(accumulator.Tags()["images"]) == {curves.tag(name) for name in names}
    for name, rows in names.items():
        events = accumulator.Images(curves.tag(name))
        assert [event.step for event in events] == [STEPS, 3 * STEPS]
        first, last = (
            tf.io.decode_png(event.encoded_image_string).numpy()[..., 0] for event in events
        )
        assert first.shape == (rows * 31, 310) and (first != last).any()
        if name == "reconstructions":  # the originals stay
            np.testing.assert_array_equal(first[:28], last[:28])


def test_a_flag_of_the_parser_is_recorded_compared_and_shown(tmp_path, monkeypatch, capsys):
    """One statement of each fact: a new flag needs no second place."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    build = script.add_training_flags

    def with_another(parser):
        build(parser)
        parser.add_argument("--surprise", type=cli.integer(1, 9), default=3, help="of the test")

    monkeypatch.setattr(script, "add_training_flags", with_another)
    assert train(tmp_path, "--epoch", "1", "--surprise", "7") == 0
    assert weights.read_run(str(tmp_path / "weights"))["training"]["surprise"] == 7
    assert train(tmp_path, "--epoch", "1", "--surprise", "8") == 2
    assert "surprise 7 where this one has 8" in last_line(capsys.readouterr().err)
    assert train(tmp_path, "--epoch", "1", "--surprise", "10") == 2
    assert "from 1 to 9" in last_line(capsys.readouterr().err)
    accumulator = EventAccumulator(str(tmp_path / "log" / "train"))
    accumulator.Reload()
    (text,) = accumulator.Tensors("configuration")
    assert "| surprise | 7 |" in text.tensor_proto.string_val[0].decode()


@pytest.mark.parametrize(
    "signum, code",
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_interrupted_anywhere_it_continues_to_the_same_bits(
    whole, tmp_path, monkeypatch, capsys, signum, code
):
    """A signal after 5, then after 17 steps, in windows of other lengths each time."""
    for size, stop in ((5, 5), (3, 17)):
        with monkeypatch.context() as patch:
            patch.setattr(window, "size", lambda *_, size=size: size)
            patch.setattr(window, "compiled", stop_after(stop, signum))
            assert train(tmp_path, "--epoch", "3") == code
        line = last_line(capsys.readouterr().err)
        assert line.startswith("train.py: interrupted; saved in")
        assert "same command continues" in line
    assert train(tmp_path, "--epoch", "3") == 0
    assert "Continuing" in capsys.readouterr().out
    same_run(whole, tmp_path)


def test_points_and_saves_past_the_newest_good_save_are_replaced(whole, tmp_path, capsys):
    """As after SIGKILL, and with the newest save damaged: it gives way to the one before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "compiled", stop_after(30))
        patch.setattr(window, "size", lambda *_: 6)
        assert train(tmp_path, "--epoch", "3", "--save_every", "0") == 143
    steps = weights.steps(str(tmp_path / "weights"))
    assert steps == [24, 30]  # the newest two
    newest = tmp_path / "weights" / "checkpoint" / "step-000000030.keras"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    capsys.readouterr()
    assert train(tmp_path, "--epoch", "3") == 0
    captured = capsys.readouterr()
    assert (
        "step-000000030.keras" in captured.err and captured.err.count("taking the save before") == 1
    )
    assert "Continuing at step 24, after 2 of 3 epochs." in captured.out
    same_run(whole, tmp_path)


@pytest.mark.parametrize(
    "objective",
    [["--binarize", "dynamic"], pytest.param(["--recon_loss", "l2"], marks=pytest.mark.slow)],
)
def test_every_objective_continues_to_the_same_bits(tmp_path, monkeypatch, objective):
    argv = ["--epoch", "2", *objective]
    assert train(tmp_path / "whole", *argv) == 0
    with monkeypatch.context() as patch:
        patch.setattr(window, "compiled", stop_after(7))
        patch.setattr(window, "size", lambda *_: 7)
        assert train(tmp_path / "parts", *argv) == 143
    assert train(tmp_path / "parts", *argv) == 0
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_whose_last_step_is_saved_only_finishes(whole, tmp_path, monkeypatch, capsys):
    """As after a kill between the last save and vae.keras."""
    from support import run_folder

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.RunFolder, "finish", lambda *_: None)
        assert train(tmp_path, "--epoch", "3") == 0
    assert not (tmp_path / "weights" / "vae.keras").exists()
    assert train(tmp_path, "--epoch", "3") == 0
    assert "Epoch" not in capsys.readouterr().out.split("Continuing")[1]
    same_run(whole, tmp_path)


def test_a_signal_while_the_prior_is_fitted_leaves_a_run_to_finish(whole, tmp_path, monkeypatch):
    fit = prior.fit

    def interrupted(*args):
        *given, between = args

        def signalled():
            os.kill(os.getpid(), signal.SIGTERM)
            between()

        return fit(*given, signalled)

    with monkeypatch.context() as patch:
        patch.setattr(prior, "fit", interrupted)
        assert train(tmp_path, "--epoch", "3") == 143
    assert not (tmp_path / "weights" / "vae.keras").exists()
    assert train(tmp_path, "--epoch", "3") == 0
    same_run(whole, tmp_path)


def test_a_run_without_a_use_for_a_fitted_prior_says_why(tmp_path):
    """With such a weight of the KL term nothing is active."""
    assert train(tmp_path, "--epoch", "1", "--beta", "1000") == 0
    run, arrays = weights.read(str(tmp_path / "weights"))
    assert "no latent dimension is active" in run["prior"]["why"] and "prior" not in arrays


def test_finished_says_so_and_changes_nothing(trained, capsys):
    before = files_in(trained.parent)
    assert train(trained.parent, "--epoch", "2") == 0
    said = capsys.readouterr().out
    assert "nothing to do" in said and f"eval.py --load_weight_dir {trained}" in said
    assert files_in(trained.parent) == before


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--epoch", "2", "--latent_dim", "5"], "latent_dim 4 where this one has 5"),
        (["--epoch", "2", "--seed", "9"], "seed 0 where this one has 9"),
        (["--epoch", "2", "--limit", "100"], "limit 240 where this one has 100"),
        (["--epoch", "4"], "epoch 2 where this one has 4"),
    ],
)
def test_another_configuration_is_refused(trained, capsys, argv, says):
    before = files_in(trained.parent)
    assert train(trained.parent, *argv) == 2
    line = last_line(capsys.readouterr().err)
    assert line.startswith("train.py: error: ") and says in line
    for way_out in ("--save_weight_dir", "--overwrite", "--load_weight_dir"):
        assert way_out in line
    assert files_in(trained.parent) == before


def test_overwrite_removes_only_our_files(copy, trained, capsys):
    shutil.copytree(trained.parent / "log", copy.parent / "log")
    (copy / "notes.txt").write_text("mine")
    (copy.parent / "log" / "train" / "mine.txt").write_text("mine")
    argv = [*SMALL, "--save_weight_dir", str(copy), "--log_dir", str(copy.parent / "log")]
    argv += ["--epoch", "1", "--seed", "3"]
    assert script.main(argv) == 2
    assert script.main([*argv, "--overwrite"]) == 0
    assert (copy / "notes.txt").read_text() == "mine"
    assert (copy.parent / "log" / "train" / "mine.txt").read_text() == "mine"
    assert weights.read_run(str(copy))["training"]["seed"] == 3
    curve = points(copy.parent / "log" / "val")["loss_total"]
    assert [step for step, _ in curve] == [STEPS]


def test_a_log_folder_belongs_to_one_run(trained, tmp_path, capsys):
    before = files_in(trained.parent / "log")
    argv = ["--save_weight_dir", str(tmp_path / "w"), "--log_dir", str(trained.parent / "log")]
    assert script.main([*SMALL, *argv, "--epoch", "1"]) == 2
    assert "--log_dir" in last_line(capsys.readouterr().err)
    assert files_in(trained.parent / "log") == before and not (tmp_path / "w").exists()
    foreign = tmp_path / "log" / "train" / "events.out.tfevents.1.mine"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    for overwrite in ([], ["--overwrite"]):
        assert train(tmp_path, "--epoch", "1", *overwrite) == 2
        assert "nobody knows which run" in last_line(capsys.readouterr().err)
    assert foreign.read_text() == "mine"


def test_warm_start(trained, tmp_path, capsys):
    """Given weights, a new run: with a rate of nearly nothing it ends where it began."""
    bare = ["--dataset", "digits", "--limit", "240", "--batch", "20", "--epoch", "1"]
    bare += ["--load_weight_dir", str(tmp_path / "source"), "--learning_rate", "1e-12"]
    shutil.copytree(trained, tmp_path / "source")
    assert script.main([*bare, *folders(tmp_path), "--latent_dim", "5"]) == 2
    assert "source holds another run, with latent_dim 4 where this one has 5" in last_line(
        capsys.readouterr().err
    )
    inside = ["--save_weight_dir", str(tmp_path / "source"), "--overwrite"]
    assert script.main([*bare, *inside]) == 2
    assert "where the new run goes" in last_line(capsys.readouterr().err)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "compiled", stop_after(6))
        patch.setattr(window, "size", lambda *_: 6)
        assert script.main([*bare, *folders(tmp_path)]) == 143
    shutil.rmtree(tmp_path / "source")  # a resume never reads it again
    assert script.main([*bare, *folders(tmp_path)]) == 0
    for value, expected in zip(arrays_of(tmp_path / "weights"), arrays_of(trained), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-9)
    run, source = (weights.read_run(str(f)) for f in (tmp_path / "weights", trained))
    assert run["source"] == {"run_id": source["run_id"], "step": source["step"]}
    assert run["run_id"] != source["run_id"]
    cold = [flag for flag in bare if flag not in ("--load_weight_dir", str(tmp_path / "source"))]
    assert script.main([*cold, *folders(tmp_path), "--hidden_units", "32", "16"]) == 2


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, capsys):
    argv = ["--epoch", "3", "--learning_rate", "1e6", "--schedule", "constant"]
    assert train(tmp_path, *argv, "--warmup_epochs", "0") == 3
    line = last_line(capsys.readouterr().err)
    assert "no longer finite at step" in line and "the save of step 0 is in" in line
    assert weights.steps(str(tmp_path / "weights")) == [0]


def test_weights_that_blow_up_in_the_last_step_are_never_written(tmp_path, monkeypatch, capsys):
    """The loss of that step is still finite: it is of the weights before."""
    update = script.update

    def ruinous(optimizer, gradients, variables):
        update(optimizer, gradients, variables)
        variables[0].assign(variables[0] * np.inf)

    monkeypatch.setattr(script, "update", ruinous)
    monkeypatch.setattr(window, "size", lambda *_: 1)
    assert train(tmp_path, "--epoch", "1", "--limit", "20") == 3
    assert "no longer finite at step 1" in last_line(capsys.readouterr().err)
    assert weights.steps(str(tmp_path / "weights")) == [0]


def test_a_second_run_on_the_same_folders_is_refused(copy, tmp_path, capsys):
    from support import run_folder

    for folder, log in ((copy, tmp_path / "l"), (tmp_path / "w", tmp_path / "log")):
        with run_folder.RunFolder(str(folder), str(log), {}, overwrite=True):
            other = tmp_path / "other"
            pair = (folder, other) if folder == copy else (other, log)
            argv = ["--save_weight_dir", str(pair[0]), "--log_dir", str(pair[1])]
            assert script.main([*SMALL, *argv, "--epoch", "3", "--overwrite"]) == 2
            assert "in use by another run" in last_line(capsys.readouterr().err)
    assert weights.read_run(str(copy))["epochs_done"] == 2


@pytest.mark.parametrize("recon_loss, beta", [("l2", 1.0), ("bce", 0.5)])
def test_the_objective_is_what_the_flags_say(tmp_path, recon_loss, beta):
    flags = ["--recon_loss", recon_loss, "--beta", str(beta), "--kl_warmup_epochs", "0.5"]
    assert train(tmp_path, "--epoch", "1", "--log_every", "1", *flags) == 0
    risen = np.minimum(1, np.arange(1, STEPS + 1) / (STEPS // 2))
    for part, weight in (("train", beta * risen), ("val", beta)):
        found = {name: np.array(c)[:, 1] for name, c in points(tmp_path / "log" / part).items()}
        expected = found[f"loss_{recon_loss}"] + weight * found["loss_KLD"]
        np.testing.assert_allclose(found["objective"], expected, rtol=1e-5)


def test_the_record_of_a_finished_run_fits_its_weights(whole):
    """The posterior of the training images, recomputed from what was saved."""
    import data

    vae, run = weights.load(str(whole / "weights"))
    images = data.load("digits", limit=240).train.images
    assert evaluation.posterior(*evaluation.encoded(vae, images)) == run["posterior"]


def test_a_posterior_that_no_reader_would_accept_is_never_finished(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "posterior", lambda *_: {"KLD": [float("inf")]})
    assert train(tmp_path, "--epoch", "1") == 3
    assert "no longer finite" in last_line(capsys.readouterr().err)
    assert not (tmp_path / "weights" / "vae.keras").exists()


def test_batch_rate_and_warps_follow_the_length_unless_they_are_given():
    assert script.recipe(100) == (100, pytest.approx(0.003), 0.8)
    assert script.recipe(1) == (50, pytest.approx(0.003 * 100**0.25 / 2**0.5), 0.0)
    assert script.recipe(16, batch=400) == (400, pytest.approx(0.003 * 2.5**0.5 * 2), 0.8)
    assert script.recipe(100, 7, 0.5, warp=0.0) == (7, 0.5, 0.0)
    assert script.recipe(2, warp=0.25)[2] == 0.25


def test_more_images_a_batch_than_there_are(tmp_path, capsys):
    assert train(tmp_path, "--batch", "500") == 2
    assert "--batch 500: there are only 240 training images" in capsys.readouterr().err
    assert train(tmp_path, "--hidden_units", *["8"] * 17) == 2
    assert "--hidden_units: 16 layers at most" in capsys.readouterr().err
    assert not (tmp_path / "weights").exists()


def test_a_fallback_has_folders_of_its_own(tmp_path, monkeypatch, capsys):
    from tests.helpers import OFFLINE

    monkeypatch.chdir(tmp_path)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    argv = [flag for flag in SMALL if flag not in ("--dataset", "digits")]
    assert script.main([*argv, "--epoch", "1"]) == 0
    assert capsys.readouterr().out.count("THIS IS NOT MNIST") == 2
    assert {path.name for path in tmp_path.iterdir()} == {"weight_train_digits", "log_digits"}


def test_a_clock_that_was_set_back_hides_no_points(whole, tmp_path, monkeypatch):
    """Loaders read event files in the order of their names, which begin with the time."""
    import time

    with monkeypatch.context() as patch:
        patch.setattr(window, "compiled", stop_after(17))
        patch.setattr(window, "size", lambda *_: 17)
        assert train(tmp_path, "--epoch", "3") == 143
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 86_400)
    assert train(tmp_path, "--epoch", "3") == 0
    same_run(whole, tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "nested"])
def test_an_owner_file_that_is_none_is_refused(whole, tmp_path, capsys, kind):
    owner = tmp_path / "log" / "owner.json"
    owner.parent.mkdir()
    {
        "pipe": lambda: os.mkfifo(owner),
        "folder": owner.mkdir,
        "nested": lambda: owner.write_text("[" * 100_000),
    }[kind]()
    assert train(tmp_path, "--epoch", "1") == 2
    assert "nobody knows which run" in last_line(capsys.readouterr().err)
