"""The scripts as a user runs them: processes, exit codes, files, text."""

import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import data
import eval as eval_script
import eval_genresult
import train as train_script
from support import evaluation, prior, weights
from tests.helpers import OFFLINE, ROOT, SMALL, last_line, run_script

SCRIPTS = ("train.py", "eval.py", "eval_genresult.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_every_default_without_tensorflow(script):
    code = (
        f"import sys, {script[:-3]} as module; code = module.main(['--help']);"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules), 'imported';"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    options = re.split(r"\n  (?=--)", shown.stdout)[1:]
    assert len(options) >= 5
    for option in options:
        assert "(default: " in " ".join(option.split()), option


def zipfile_members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_whole_way_on_the_embedded_digits(tmp_path):
    """Without network and without MNIST: train, evaluate, generate, and train again."""
    environment = {**OFFLINE, "KERAS_HOME": str(tmp_path / "keras")}
    trained = run_script("train.py", "--epoch", "2", cwd=tmp_path, **environment)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("THIS IS NOT MNIST") == 2  # at the start and beside the results
    lines = [line for line in trained.stdout.splitlines() if line.startswith("Epoch ")]
    assert len(lines) == 2 and "images/s" in lines[0]
    assert trained.stderr == ""
    folder = ["--load_weight_dir", "weight_train_digits"]
    evaluated = run_script("eval.py", *folder, cwd=tmp_path, **environment)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "300 test images of digits" in evaluated.stdout and evaluated.stderr == ""
    assert "THIS IS NOT MNIST" in evaluated.stdout
    generated = run_script("eval_genresult.py", *folder, cwd=tmp_path)
    assert generated.returncode == 0 and generated.stderr == ""
    assert {path.name for path in (tmp_path / "result").iterdir()} == {
        "metrics.json",
        "reconstructions.png",
        "extremes.png",
        "generated.png",
        "generated.npz",
    }


def test_pretrained_weights_generate_from_any_folder(tmp_path):
    """Its default is found beside the script: no flags, no data, no network."""
    environment = {**OFFLINE, "KERAS_HOME": str(tmp_path / "keras"), "KERAS_BACKEND": "jax"}
    generated = run_script("eval_genresult.py", cwd=tmp_path, **environment)
    assert generated.returncode == 0, generated.stderr
    with np.load(tmp_path / "result" / "generated.npz") as archive:
        assert archive["images"].shape == (100, 28, 28) and archive["images"].max() > 200
    # Without MNIST, eval.py takes the 100 test images that come with the repository, and says so.
    evaluated = run_script("eval.py", cwd=tmp_path, **environment)
    assert evaluated.returncode == 0 and evaluated.stderr == ""
    assert "100 of 10,000 test images of mnist" in evaluated.stdout
    assert "NOT COMPARABLE" in evaluated.stdout and "MNIST could not be had" in evaluated.stdout
    metrics = json.loads((tmp_path / "result" / "metrics.json").read_text())
    assert metrics["evaluated_on"] == "100 of 10,000 test images of mnist"
    assert not metrics["comparable"] and 80 < metrics["loss_total"] < 100
    report = run_script("eval.py", "--report", cwd=tmp_path, **environment)
    line = last_line(report.stderr)
    assert report.returncode == 2 and line.startswith("eval.py: error: --report needs all of MNIST")


def test_python_lines_of_the_readme_run(tmp_path):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        section = file.read().split("## Use it from Python")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert "(10, 128)" in run.stdout and "(10, 784)" in run.stdout


def test_ci_gives_the_readmes_test_command():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        command = re.search(r"^.*-m pytest.*$", file.read(), re.MULTILINE)[0].strip()
    assert "slow" not in command
    with open(os.path.join(ROOT, ".ci", "run"), encoding="utf-8") as file:
        assert command in file.read()


def test_evaluation_is_reproducible_and_marks_other_data(trained, tmp_path, capsys):
    argv = ["--load_weight_dir", str(trained), "--output_dir"]
    assert eval_script.main([*argv, str(tmp_path / "a")]) == 0
    assert eval_script.main([*argv, str(tmp_path / "b"), "--batch", "7"]) == 0
    one, other = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in "ab")
    for name, value in one.items():
        assert other[name] == (pytest.approx(value, rel=1e-5) if type(value) is float else value)
    assert one["comparable"] and one["images"] == 300 and one["dataset"] == "digits"
    assert one["loss_total"] == pytest.approx(one["loss_bce"] + one["loss_KLD"])
    arrays = tmp_path / "custom.npz"
    random = np.random.default_rng(0)
    train_images = random.integers(0, 256, (22, 28, 28), np.uint8)
    labels = np.zeros(22, np.uint8)
    np.savez(arrays, x_train=train_images, y_train=labels, x_test=train_images, y_test=labels)
    capsys.readouterr()
    other = [*argv, str(tmp_path / "c"), "--dataset", "custom", "--data_dir", str(arrays)]
    assert eval_script.main(other) == 0
    assert "NOT COMPARABLE" in capsys.readouterr().out
    marked = json.loads((tmp_path / "c" / "metrics.json").read_text())
    assert marked["comparable"] is False and marked["dataset"] == "custom"


