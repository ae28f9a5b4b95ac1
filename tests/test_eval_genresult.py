"""eval_genresult.py as a user runs it: flags, files, messages, and what the pictures show."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import eval_genresult
from support import files, noise
from support.analysis import fitted_prior, metrics
from support.display import animation, plots
from support.storage import weights
from tests import pixels
from tests.helpers import OFFLINE, ROOT, last_line, run_script

STEP = plots.SCALE * (28 + plots.GAP)
BETTER_WEIGHT = os.path.join(ROOT, "better_weight")


def generated(folder, tmp_path, *argv):
    """Runs the script in this process; returns the images in generated.npz."""
    argv = ["--load_weight_dir", str(folder), "--output_dir", str(tmp_path), *argv]
    assert eval_genresult.main(argv) == 0
    with np.load(tmp_path / "generated.npz") as archive:
        return archive["images"]


def test_pretrained_weights_generate_from_any_folder(tmp_path):
    """The default weights are beside the script: no flags, data or internet connection needed."""
    environment = {**OFFLINE, "KERAS_HOME": str(tmp_path / "keras"), "KERAS_BACKEND": "jax"}
    run = run_script("eval_genresult.py", cwd=tmp_path, **environment)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    assert run.stdout == (
        "Importing TensorFlow ...\n"
        "Wrote generated.npz, generated.png to ./result: 100 samples from the fitted prior.\n"
    )
    with np.load(tmp_path / "result" / "generated.npz") as archive:
        assert archive["images"].shape == (100, 28, 28) and archive["images"].max() > 200


def test_the_first_digits_of_a_seed_are_the_same_for_any_num(trained, tmp_path):
    some = generated(trained, tmp_path, "--num", "7")
    many = generated(trained, tmp_path, "--num", "2003")
    assert some.shape == (7, 28, 28) and many.shape == (2003, 28, 28) and many.dtype == np.uint8
    np.testing.assert_array_equal(some, many[:7])
    assert (many[:1000] != many[1000:2000]).any()
    assert (generated(trained, tmp_path, "--num", "7", "--seed", "1") != some).any()
    cold = generated(trained, tmp_path, "--num", "7", "--temperature", "0", "--prior", "standard")
    assert (cold == cold[0]).all() and (some != some[0]).any()


def test_generated_png_shows_the_first_digits_in_order(tmp_path):
    images = generated(BETTER_WEIGHT, tmp_path, "--num", "101")
    picture = pixels.grey(tmp_path / "generated.png")
    origin = pixels.place(picture, images[0])
    for number in (1, 9, 10, 47, 99):
        expected = origin + np.array([STEP * (number // 10), STEP * (number % 10)])
        np.testing.assert_allclose(pixels.place(picture, images[number]), expected, atol=1)
    assert not pixels.is_shown(picture, images[100])


def test_digits_are_of_the_class_that_was_asked_for(tmp_path, capsys):
    """The encoder confirms it. Without a given class, all are about as frequent as in MNIST."""
    many = ["--num", "300", "--seed", "3"]
    fitted = generated(BETTER_WEIGHT, tmp_path, *many)
    assert ": 300 samples from the fitted prior.\n" in capsys.readouterr().out
    with np.load(tmp_path / "generated.npz") as archive:
        fitted_labels = archive["labels"]
    standard = generated(BETTER_WEIGHT, tmp_path, *many, "--prior", "standard")
    assert ": 300 samples from N(0, I).\n" in capsys.readouterr().out
    with np.load(tmp_path / "generated.npz") as archive:
        assert archive["prior"] == "standard"
        assert archive.files == ["images", "prior", "run_id", "seed"]
        assert archive["seed"] == 3
        assert archive["run_id"] == weights.read_record(BETTER_WEIGHT).run_id
    assert (fitted != standard).any()
    asked = generated(BETTER_WEIGHT, tmp_path, *many, "--digit", "6", "0", "1")
    assert ": 300 samples from the fitted prior, digits 6 0 1.\n" in capsys.readouterr().out
    with np.load(tmp_path / "generated.npz") as archive:
        assert archive["prior"] == "fitted"
        labels = archive["labels"]
    np.testing.assert_array_equal(labels, np.resize([6, 0, 1], 300))
    found = weights.read(BETTER_WEIGHT)
    vae, mixture = weights.build(found), fitted_prior.Mixture(found.prior)
    predicted, _ = mixture.classify(metrics.encode(vae, asked.reshape(-1, 784))[0])
    assert np.mean(predicted == labels) > 0.9
    predicted, _ = mixture.classify(metrics.encode(vae, fitted.reshape(-1, 784))[0])
    assert np.bincount(predicted, minlength=10).min() > 10
    assert fitted_labels.shape == (300,) and np.mean(predicted == fitted_labels) > 0.9
    cold = generated(BETTER_WEIGHT, tmp_path, "--num", "30", "--digits", "4", "--temperature", "0")
    # They are the means of the components, of which a class has at most ten.
    assert 1 < len(np.unique(cold, axis=0)) <= 10
    assert "digits 4, temperature 0.\n" in capsys.readouterr().out


def test_png_files_are_the_images_with_their_labels(tmp_path, capsys):
    images = generated(BETTER_WEIGHT, tmp_path, "--num", "12", "--png")
    assert "Wrote generated.npz, generated.png, png/ to" in capsys.readouterr().out
    with np.load(tmp_path / "generated.npz") as archive:
        labels = archive["labels"]
    assert len(set(labels)) > 3
    names = [f"{number:06}_{label}.png" for number, label in enumerate(labels)]
    assert sorted(os.listdir(tmp_path / "png")) == [*names, "about.json"]
    for name, image in zip(names, images, strict=True):
        # As bright on dark as in generated.npz.
        with Image.open(tmp_path / "png" / name) as found:
            np.testing.assert_array_equal(np.asarray(found), image)
    # Without labels, and with nothing left of the command before.
    generated(BETTER_WEIGHT, tmp_path, "--num", "2", "--png", "--prior", "standard")
    assert sorted(os.listdir(tmp_path / "png")) == ["000000.png", "000001.png", "about.json"]
    (tmp_path / "png" / "notes.txt").write_text("mine")
    argv = ["--load_weight_dir", BETTER_WEIGHT, "--output_dir", str(tmp_path), "--png"]
    assert eval_genresult.main(argv) == 2
    assert "did not write (notes.txt)" in last_line(capsys.readouterr().err)


def test_large_output_is_announced_and_refused_without_the_space(tmp_path, monkeypatch, capsys):
    out = tmp_path / "none"
    argv = ["--output_dir", str(out), "--num", "2147483647", "--digit", "3"]
    free = [10**11]
    monkeypatch.setattr(files, "free_bytes", lambda path: free[0])
    assert eval_genresult.main(argv) == 2
    assert last_line(capsys.readouterr().err) == (
        "eval_genresult.py: error: --num 2147483647 takes about 1,685.8 GB, but only 100.0 GB are "
        f"free in {out}: choose a smaller --num or another --output_dir"
    )
    # A PNG takes a block of the disk.
    assert eval_genresult.main([*argv[:3], "30000000", "--png"]) == 2
    assert "takes about 146.4 GB" in capsys.readouterr().err
    assert not out.exists()
    args = eval_genresult.parser().parse_args(["--num", "10000000"])
    for free[0] in (8 * 10**9, None):
        eval_genresult.require_space(args)
        assert capsys.readouterr().out == "Writing about 7.8 GB to ./result ...\n"
    args = eval_genresult.parser().parse_args(["--num", "1000000"])
    eval_genresult.require_space(args)
    assert capsys.readouterr().out == ""


def test_page_without_other_flags_writes_the_page_alone(trained, tmp_path):
    """Without TensorFlow, whose import takes seconds: a module of that name would fail."""
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')")
    argv = ["--load_weight_dir", trained, "--page", "explorer.html"]
    environment = {"PYTHONPATH": str(tmp_path)}
    run = run_script("eval_genresult.py", *argv, cwd=tmp_path, **environment)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    assert run.stdout == "Wrote explorer.html: open it in a browser.\n"
    assert sorted(os.listdir(tmp_path)) == ["explorer.html", "tensorflow.py"]


def test_page_with_another_flag_also_generates(trained, tmp_path):
    page = tmp_path / "explorer.html"
    assert generated(trained, tmp_path, "--page", str(page), "--seed", "0").shape == (100, 28, 28)
    assert page.is_file()


def test_pictures_of_an_earlier_command_are_named(trained, copy, tmp_path, capsys):
    def notice(folder, *argv):
        capsys.readouterr()
        generated(folder, tmp_path / "out", "--num", "2", *argv)
        said = capsys.readouterr().out
        return said.partition("Notice: ")[2].partition(" also holds ")[2].partition(" of an")[0]

    assert notice(trained, "--interpolate", "--gif") == ""
    assert notice(trained, "--traverse", "--png") == ""
    # The samples of another seed, of other flags, of another run.
    assert notice(trained, "--seed", "1") == "interpolate.gif, interpolate.png, traverse.png, png/"
    assert notice(trained, "--png", "--temperature", "0.5") == (
        "interpolate.gif, interpolate.png, traverse.png"
    )
    assert notice(trained) == "png/"
    write_members(copy / "vae.keras", members_of(copy / "vae.keras"), run_id="f" * 32)
    assert notice(copy, "--traverse") == "interpolate.gif, interpolate.png, png/"
    # A file of that name that is no picture of ours is named, and stays.
    (tmp_path / "out" / "manifold.png").write_text("mine")
    assert "manifold.png" in notice(trained)
    assert (tmp_path / "out" / "manifold.png").read_text() == "mine"


def shown_in(path, frame, column):
    """An image in a frame of a GIF, bright on dark, (784,)."""
    with Image.open(path) as film:
        film.seek(frame)
        page = np.asarray(film.convert("L")).astype(float)
    left = animation.EDGE + column * (56 + animation.EDGE)
    return 255 - page[animation.EDGE :, left:][:56:2, :56:2].ravel()


def test_a_gif_moves_from_each_sample_to_the_next_and_returns(tmp_path, capsys):
    argv = ["--digit", *"0123456789", "--num", "10", "--interpolate", "--gif"]
    samples = generated(BETTER_WEIGHT, tmp_path, *argv).reshape(10, 784).astype(float)
    path = tmp_path / "interpolate.gif"
    assert "interpolate.gif" in capsys.readouterr().out and path.stat().st_size < 500_000
    with Image.open(path) as film:
        assert film.n_frames == 100 and film.info["loop"] == 0
    close = 255 / (animation.SHADES - 1)
    for frame, column, sample in ((0, 0, 0), (0, 9, 9), (10, 0, 1), (10, 9, 0), (90, 1, 0)):
        np.testing.assert_allclose(shown_in(path, frame, column), samples[sample], atol=close)
    # It returns as smoothly as it began.
    steps = [
        np.abs(shown_in(path, a, 0) - shown_in(path, b, 0)).mean() for a, b in ((0, 1), (99, 0))
    ]
    assert max(steps) < 5


def test_a_gif_of_a_traversal_goes_there_and_back(tmp_path):
    generated(BETTER_WEIGHT, tmp_path, "--traverse", "--gif", "--num", "1", "--prior", "standard")
    path = tmp_path / "traverse.gif"
    assert path.stat().st_size < 500_000
    vae, record = weights.load(BETTER_WEIGHT)
    mean, deviation, kld = (np.array(column) for column in record.posterior)
    units = np.argsort(-kld)[:10]
    z = np.tile(first_z(128, 1)[0], (10, 1))
    for frame, deviations in ((0, 0), (12, 3), (24, 0), (36, -3)):
        for column in (0, 9):
            moved = z[column].copy()
            moved[units[column]] = mean[units[column]] + deviations * deviation[units[column]]
            expected = decoded(vae, moved[None])[0].astype(float)
            close = 255 / (animation.SHADES - 1)
            np.testing.assert_allclose(shown_in(path, frame, column), expected, atol=close)


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


def test_without_a_fitted_prior_the_script_says_why(trained, copy, tmp_path, capsys):
    argv = ["--output_dir", str(tmp_path / "none"), "--load_weight_dir"]
    wrong_flags = {
        "can generate digits by class only from its fitted prior: leave out --digit, or --prior "
        "standard": [
            "--digit",
            "1",
            "--prior",
            "standard",
        ],
        "was not trained on class 77: choose from 0 1 2 3 4 5 6 7 8 9": [
            "--digit",
            "1",
            "77",
        ],
        "has no class '256': choose from whole numbers from 0 to 255": ["--digit", "256"],
        "has no class '3,4': separate the values with blanks, 3 4": ["--digit", "3,4"],
        "has no class 'two': choose from whole numbers from 0 to 255": ["--digit", "1", "two"],
    }
    for line, wrong in wrong_flags.items():
        assert eval_genresult.main([*argv, str(trained), *wrong]) == 2
        assert last_line(capsys.readouterr().err) == f"eval_genresult.py: error: {trained} {line}"
    members = members_of(copy / "vae.keras")
    del members["prior.npz"]
    reason = {"gain": None, "why": "too few images"}
    write_members(copy / "vae.keras", members, prior=reason)
    for flags in (["--digit", "1"], ["--prior", "fitted"]):
        assert eval_genresult.main([*argv, str(copy), *flags]) == 2
        line = last_line(capsys.readouterr().err)
        assert f"has no fitted prior (too few images): leave out {flags[0]}" in line
    assert not (tmp_path / "none").exists()
    assert eval_genresult.main([*argv, str(copy)]) == 0
    assert "samples from N(0, I)" in capsys.readouterr().out


def first_z(latent_dim, count):
    """The first samples from N(0, I) for seed 0."""
    return noise.normal([1000, latent_dim], 0, noise.GENERATION, 0).numpy()[:count]


def decoded(vae, z):
    """The images of z (..., latent_dim), decoded in another way than the script does."""
    return tf.cast(tf.round(255 * tf.sigmoid(vae.decoder(z))), tf.uint8).numpy()


def test_an_interpolation_joins_two_samples_over_a_sphere(tmp_path):
    standard = ["--prior", "standard", "--num", "20", "--interpolate"]
    samples = generated(BETTER_WEIGHT, tmp_path, *standard)
    picture = pixels.grey(tmp_path / "interpolate.png")
    origin = pixels.place(picture, samples[0])
    vae, _ = weights.load(BETTER_WEIGHT)
    z = first_z(128, 20).astype(float)
    for pair in (0, 4, 9):
        a, b = z[2 * pair], z[2 * pair + 1]
        angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        middle = (a + b) / 2 / np.cos(angle / 2)
        shown = {0: samples[2 * pair], 10: samples[2 * pair + 1], 5: decoded(vae, middle[None])[0]}
        for column, image in shown.items():
            expected = origin + np.array([STEP * pair, STEP * column])
            np.testing.assert_allclose(pixels.place(picture, image), expected, atol=1)


def test_a_traversal_shows_each_dimension_and_where_it_started(tmp_path):
    samples = generated(BETTER_WEIGHT, tmp_path, "--prior", "standard", "--traverse", "--num", "1")
    picture = pixels.grey(tmp_path / "traverse.png")
    vae, record = weights.load(BETTER_WEIGHT)
    mean, deviation, kld = (np.array(column) for column in record.posterior)
    units = np.argsort(-kld)[:10]
    start = first_z(128, 1)[0]
    assert np.abs(decoded(vae, start[None])[0] - samples[0].reshape(784).astype(int)).max() <= 1
    z = np.tile(start, (10, 11, 1))
    for row, unit in enumerate(units):
        z[row, :, unit] = mean[unit] + np.linspace(-3, 3, 11) * deviation[unit]
    images = decoded(vae, z.reshape(110, -1)).reshape(10, 11, 784)
    origin = pixels.place(picture, images[0, 0])
    # Below each row is a line with marks.
    for row, column in ((0, 10), (1, 3), (4, 9), (9, 0)):
        expected = origin + np.array([(STEP + plots.LINE) * row, STEP * column])
        np.testing.assert_allclose(pixels.place(picture, images[row, column]), expected, atol=1)
    marks = pixels.triangles(tmp_path / "traverse.png")
    assert len(marks) == 10
    for row, (unit, (mark_row, middle)) in enumerate(zip(units, marks, strict=True)):
        top = origin[0] + (STEP + plots.LINE) * row
        assert top + 56 < mark_row < top + STEP + plots.LINE
        column = 5 + (start[unit] - mean[unit]) / deviation[unit] / 0.6
        assert middle == pytest.approx(origin[1] + 28 + column * STEP, abs=3)


def test_a_manifold_shows_z0_to_the_right_and_z1_upwards(trained, tmp_path, capsys):
    folder = os.path.join(BETTER_WEIGHT, "latent2")
    generated(folder, tmp_path, "--manifold")
    picture = pixels.grey(tmp_path / "manifold.png")
    vae, _ = weights.load(folder)
    # The quantiles of N(0, 1) at 0.025, 0.975 and 0.475.
    low, high, middle = -1.959964, 1.959964, -0.062707
    z = np.array([[low, high], [high, high], [low, low], [high, low], [middle, low]], np.float32)
    images = decoded(vae, z)
    origin = pixels.place(picture, images[0])
    cells = [(0, 0), (0, 19), (19, 0), (19, 19), (19, 9)]
    for image, cell in zip(images, cells, strict=True):
        expected = origin + STEP * np.array(cell)
        np.testing.assert_allclose(pixels.place(picture, image), expected, atol=1)
    capsys.readouterr()
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path / "none")]
    assert eval_genresult.main([*argv, "--manifold"]) == 2
    line = last_line(capsys.readouterr().err)
    assert "--manifold needs a two-dimensional z" in line and "has 4 dimensions" in line
    # What the line advises is there: weights that have it, and flags that exist.
    latent2 = os.path.join(BETTER_WEIGHT, "latent2")
    assert f"add --load_weight_dir {latent2}, or train your own: python" in line
    assert "train.py --latent_dim 2 --save_weight_dir weight_2d --log_dir log_2d" in line
    assert not (tmp_path / "none").exists()


def test_a_run_in_progress_has_neither_traversal_nor_page(copy, tmp_path, capsys):
    members = members_of(copy / "vae.keras")
    del members["prior.npz"]
    write_members(copy / "vae.keras", members, posterior=None, prior=None)
    argv = ["--load_weight_dir", str(copy), "--output_dir", str(tmp_path / "out")]
    for flag in (["--traverse"], ["--page", str(tmp_path / "page.html")]):
        assert eval_genresult.main([*argv, *flag]) == 2
        line = last_line(capsys.readouterr().err)
        assert f"{flag[0]} needs the weights of a finished run" in line
    assert eval_genresult.main([*argv, "--digit", "1"]) == 2
    assert "(its run is not finished)" in last_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
    assert eval_genresult.main(argv) == 0


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--num", "0"], "argument --num: expected a whole number from 1"),
        (["--temperature", "-1"], "argument --temperature: expected a number from 0"),
        (["--prior", "any"], "--prior"),
        (["--load_weight_dir", "nowhere"], "nowhere does not exist"),
        (["--num_samples", "5"], "did you mean --num?"),
        (["--gif"], "--gif needs --interpolate or --traverse: add one of them"),
        (["--manifolds"], "did you mean --manifold?"),
    ],
)
def test_wrong_flags_cost_one_line(tmp_path, monkeypatch, capsys, argv, says):
    monkeypatch.chdir(tmp_path)
    assert eval_genresult.main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("eval_genresult.py: error: ") and says in said
    assert said.count("\n") == 1 and not list(tmp_path.iterdir())


def test_an_error_as_a_process(tmp_path):
    run = run_script("eval_genresult.py", "--load_weight_dir", "nowhere", cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("eval_genresult.py: error: ")


def test_a_folder_that_cannot_be_written(trained, tmp_path, capsys):
    """A file is in place of a folder that should be created, which is refused even for root."""
    (tmp_path / "file").write_text("mine")
    place = str(tmp_path / "file" / "out")
    argv = ["--load_weight_dir", str(trained), "--output_dir", place]
    assert eval_genresult.main(argv) == 2
    assert f"{place} cannot be written" in last_line(capsys.readouterr().err)
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path / "out")]
    assert eval_genresult.main([*argv, "--page", os.path.join(place, "page.html")]) == 2
    line = last_line(capsys.readouterr().err)
    assert "--page: " in line and "page.html cannot be written" in line
    assert (tmp_path / "file").read_text() == "mine"


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


def test_control_characters_in_a_folder_reach_no_terminal(trained, tmp_path, capsys):
    folder = tmp_path / "evil\x1b[2J"
    flags = ["--load_weight_dir", str(trained), "--num", "1", "--output_dir", str(folder)]
    assert eval_genresult.main(flags) == 0
    assert eval_genresult.main(["--load_weight_dir", str(folder)]) == 2
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert r"evil\x1b[2J" in captured.out and r"evil\x1b[2J" in captured.err


def test_a_path_that_is_not_utf8_costs_one_line(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff"
    command = [sys.executable, os.path.join(ROOT, "eval_genresult.py"), "--output_dir", folder]
    run = subprocess.run(command, capture_output=True, timeout=100)
    assert run.returncode == 2 and b"--output_dir is not valid UTF-8" in run.stderr
    assert run.stderr.count(b"\n") == 1
