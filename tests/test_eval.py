"""eval.py as a user runs it: metrics, flags, messages, and what the pictures show."""

import contextlib
import csv
import io
import json
import os
import re
import textwrap
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import data
import eval as eval_script
from support import noise
from support.analysis import likelihood
from support.display import own_images, plots
from support.display.metrics_table import UNITS
from support.storage import weights, weights_file
from tests import pixels
from tests.helpers import OFFLINE, ROOT, last_line, run_script, train

STEP = plots.SCALE * (28 + plots.GAP)
BETTER_WEIGHT = os.path.join(ROOT, "better_weight")


@pytest.fixture
def offline(monkeypatch, tmp_path_factory):
    """No internet connection, and no MNIST in the cache."""
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The output folder of the pretrained weights on the test images in this repository."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        patch.setenv("KERAS_HOME", str(folder))
        assert eval_script.main(["--output_dir", str(folder)]) == 0
    return folder


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members, **record):
    """Writes a weights file whose run.json has other values."""
    content = json.loads(members["run.json"]) | record
    content["members"] = list(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in (members | {"run.json": json.dumps(content)}).items():
            archive.writestr(name, member)


class Expected:
    """What eval.py should find for given images, computed in another way and in float64.

    Attributes:
        images: float64 (n, 784) in [0, 1].
        mu: the mean of q(z | x), (n, latent_dim).
        RMSE_mean: (n,).
        reconstructions: uint8 (n, 784).
    """

    def __init__(self, folder, images):
        found = weights.read(folder)
        vae = weights.build(found)
        self.images = images / 255
        self.mu = vae.encoder(self.images.astype(np.float32))[0].numpy()
        logits = vae.decoder(self.mu).numpy().astype(float)
        decoded = 1 / (1 + np.exp(-logits))
        self.RMSE_mean = np.sqrt(np.mean((decoded - self.images) ** 2, axis=1))
        self.reconstructions = np.rint(255 * decoded).astype(np.uint8)
        self._prior = found.prior

    def probabilities(self):
        """p(class | z = mu) under the fitted prior, (n, classes)."""
        active, labels, component_weights, means, covariances = self._prior
        logs = [
            np.log(weight) + multivariate_normal(mean, covariance).logpdf(self.mu[:, active])
            for weight, mean, covariance in zip(component_weights, means, covariances, strict=True)
        ]
        joint = np.stack(logs, axis=1)
        by_class = [logsumexp(joint[:, labels == label], axis=1) for label in np.unique(labels)]
        return np.exp(np.stack(by_class, axis=1) - logsumexp(joint, axis=1)[:, None])


@pytest.fixture(scope="module")
def test_100():
    """The test images in this repository, as a data set."""
    return data.mnist_test_100("a test").test


@pytest.fixture(scope="module")
def expected(test_100):
    return Expected(BETTER_WEIGHT, test_100.images)


def test_without_mnist_the_images_in_the_repository_are_evaluated(tmp_path):
    """From any folder, without flags, data or an internet connection."""
    environment = {**OFFLINE, "KERAS_HOME": str(tmp_path / "keras")}
    run = run_script("eval.py", cwd=tmp_path, **environment)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    assert "MNIST is not available: " in run.stdout and "--data_dir" in run.stdout
    assert "100 of 10,000 test images of mnist, seed 0\n" in run.stdout
    assert "NOT COMPARABLE: these are only the 100 test images" in run.stdout
    written = "Wrote metrics.json, reconstructions.png, extremes.png to ./result.\n"
    assert run.stdout.endswith(written)
    metrics = metrics_of(tmp_path / "result")
    assert metrics["evaluated_on"] == "100 of 10,000 test images of mnist"
    assert not metrics["comparable"] and 80 < metrics["loss_total"] < 100


def test_a_report_needs_all_of_mnist(offline, tmp_path, capsys):
    assert eval_script.main(["--report", "--output_dir", str(tmp_path)]) == 2
    line = last_line(capsys.readouterr().err)
    assert line.startswith("eval.py: error: --report needs all of MNIST")


def test_figures_are_those_of_another_implementation(evaluated, test_100, expected):
    metrics = metrics_of(evaluated)
    assert metrics["RMSE_mean"] == pytest.approx(expected.RMSE_mean.mean(), rel=1e-5)
    assert metrics["loss_total"] == pytest.approx(metrics["loss_bce"] + metrics["loss_KLD"])
    error = expected.RMSE_mean.std(ddof=1) / np.sqrt(100)
    assert metrics["standard_errors"]["RMSE_mean"] == pytest.approx(error, rel=1e-5)
    predicted = expected.probabilities().argmax(axis=1)
    accuracy = np.mean(predicted == test_100.labels)
    assert metrics["prior_accuracy"] == pytest.approx(accuracy) and accuracy >= 0.95
    # With a better prior, the -ELBO is lower.
    assert metrics["loss_total"] - 2.5 < metrics["loss_total_fitted"] < metrics["loss_total"]


@pytest.fixture(scope="module")
def small(trained, tmp_path_factory):
    """The small run, evaluated with 20 importance samples: the folder and the printed text."""
    folder = tmp_path_factory.mktemp("small")
    printed = io.StringIO()
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(folder)]
    with contextlib.redirect_stdout(printed):
        assert eval_script.main([*argv, "--nll_samples", "20"]) == 0
    return folder, printed.getvalue()