def generated(folder, tmp_path, *argv):
    argv = ["--load_weight_dir", str(folder), "--output_dir", str(tmp_path), *argv]
    assert eval_genresult.main(argv) == 0
    with np.load(tmp_path / "generated.npz") as archive:
        return archive["images"]


def test_the_first_digits_of_a_seed_are_the_same_for_any_num(trained, tmp_path):
    some = generated(trained, tmp_path, "--num", "7")
    many = generated(trained, tmp_path, "--num", "2003")
    assert some.shape == (7, 28, 28) and many.shape == (2003, 28, 28) and many.dtype == np.uint8
    np.testing.assert_array_equal(some, many[:7])
    assert (many[:1000] != many[1000:2000]).any()
    assert (generated(trained, tmp_path, "--num", "7", "--seed", "1") != some).any()
    cold = generated(trained, tmp_path, "--num", "7", "--temperature", "0", "--prior", "standard")
    assert (cold == cold[0]).all() and (some != some[0]).any()


def test_digits_come_from_the_prior_and_of_the_class_that_was_asked_for(trained, tmp_path, capsys):
    """Asked for by class, digits are what the encoder's own prior names; elsewhere it is as often
    as in the training images."""
    many = ["--num", "1500", "--seed", "3"]
    fitted = generated(trained, tmp_path, *many)
    assert "1,500 draws of the fitted prior" in capsys.readouterr().out
    standard = generated(trained, tmp_path, *many, "--prior", "standard")
    assert "1,500 draws of z ~ N(0, I)" in capsys.readouterr().out
    with np.load(tmp_path / "generated.npz") as archive:
        assert archive["prior"] == "standard" and set(archive.files) == {"images", "prior"}
    assert (fitted != standard).any()
    asked = generated(trained, tmp_path, *many, "--digit", "6", "0", "1")
    with np.load(tmp_path / "generated.npz") as archive:
        assert archive["prior"] == "fitted"
        np.testing.assert_array_equal(archive["labels"], np.resize([6, 0, 1], 1500))
    vae, _ = weights.load(str(trained))
    mixture = prior.Mixture(weights.read(str(trained))[1]["prior"])
    mu, _ = evaluation.encoded(vae, asked.reshape(-1, 784))
    agreed = np.mean(mixture.named(mu) == np.resize([6, 0, 1], 1500))
    assert agreed > 0.25  # a small model of two epochs; chance is 0.1
    cold = generated(trained, tmp_path, "--num", "9", "--digit", "4", "--temperature", "0")
    assert len(np.unique(cold, axis=0)) == 1  # one component, whose mean it is