def test_the_table_has_means_and_standard_errors(small):
    folder, printed = small
    assert printed.startswith(
        "Importing TensorFlow ...\n300 test images of digits, seed 0\nTHIS IS NOT MNIST: "
    )
    metrics = metrics_of(folder)
    rows = dict(re.findall(r"^(\w+) +([\d.]+ +[\d.]+)  ", printed, re.MULTILINE))
    assert set(rows) == set(UNITS) - {"probe_accuracy"}
    for name, row in rows.items():
        mean, error = map(float, row.split())
        assert mean == pytest.approx(metrics[name], abs=1e-4)
        assert error == pytest.approx(metrics["standard_errors"][name], abs=1e-4)
    assert f"active units {metrics['active_units']:>15}  of 4\n" in printed
    assert "20 importance samples, one Bernoulli sample of each image; these weights" in printed
    assert 0 < metrics["nll"] < metrics["loss_total"] + 5
    assert metrics["nll_fitted"] < metrics["nll"]


def test_reconstructions_are_below_their_originals(evaluated, test_100, expected):
    picture = pixels.grey(evaluated / "reconstructions.png")
    origin = pixels.place(picture, test_100.images[0])
    for number in (0, 1, 19, 20, 47, 99):
        above = origin + STEP * np.array([2 * (number // 20), number % 20])
        found = pixels.place(picture, test_100.images[number])
        np.testing.assert_allclose(found, above, atol=1)
        found = pixels.place(picture, expected.reconstructions[number])
        np.testing.assert_allclose(found, above + np.array([STEP, 0]), atol=1)


def test_extremes_have_the_best_above_the_worst(evaluated, test_100, expected):
    picture = pixels.grey(evaluated / "extremes.png")
    order = np.argsort(expected.RMSE_mean)
    origin = pixels.place(picture, test_100.images[order[0]])
    # Below every two rows, images and their reconstructions, is a line with the errors.
    for row, ranked in ((0, order), (2, order[::-1])):
        for column in (0, 1, 9):
            above = origin + np.array([STEP * row + plots.LINE * (row // 2), STEP * column])
            found = pixels.place(picture, test_100.images[ranked[column]])
            np.testing.assert_allclose(found, above, atol=1)
            found = pixels.place(picture, expected.reconstructions[ranked[column]])
            np.testing.assert_allclose(found, above + np.array([STEP, 0]), atol=1)
    assert not pixels.is_shown(picture, test_100.images[order[50]])


def test_figures_do_not_depend_on_the_batch(trained, small, tmp_path):
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path)]
    assert eval_script.main([*argv, "--nll_samples", "20", "--batch_size", "7"]) == 0
    one, other = metrics_of(small[0]), metrics_of(tmp_path)
    for errors in (one.pop("standard_errors"), other.pop("standard_errors")):
        assert set(errors) == set(one) & set(UNITS)
    for name, value in one.items():
        assert other[name] == (pytest.approx(value, rel=1e-5) if type(value) is float else value)
    assert one["comparable"] and one["images"] == 300 and one["dataset"] == "digits"


def test_figures_of_other_data_are_marked(trained, tmp_path, capsys):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (22, 28, 28), np.uint8)
    labels = np.arange(22, dtype=np.uint8) % 2
    arrays = tmp_path / "custom.npz"
    np.savez(arrays, x_train=images, y_train=labels, x_test=255 - images, y_test=labels)
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path)]
    assert eval_script.main([*argv, "--dataset", "custom", "--data_dir", str(arrays)]) == 0
    assert "NOT COMPARABLE: these weights were trained on digits." in capsys.readouterr().out
    marked = metrics_of(tmp_path)
    assert marked["comparable"] is False and marked["dataset"] == "custom"


def test_images_without_labels_leave_out_what_needs_them(trained, tmp_path, capsys):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 28, 28), np.uint8)
    np.savez(tmp_path / "it.npz", x_train=images[:40], x_test=images[40:])
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path), "--report"]
    custom = ["--dataset", "custom", "--data_dir", str(tmp_path / "it.npz")]
    assert eval_script.main([*argv, *custom]) == 0
    metrics = metrics_of(tmp_path)
    assert metrics["images"] == 20 and "loss_total_fitted" in metrics
    assert "prior_accuracy" not in metrics and "probe_accuracy" not in metrics
    assert "accuracy" not in capsys.readouterr().out
    assert pixels.grey(tmp_path / "report.png").min() < 100


def test_weights_of_binarized_images_see_binarized_images(copy, tmp_path, capsys):
    members = members_of(copy / "vae.keras")
    training = json.loads(members["run.json"])["training"] | {"binarize": "dynamic"}
    write_members(copy / "vae.keras", members, training=training)
    argv = ["--load_weight_dir", str(copy), "--output_dir", str(tmp_path), "--seed", "5"]
    assert eval_script.main([*argv, "--nll_samples", "3"]) == 0
    printed = capsys.readouterr().out
    assert "digits, one Bernoulli sample of each, seed 5\n" in printed and "GREY" not in printed
    binary = noise.bernoulli_sample(data.load("digits").test.images, 5)
    expected, metrics = Expected(str(copy), binary), metrics_of(tmp_path)
    assert metrics["RMSE_mean"] == pytest.approx(expected.RMSE_mean.mean(), rel=1e-5)
    vae, _ = weights.load(str(copy))
    nll = likelihood.nll(vae, binary, samples=3, seed=5)["nll"]
    assert metrics["nll"] == pytest.approx(nll.mean(), rel=1e-6)
    pixels.place(pixels.grey(tmp_path / "reconstructions.png"), binary[0])


def test_a_report_says_what_the_figures_say(trained, tmp_path, capsys, monkeypatch):
    given = []
    monkeypatch.setattr("support.display.report.draw", lambda path, report: given.append(report))
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path), "--report"]
    assert eval_script.main([*argv, "--map", "pca"]) == 0
    (report,), metrics = given, metrics_of(tmp_path)
    assert "Computing the map" not in capsys.readouterr().out
    assert report.description == "300 test images of digits"
    test = data.load("digits").test
    np.testing.assert_array_equal(report.images, test.images)
    np.testing.assert_array_equal(report.labels, test.labels)
    assert sum(report.kld) == pytest.approx(metrics["loss_KLD"], rel=1e-4)
    assert report.active_units == metrics["active_units"] and len(report.kld) == 4
    assert report.elbo.mean() == pytest.approx(metrics["loss_total"], rel=1e-5)
    assert report.rmse.mean() == pytest.approx(metrics["RMSE_mean"], rel=1e-5)
    assert report.latent_map.points.shape == (300, 2) and not report.latent_map.components
    assert {name: correct.mean() for name, correct in report.correct.items()} == {
        "a linear classifier": pytest.approx(metrics["probe_accuracy"]),
        "the fitted prior": pytest.approx(metrics["prior_accuracy"]),
    }
    # A small model after two epochs; chance is 0.1.
    assert metrics["probe_accuracy"] > 0.2 and metrics["prior_accuracy"] > 0.12
    expected = Expected(str(trained), test.images)
    right = expected.probabilities().argmax(axis=1) == test.labels
    assert metrics["prior_accuracy"] == pytest.approx(right.mean(), abs=0.01)