def test_without_a_fitted_prior_the_script_says_why(trained, copy, tmp_path, capsys):
    argv = ["--output_dir", str(tmp_path / "none"), "--load_weight_dir"]
    flags = {
        "draws digits by class from its fitted prior": ["--digit", "1", "--prior", "standard"],
        "has seen no digit 77": ["--digit", "1", "77"],
    }
    for line, wrong in flags.items():
        assert eval_genresult.main([*argv, str(trained), *wrong]) == 2
        assert line in last_line(capsys.readouterr().err)
    members = zipfile_members(copy / "vae.keras")
    del members["prior.npz"]
    run = json.loads(members["run.json"]) | {"prior": {"gain": None, "why": "too few images"}}
    run["members"] = list(members)
    with zipfile.ZipFile(copy / "vae.keras", "w") as archive:
        for name, content in (members | {"run.json": json.dumps(run)}).items():
            archive.writestr(name, content)
    assert eval_genresult.main([*argv, str(copy), "--digit", "1"]) == 2
    assert "has no fitted prior (too few images)" in last_line(capsys.readouterr().err)
    assert not (tmp_path / "none").exists()
    assert eval_genresult.main([*argv, str(copy)]) == 0
    assert "draws of z ~ N(0, I)" in capsys.readouterr().out


@pytest.fixture
def drawn(monkeypatch):
    """What each function of pictures.py was given, by the name of the picture; it is drawn, too."""
    from support import pictures, report

    given = {}

    def spy(function):
        def draw(path, *args):
            given[os.path.basename(path)] = args
            return function(path, *args)

        return draw

    for room, name in ((pictures, "digits"), (report, "draw")):
        monkeypatch.setattr(room, name, spy(getattr(room, name)))
    return given


def is_picture(path):
    from matplotlib import image

    return image.imread(path).shape[:2] > (200, 400)


def test_interpolations_end_in_the_draws_they_join(trained, tmp_path, drawn):
    digits = generated(trained, tmp_path, "--interpolate", "--num", "20").reshape(10, 2, 784)
    rows = np.stack([images for _, images, _ in drawn["interpolate.png"][1]])
    for end, column in ((0, 0), (1, -1)):
        off = np.abs(rows[:, column].astype(int) - digits[:, end])
        assert off.max() <= 1  # of 255: another batch size may round otherwise
    assert (rows[:, 5] != rows[:, 0]).any() and is_picture(tmp_path / "interpolate.png")
    a, b = np.array([3.0, 0.0]), np.array([0.0, 3.0])
    middle = eval_genresult.along_sphere(a, b, 0.5)
    np.testing.assert_allclose(middle, [4.5**0.5] * 2)  # as far from the origin as its ends
    np.testing.assert_allclose(eval_genresult.along_sphere(a, 2 * a, 0.25), 1.25 * a)


def test_a_traversal_changes_one_dimension_at_a_time(trained, tmp_path, drawn):
    generated(trained, tmp_path, "--traverse")
    rows = drawn["traverse.png"][1]
    rows_of = np.stack([images for _, images, _ in rows])
    assert len(rows) == 4  # all latent dimensions of the small model
    # Where a walk passes its start it shows nearly the same digit in each row.
    at_start = rows_of[range(4), [texts.index("start") for *_, texts in rows]].astype(int)
    assert np.abs(at_start - at_start[0]).mean() < np.abs(rows_of - at_start[:, None]).mean()
    change = np.abs(rows_of[:, 0].astype(int) - rows_of[:, -1]).max(axis=1)
    assert (change > 0).all()
    most = int(np.argmax(weights.read_run(str(trained))["posterior"]["KLD"]))
    assert rows[0][0].startswith(f"z[{most}], ") and is_picture(tmp_path / "traverse.png")


def test_a_manifold_shows_every_corner_of_a_flat_latent(trained, tmp_path, drawn, capsys):
    flat = ["--dataset", "digits", "--hidden_units", "16", "--latent_dim", "2", "--epoch", "2"]
    folders = ["--save_weight_dir", str(tmp_path / "w"), "--log_dir", str(tmp_path / "l")]
    assert train_script.main([*flat, *folders]) == 0
    generated(tmp_path / "w", tmp_path, "--manifold")
    _, rows, columns, *_ = drawn["manifold.png"]
    images = np.stack([images for _, images, _ in rows])
    assert images.shape == (20, 20, 784)
    corners = images[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert len(np.unique(corners, axis=0)) == 4 and is_picture(tmp_path / "manifold.png")
    # The inverse normal of 0.5 / 20: scipy's, by another function.
    from scipy.stats import norm

    assert columns[0] == f"{norm.ppf(0.025):+.1f}" and rows[-1][0].endswith(columns[0])
    capsys.readouterr()
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path / "none")]
    assert eval_genresult.main([*argv, "--manifold"]) == 2
    assert "--manifold shows a z of two dimensions" in last_line(capsys.readouterr().err)
    assert not (tmp_path / "none").exists()