@pytest.fixture(scope="module")
def own(tmp_path_factory, test_100):
    """The output folder of an evaluation of four of the user's own pictures."""
    folder = tmp_path_factory.mktemp("own")
    seven, two = test_100.images[:2].reshape(2, 28, 28)
    large = np.pad(255 - np.kron(two, np.ones((9, 9), np.uint8)), 40, constant_values=255)
    random = np.random.default_rng(0)
    crossed = np.zeros((28, 28), np.uint8)
    crossed[4:24, 4:24] = 255 * random.integers(0, 2, (20, 20))
    named = {"seven": seven, "negative": 255 - seven, "large two": large, "no digit": crossed}
    for name, array in named.items():
        Image.fromarray(array).save(folder / f"{name}.png")
    paths = [str(folder / f"{name}.png") for name in named]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        patch.setenv("KERAS_HOME", str(folder))
        argv = ["--output_dir", str(folder), "--images", *paths, "--interpolate"]
        assert eval_script.main(argv) == 0
    return folder


def test_own_images_have_figures_and_a_class(own, test_100, expected):
    seven, negative, two, no_digit = metrics_of(own)["own_images"]
    assert seven["file"] == str(own / "seven.png") and seven["name"] == "seven.png"
    assert seven["RMSE_mean"] == pytest.approx(expected.RMSE_mean[0], rel=1e-5)
    probabilities = expected.probabilities()[0]
    assert seven["predicted_label"] == probabilities.argmax() == test_100.labels[0] == 7
    assert seven["probability"] == pytest.approx(probabilities.max(), abs=1e-4)
    assert not seven["none_of_these"]
    same = {"file": seven["file"], "name": "seven.png"}
    assert negative | same == seven  # with bit-identical numbers
    assert two["predicted_label"] == 2 and not two["none_of_these"]
    assert no_digit["none_of_these"]
    assert no_digit["share_of_test_images_with_higher_loss_total"] == 0
    # More test images have a higher loss than the easier of the two digits.
    shares = [one["share_of_test_images_with_higher_loss_total"] for one in (seven, two)]
    assert (shares[0] > shares[1]) == (seven["loss_total"] < two["loss_total"])
    assert all(0 < share < 1 for share in shares)


def test_own_png_shows_crop_input_and_reconstruction(own, test_100, expected):
    picture = pixels.grey(own / "own.png")
    step = own_images.SCALE * (28 + plots.GAP)
    seen = pixels.place(picture, test_100.images[0], own_images.SCALE)
    below = pixels.place(picture, expected.reconstructions[0], own_images.SCALE)
    np.testing.assert_allclose(below - seen, [step, 0], atol=1)
    # Above it is the picture as it was found: light ink on dark, and its negative.
    side = own_images.SCALE * 28
    crops = []
    for column in (0, 1):
        top = seen[0] - step - plots.LINE
        left = seen[1] + column * step
        crops.append(picture[top : top + side, left : left + side])
    assert np.mean(crops[0]) < 100 and np.mean(crops[1]) > 155
    np.testing.assert_allclose(crops[0], 255 - crops[1], atol=4)
    digit = test_100.images[0].reshape(28, 28).astype(float)
    means = crops[0].reshape(28, own_images.SCALE, 28, own_images.SCALE).mean(axis=(1, 3))
    assert np.corrcoef(means.ravel(), digit.ravel())[0, 1] > 0.97


def test_own_images_are_joined_by_a_spherical_interpolation(own, test_100, expected):
    picture = pixels.grey(own / "own_interpolation.png")
    vae, _ = weights.load(BETTER_WEIGHT)
    two = metrics_of(own)["own_images"][2]
    assert two["name"] == "large two.png"
    origin = pixels.place(picture, test_100.images[0])
    # The first row is a path from the seven to its negative, which becomes the same image.
    for column in (1, 6, 11):
        image = expected.reconstructions[0]
        top, left = origin + STEP * np.array([0, column])
        cell = picture[top : top + 56 : 2, left : left + 56 : 2]
        np.testing.assert_allclose(cell, 255.0 - image.reshape(28, 28), atol=2)
    from support.datasets import photos

    (digit,), _ = photos.read([two["file"]])
    a = expected.mu[0].astype(float)
    b = vae.encode(data.to_float(digit.pixels[None]))[0].numpy()[0].astype(float)
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    sixth = (np.sin(0.7 * angle) * a + np.sin(0.3 * angle) * b) / np.sin(angle)
    decoded = tf.sigmoid(vae.decoder(np.stack([sixth, b]).astype(np.float32))).numpy()
    shown = {4: np.rint(255 * decoded[0]), 11: np.rint(255 * decoded[1]), 12: digit.pixels}
    for column, image in shown.items():
        place = pixels.place(picture, image.astype(np.uint8))
        np.testing.assert_allclose(place, origin + STEP * np.array([1, column]), atol=1)


def test_pictures_of_an_earlier_command_are_named(trained, tmp_path, capsys):
    (tmp_path / "report.png").write_bytes(b"from before")
    (tmp_path / "mine.png").write_bytes(b"not of this project")
    flags = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path)]
    assert eval_script.main(flags) == 0
    said = capsys.readouterr().out
    assert "Notice: from an earlier command, and unchanged: report.png.\n" in said
    assert (tmp_path / "report.png").read_bytes() == b"from before"


def test_the_table_of_own_images_says_what_its_columns_mean(offline, own, tmp_path, capsys):
    names = [str(own / "seven.png"), str(own / "no digit.png")]
    assert eval_script.main(["--output_dir", str(tmp_path), "--images", *names]) == 0
    printed = capsys.readouterr().out
    seven, _ = metrics_of(tmp_path)["own_images"]
    share = 100 * seven["share_of_test_images_with_higher_loss_total"]
    row = f"{seven['loss_total']:>10.2f}  {seven['RMSE_mean']:>9.4f}  {share:>4.0f} %  7 (p > 0.99)"
    assert f"{'seven.png':<28}  {row}\n" in printed
    assert re.search(r"^no digit\.png .* 0 %  none of these$", printed, re.MULTILINE)
    assert "higher: percentage of the test images with a higher loss_total (-ELBO)\n" in printed
    assert "higher than that of all but 1 in 1,000 test images" in printed
    assert "own.png to" in printed and not (tmp_path / "own_interpolation.png").exists()


WRONG_IMAGES = {
    "missing": (lambda path: None, "there is no such file"),
    "an even page": (
        lambda path: Image.fromarray(np.full((99, 99), 250, np.uint8)).save(path, "png"),
        "no digit was found",
    ),
}


@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_a_picture_without_a_digit_costs_one_line(trained, tmp_path, capsys, name):
    make, line = WRONG_IMAGES[name]
    make(tmp_path / "picture.png")
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path / "none")]
    assert eval_script.main([*argv, "--images", str(tmp_path / "picture.png")]) == 2
    said = capsys.readouterr().err
    assert line in said and len(said.splitlines()) == 1
    assert said.startswith("eval.py: error: --images: ") and not (tmp_path / "none").exists()


def test_interpolation_needs_two_digits(own, tmp_path, capsys):
    argv = ["--output_dir", str(tmp_path / "none"), "--interpolate"]
    assert eval_script.main(argv) == 2
    assert "add --images FIRST SECOND" in last_line(capsys.readouterr().err)
    assert eval_script.main([*argv, "--images", str(own / "seven.png")]) == 2
    assert "--interpolate needs two digits" in last_line(capsys.readouterr().err)
    assert not (tmp_path / "none").exists()


def test_a_run_in_progress_is_evaluated_by_its_newest_save(copy, small, tmp_path, capsys):
    """It gives the same metrics as the finished file of the same step, and is marked as such."""
    (copy / "checkpoint").mkdir()
    members = members_of(copy / "vae.keras")
    write_members(copy / "checkpoint" / "step-000000024.keras", members, posterior=None)
    (copy / "vae.keras").unlink()
    argv = ["--output_dir", str(tmp_path / "out"), "--load_weight_dir", str(copy)]
    assert eval_script.main([*argv, "--nll_samples", "20"]) == 0
    said = "The run is not finished: these are the weights of step 24."
    assert said in capsys.readouterr().out
    assert metrics_of(tmp_path / "out") == metrics_of(small[0]) | {"finished": False}