def test_a_closer_look_says_what_the_figures_say(trained, tmp_path, drawn):
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path)]
    looks = ["--report", "--nll_samples", "20"]
    assert eval_script.main([*argv, *looks]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    _, images, labels, figures, points, _, _, kld, active = drawn["report.png"]
    elbo = figures["loss_total"]
    assert len(kld) == 4 and sum(kld) == pytest.approx(metrics["loss_KLD"], rel=1e-4)
    assert len(active) == metrics["active_units"] and images.shape == (300, 784)
    assert np.mean(elbo) == pytest.approx(metrics["loss_total"], rel=1e-5)
    assert points.shape == (300, 2) and set(labels) == set(range(10))
    assert 0.2 < metrics["probe_accuracy"] <= 1  # chance is 0.1
    assert 0 < metrics["nll"] < metrics["loss_total"] + 5
    # Under a better prior both are better.
    assert metrics["nll_fitted"] < metrics["nll"]
    assert metrics["loss_total_fitted"] < metrics["loss_total"]
    test, (vae, _) = data.load("digits").test, weights.load(str(trained))
    mixture = prior.Mixture(weights.read(str(trained))[1]["prior"])
    right = mixture.named(evaluation.encoded(vae, test.images)[0]).numpy() == test.labels
    assert metrics["prior_accuracy"] == pytest.approx(right.mean()) and right.mean() > 0.12
    assert is_picture(tmp_path / "report.png")


def test_ones_own_digits_are_laid_out_and_judged(trained, tmp_path, capsys):
    """A digit saved as a picture gives the figures of its array, and so does its negative."""
    from PIL import Image

    from support import layout

    digits = np.load(data.CARRIED)["x_test"]
    pictures_of = {"it.png": digits[0], "negative.png": 255 - digits[0]}
    large = np.pad(255 - np.kron(digits[0], np.ones((9, 9), np.uint8)), 40, constant_values=255)
    pictures_of["large.png"] = large
    for name, array in pictures_of.items():
        Image.fromarray(array).save(tmp_path / name)
    colour = Image.fromarray(large).convert("RGBA")
    colour.putalpha(Image.fromarray(np.where(large < 255, np.uint8(255), np.uint8(0))))
    colour.save(tmp_path / "transparent.png")
    names = [*pictures_of, "transparent.png"]
    _, laid_out = layout.read([str(tmp_path / name) for name in names])
    np.testing.assert_array_equal(laid_out[:2], np.stack([digits[0].reshape(784)] * 2))
    for image in laid_out[2:]:
        error = image.astype(float) - digits[0].reshape(784)
        assert np.sqrt(np.mean(error**2)) < 0.1 * 255
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path), "--images"]
    assert eval_script.main([*argv, *(str(tmp_path / name) for name in names)]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())["own_images"]
    vae, _ = weights.load(str(trained))
    for image, name, pixels in zip(found, names, laid_out, strict=True):
        expected = evaluation.evaluator(vae, 0)(pixels[None])
        assert image["file"] == name and image["loss_total"] == expected["loss_total"][0]
        assert image["RMSE_mean"] == expected["RMSE_mean"][0]
    assert found[0] == found[1] | {"file": "it.png"}  # to the last bit
    assert is_picture(tmp_path / "own.png")
    assert "share of test images with a worse -ELBO" in capsys.readouterr().out