def test_weights_without_a_fitted_prior_have_no_figures_of_it(copy, own, tmp_path, capsys):
    members = members_of(copy / "vae.keras")
    del members["prior.npz"]
    write_members(copy / "vae.keras", members, prior={"gain": None, "why": "a test"})
    argv = ["--load_weight_dir", str(copy), "--output_dir", str(tmp_path), "--images"]
    assert eval_script.main([*argv, str(own / "seven.png")]) == 0
    metrics = metrics_of(tmp_path)
    assert metrics["prior"] == "standard" and "prior_accuracy" not in metrics
    assert "loss_total_fitted" not in metrics
    (image,) = metrics["own_images"]
    assert image["predicted_label"] is None and image["probability"] is None


def test_weights_of_other_data_say_where_to_look(copy, tmp_path, capsys):
    members = members_of(copy / "vae.keras")
    argv = ["--load_weight_dir", str(copy), "--output_dir", str(tmp_path / "none")]
    for name, says in (
        ("custom", "--data_dir: these weights were trained on your own data: give its path"),
        (
            "digits",
            "digits does not hold the digits images that these weights were trained on",
        ),
    ):
        write_members(copy / "vae.keras", members, dataset={"name": name, "sha256": "0" * 64})
        assert eval_script.main(argv) == 2
        assert says in last_line(capsys.readouterr().err)
    # Metrics on other images under the same name cannot be compared either.
    assert eval_script.main([*argv, "--dataset", "digits"]) == 0
    marked = "NOT COMPARABLE: these weights were trained on different digits images.\n"
    assert marked in capsys.readouterr().out


def test_figures_that_are_not_finite_cost_one_line(copy, tmp_path, capsys):
    vae, record = weights.load(str(copy))
    bias = vae.encoder.get_layer("mu_and_log_var").bias
    bias.assign(bias + 1e30)
    weights_file.write(weights_file.finished_path(str(copy)), vae, record)
    assert eval_script.main(["--load_weight_dir", str(copy), "--output_dir", str(tmp_path)]) == 2
    assert "metrics of these weights are NaN or infinite" in last_line(capsys.readouterr().err)
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--batch", "many"], "--batch/--batch_size: expected a whole number from 1"),
        (["--nll_samples", "-1"], "argument --nll_samples: expected a whole number from 0"),
        (["--lr", "5"], "is not a flag of eval.py: see --help"),
        (["--image", "it.png"], "did you mean --images?"),
        (["--load_weight_dir", "nowhere"], "nowhere does not exist"),
        (["--data_dir", "nowhere"], "--data_dir: nowhere does not exist"),
    ],
)
def test_wrong_flags_cost_one_line(tmp_path, monkeypatch, capsys, argv, says):
    monkeypatch.chdir(tmp_path)
    assert eval_script.main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("eval.py: error: ") and says in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_error_as_a_process(tmp_path):
    run = run_script("eval.py", "--load_weight_dir", "nowhere", cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("eval.py: error: ")


def test_a_folder_that_cannot_be_written(trained, tmp_path, capsys):
    """A file is in place of a folder that should be created, which is refused even for root."""
    (tmp_path / "file").write_text("mine")
    place = str(tmp_path / "file" / "out")
    assert eval_script.main(["--load_weight_dir", str(trained), "--output_dir", place]) == 2
    assert f"{place} cannot be written" in last_line(capsys.readouterr().err)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture(scope="module")
def of_each_image(trained, own, tmp_path_factory):
    """A folder with latents.npz and scores.csv of all digits and two pictures; the printed text."""
    folder = tmp_path_factory.mktemp("each")
    printed = io.StringIO()
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(folder), "--split", "all"]
    argv += ["--images", str(own / "seven.png"), str(own / "no digit.png"), "--threshold", "95"]
    argv += ["--save_latents", str(folder / "new" / "latents.npz")]
    argv += ["--save_scores", str(folder / "scores.csv"), "--projector"]
    with contextlib.redirect_stdout(printed):
        assert eval_script.main(argv) == 0
    return folder, printed.getvalue()


def test_latents_are_those_of_every_image_in_order(of_each_image, trained):
    folder, printed = of_each_image
    digits = data.load("digits")
    splits = {"train": digits.train, "validation": digits.validation, "test": digits.test}
    vae, _ = weights.load(str(trained))
    with np.load(folder / "new" / "latents.npz") as table:
        start = 0
        for name, split in splits.items():
            rows = slice(start, start + len(split.images))
            start = rows.stop
            assert set(table["split"][rows]) == {name}
            np.testing.assert_array_equal(table["index"][rows], range(len(split.images)))
            np.testing.assert_array_equal(table["labels"][rows], split.labels)
            mu, log_var = vae.encode(data.to_float(split.images))
            np.testing.assert_allclose(table["mu"][rows], mu, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(table["log_var"][rows], log_var, rtol=1e-4, atol=1e-5)
            decoded = tf.sigmoid(vae.decode(mu)).numpy()
            error = np.sqrt(np.mean((decoded - split.images / 255) ** 2, axis=1))
            np.testing.assert_allclose(table["RMSE_mean"][rows], error, rtol=1e-3)
        assert table["split"][start:].tolist() == ["images"] * 2
        assert table["labels"][start:].tolist() == [-1, -1]
        assert [os.path.basename(path) for path in table["file"][start:]] == [
            "seven.png",
            "no digit.png",
        ]
        own_images = metrics_of(folder)["own_images"]
        expected = [image["loss_total"] for image in own_images]
        np.testing.assert_array_equal(table["loss_total"][start:], np.float32(expected))
        assert table["predicted"][start:].tolist() == [
            image["predicted_label"] for image in own_images
        ]
        test = table["split"] == "test"
        assert table["loss_total"][test].mean() == pytest.approx(
            metrics_of(folder)["loss_total"], rel=1e-6
        )
        assert "class_names" not in table
    assert f"latents.npz: {start + 2:,} images.\n" in printed


def test_metrics_and_pictures_stay_those_of_the_test_images(of_each_image, small):
    found, expected = metrics_of(of_each_image[0]), metrics_of(small[0])
    for name in ("loss_total", "loss_total_fitted", "RMSE", "standard_errors", "images"):
        if name == "standard_errors":
            assert found[name].items() <= expected[name].items()
        else:
            assert found[name] == expected[name]
    for name in ("reconstructions.png", "extremes.png"):
        assert (of_each_image[0] / name).read_bytes() == (small[0] / name).read_bytes()


def test_scores_are_percentiles_among_the_validation_images(of_each_image):
    folder, printed = of_each_image
    with open(folder / "scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    elbo = np.array([float(row["loss_total"]) for row in rows])
    split = np.array([row["split"] for row in rows])
    validation = elbo[split == "validation"]
    percentile = np.array([float(row["percentile"]) for row in rows])
    expected = [100 * np.mean(validation < value) for value in elbo]
    np.testing.assert_allclose(percentile, expected, atol=1e-6)
    above = np.array([row["above"] == "1" for row in rows])
    np.testing.assert_array_equal(above, percentile > 95)
    assert 0 < above[split == "test"].sum() < 60
    count = above[split == "test"].sum()
    assert f"test        {count} of 300 ({count / 3:.2f} %)\n" in printed
    # What is no digit lies above.
    assert rows[-1]["percentile"] == "100.0" and rows[-1]["above"] == "1"
    assert re.search(r"^images      [12] of 2 .*no digit\.png$", printed, re.MULTILINE)


def test_the_documented_use_of_latents_runs(of_each_image, monkeypatch, capsys):
    """The lines of scikit-learn in support/README.md."""
    with open(os.path.join(ROOT, "support", "README.md"), encoding="utf-8") as file:
        code = re.search(r"((?:    .*\n)*    .*latents\.npz\"(?:.*\n)(?:    .*\n)*)", file.read())[
            1
        ]
    monkeypatch.chdir(of_each_image[0] / "new")
    exec(textwrap.dedent(code), {})
    # A linear classifier of four latent dimensions after two epochs; chance is 0.1.
    assert float(capsys.readouterr().out) > 0.2


def test_the_projector_holds_the_same_images(of_each_image):
    folder, printed = of_each_image
    line = f"projector_sprite.png to {folder}. Next: tensorboard --logdir {folder}, and open "
    assert f"{line}http://localhost:6006/#projector\n" in printed
    with np.load(folder / "new" / "latents.npz") as table:
        mu = np.fromfile(folder / "projector_mu.bytes", "<f4").reshape(-1, 4)
        np.testing.assert_array_equal(mu, table["mu"])
    lines = (folder / "projector_metadata.tsv").read_text().splitlines()
    assert len(lines) == 1 + len(mu) and lines[-1].startswith("your image\t")


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--split", "all"], "--split says whose results to save: add --save_latents"),
        (["--threshold", "99"], "--threshold marks rows of --save_scores"),
        (["--map", "pca"], "--map says how --report maps mu: add --report, or leave it out"),
        (["--transpose"], "--transpose is for images in files of your own: add --data_dir"),
        (["--threshold", "101", "--save_scores", "a.csv"], "expected a number from 0 to 100"),
        (["--save_latents", "a.txt"], "--save_latents: expected the name of a file that ends in"),
        (["--save_scores", "mine.csv"], "mine.csv exists and does not hold scores"),
        (["--save_latents", "mine.npz"], "mine.npz is not a regular file"),
        (["--save_scores", "a.csv"], "--save_scores needs all of MNIST"),
        (["--save_latents", "a.npz", "--split", "train"], "--split train needs all of MNIST"),
        (["--save_scores", "a.csv", "--dataset", "digits"], "leave out --dataset digits"),
    ],
)
def test_results_of_each_image_are_refused_before_anything_happens(
    offline, tmp_path, monkeypatch, capsys, argv, says
):
    (tmp_path / "mine.csv").write_text("mine")
    (tmp_path / "mine.npz").mkdir()
    monkeypatch.chdir(tmp_path)
    assert eval_script.main(argv) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["mine.csv", "mine.npz"]
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_latents_of_the_images_in_the_repository(offline, tmp_path, test_100, expected):
    argv = ["--output_dir", str(tmp_path), "--save_latents", str(tmp_path / "it.npz")]
    assert eval_script.main(argv) == 0
    with np.load(tmp_path / "it.npz") as table:
        np.testing.assert_allclose(table["mu"], expected.mu, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(table["labels"], test_100.labels)
        probabilities = expected.probabilities()
        np.testing.assert_array_equal(table["predicted"], probabilities.argmax(axis=1))
        np.testing.assert_allclose(table["probability"], probabilities.max(axis=1), rtol=1e-3)


def test_weights_of_some_digits_are_compared_with_validation_images_of_these(tmp_path, capsys):
    assert train(tmp_path, "--epoch", "2", "--digits", "0", "6", "--limit", "200") == 0
    capsys.readouterr()
    argv = ["--load_weight_dir", str(tmp_path / "weights"), "--output_dir", str(tmp_path)]
    argv += ["--split", "all", "--save_scores", str(tmp_path / "it.csv")]
    assert eval_script.main(argv) == 0
    line = "Notice: these weights were trained only on images of 0 6, and are evaluated on all.\n"
    printed = capsys.readouterr().out
    assert line in printed and "300 test images of digits" in printed
    assert metrics_of(tmp_path)["trained_on_classes"] == [0, 6]
    with open(tmp_path / "it.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1797 and {row["predicted"] for row in rows} <= {"0", "6"}
    validation = [
        float(row["loss_total"])
        for row in rows
        if row["split"] == "validation" and row["label"] in ("0", "6")
    ]
    assert 0 < len(validation) < len(data.load("digits").validation.images) / 3
    for row in rows[::50]:
        expected = 100 * np.mean(np.array(validation) < float(row["loss_total"]))
        assert float(row["percentile"]) == pytest.approx(expected, abs=1e-6)