def bomb(path):
    """A PNG of 30,000 by 30,000 pixels in a megabyte."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS, kept = None, Image.MAX_IMAGE_PIXELS
    Image.new("1", (30_000, 30_000)).save(path, "png")
    Image.MAX_IMAGE_PIXELS = kept


NO_DIGITS = {
    "missing": (lambda path: None, "does not exist"),
    "text": (lambda path: path.write_text("no picture"), "no format that Pillow knows"),
    "a folder": (lambda path: path.mkdir(), "not a regular file"),
    "a bomb": (bomb, "exceeds limit"),
    "large": (lambda path: image_file(path, np.zeros((8000, 8000), np.uint8)), "50 million"),
    "a page": (lambda path: image_file(path, np.full((99, 99), 250, np.uint8)), "of one colour"),
    "cut": (lambda path: cut_image(path), "cannot be read as a picture (image file is truncated"),
    "not finite": (lambda path: tiff(path, np.full((30, 30), np.nan)), "that are not finite"),
    "dust": (lambda path: image_file(path, dust()), "nothing but dust"),
}


def image_file(path, array):
    from PIL import Image

    Image.fromarray(array).save(path, "png")


def tiff(path, array):
    from PIL import Image

    Image.fromarray(array.astype(np.float32)).save(path, "tiff")


def dust():
    page = np.full((3000, 3000), 255, np.uint8)
    page[10, 10] = page[2990, 2990] = 0
    return page


def cut_image(path):
    image_file(path, np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize("name", NO_DIGITS)
def test_what_shows_no_digit_is_one_line(trained, tmp_path, capsys, name):
    make, line = NO_DIGITS[name]
    make(tmp_path / "picture")
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path / "none")]
    assert eval_script.main([*argv, "--images", str(tmp_path / "picture")]) == 2
    said = capsys.readouterr().err
    assert line in said and len(said.splitlines()) == 1
    assert said.startswith("eval.py: error: --images: ") and not (tmp_path / "none").exists()


def test_a_run_in_progress_is_evaluated_by_its_newest_save(trained, copy, tmp_path, capsys):
    """The same figures as the finished file of the same step, marked."""
    (copy / "checkpoint").mkdir()
    members = zipfile_members(copy / "vae.keras")
    run = json.loads(members["run.json"]) | {"posterior": None}
    save = copy / "checkpoint" / "step-000000024.keras"
    with zipfile.ZipFile(save, "w") as archive:
        for name, content in (members | {"run.json": json.dumps(run)}).items():
            archive.writestr(name, content)
    (copy / "vae.keras").unlink()
    argv = ["--output_dir", str(tmp_path / "out"), "--load_weight_dir"]
    assert eval_script.main([*argv, str(trained)]) == 0
    finished = json.loads((tmp_path / "out" / "metrics.json").read_text())
    capsys.readouterr()
    assert eval_script.main([*argv, str(copy)]) == 0
    assert "A run in progress: the weights of step 24" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found == finished | {"finished": False}
    assert eval_genresult.main([*argv, str(save), "--traverse"]) == 2
    assert "needs a finished run" in last_line(capsys.readouterr().err)


WRONG_FLAGS = [
    ("train.py", ["--batch", "0"], "--batch"),
    ("train.py", ["--latent_dim", "-1"], "--latent_dim"),
    ("train.py", ["--learning_rate", "nan"], "--learning_rate"),
    ("train.py", ["--epoch", "1.5"], "--epoch"),
    ("train.py", ["--data_dir", "nowhere"], "--data_dir: nowhere does not exist"),
    ("train.py", ["--dataset", "digits", "--data_dir", "here"], "--data_dir: here has no use"),
    ("eval.py", ["--batch", "many"], "--batch"),
    ("eval_genresult.py", ["--num", "0"], "--num"),
    ("train.py", ["--warp", "4.5"], "--warp"),
    ("train.py", ["--elbo_samples", "2000000"], "--elbo_samples"),
    ("train.py", ["--epochs", "5"], "did you mean --epoch?"),
    ("train.py", ["--lr=1e-3"], "did you mean --learning_rate?"),
    ("train.py", ["--batch_size", "5"], "did you mean --batch?"),
    ("train.py", ["--latent", "5"], "did you mean --latent_dim?"),
    ("train.py", ["--weight_deacy", "5"], "did you mean --weight_decay?"),
    ("eval.py", ["--lr", "5"], "is not a flag of eval.py: see --help"),
    ("train.py", ["--strategy", "multi_worker"], "needs the environment variable TF_CONFIG"),
    ("eval_genresult.py", ["--temperature", "-1"], "--temperature"),
    ("eval_genresult.py", ["--load_weight_dir", "nowhere"], "nowhere does not exist"),
]


@pytest.mark.parametrize("script, argv, says", WRONG_FLAGS)
def test_wrong_flags_cost_one_line(tmp_path, monkeypatch, capsys, script, argv, says):
    monkeypatch.chdir(tmp_path)
    module = __import__(script[:-3])
    assert module.main(argv) == 2
    captured = capsys.readouterr().err
    assert captured.startswith(f"{script}: error: ") and says in captured
    assert captured.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_folder_that_cant_be_written(trained, tmp_path, capsys):
    """A file stands where a folder should be made: refused for root as well."""
    (tmp_path / "file").write_text("mine")
    place = str(tmp_path / "file" / "out")
    for script, flag in ((eval_script, "--output_dir"), (eval_genresult, "--output_dir")):
        assert script.main(["--load_weight_dir", str(trained), flag, place]) == 2
        line = last_line(capsys.readouterr().err)
        assert f"{place} cannot be written" in line
    for flag in ("--save_weight_dir", "--log_dir"):
        folders = ["--save_weight_dir", str(tmp_path / "w"), "--log_dir", str(tmp_path / "l")]
        assert train_script.main([*SMALL, *folders, flag, place]) == 2
        assert f"{place} cannot be written" in last_line(capsys.readouterr().err)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "script, argv",
    [
        ("train.py", ["--dataset", "mnist"]),
        ("eval.py", ["--load_weight_dir", "nowhere"]),
        ("eval_genresult.py", ["--load_weight_dir", "nowhere"]),
    ],
)
def test_an_error_as_a_process(tmp_path, script, argv):
    run = run_script(script, *argv, cwd=tmp_path, KERAS_HOME=str(tmp_path), **OFFLINE)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and run.stderr.startswith(f"{script}: error: ")


@pytest.mark.parametrize(
    "closed", ["12", *(pytest.param(one, marks=pytest.mark.slow) for one in "012")]
)
def test_closed_streams_and_a_strange_keras_json_change_nothing(trained, tmp_path, closed):
    (tmp_path / "keras.json").write_text(
        '{"floatx": "float16", "backend": "torch", "image_data_format": "channels_first"}'
    )
    command = [sys.executable, os.path.join(ROOT, "eval_genresult.py")]
    command += ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path / "out")]
    redirected = " ".join(f"{stream}>&-" for stream in closed)
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    shell = f"exec {' '.join(command)} {redirected}"
    run = subprocess.run(["sh", "-c", shell], env=environment, capture_output=True, timeout=100)
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "out" / "generated.npz") as archive:
        found = archive["images"]
    np.testing.assert_array_equal(found, generated(trained, tmp_path, "--num", "100"))


def test_a_path_that_is_no_utf8_costs_one_line(trained, tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff"
    command = [sys.executable, os.path.join(ROOT, "eval_genresult.py"), "--output_dir", folder]
    run = subprocess.run(command, capture_output=True, timeout=100)
    assert run.returncode == 2 and b"--output_dir is not valid UTF-8" in run.stderr
    assert run.stderr.count(b"\n") == 1


def test_output_that_nobody_reads_costs_one_line():
    """As under `| head`, of a script that prints more than a pipe holds."""
    toy = "import sys; from support import cli; toy = lambda: cli.Parser('toy', 'a toy')\n"
    toy += "sys.exit(cli.script(toy)(lambda args: print('a line\\n' * 100_000))([]))"
    with subprocess.Popen(
        [sys.executable, "-c", toy],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        run.stdout.readline()
        run.stdout.close()
        said = run.stderr.read()
    assert run.returncode == 2
    assert said == "toy: error: Broken pipe: whoever read the output has gone\n"


def test_figures_that_are_not_finite_cost_one_line(copy, tmp_path, capsys):
    vae, run = weights.load(str(copy))
    bias = vae.encoder.get_layer("mu_and_log_var").bias
    bias.assign(bias + 300.0)
    weights.write(str(copy / weights.FINISHED), vae, run)
    assert eval_script.main(["--load_weight_dir", str(copy), "--output_dir", str(tmp_path)]) == 2
    assert "figures of these weights are not finite" in last_line(capsys.readouterr().err)
