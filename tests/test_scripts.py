"""The scripts as a user runs them: processes, exit codes, files, text; and damaged folders."""

import json
import os
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import ROOT, SMALL, files_in, last_line, run_script

import eval as eval_script
import eval_genresult

SCRIPTS = ("train.py", "eval.py", "eval_genresult.py")
# A place without network: the proxy refuses at once.
OFFLINE = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_every_default_without_tensorflow(script):
    code = (
        f"import sys; sys.path.insert(0, {ROOT!r}); module = __import__({script[:-3]!r});"
        "code = module.main(['--help']);"
        "assert not {'tensorflow', 'numpy', 'matplotlib'} & set(sys.modules), 'imported';"
        "sys.exit(code)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    options = re.split(r"\n  (?=--)", shown.stdout)[1:]
    assert len(options) >= 5
    for option in options:
        assert "(default: " in " ".join(option.split()), option


def test_the_whole_way_on_the_embedded_digits(tmp_path):
    """Without network and without MNIST: train, evaluate, generate, and train again."""
    environment = {**OFFLINE, "KERAS_HOME": str(tmp_path / "keras")}
    trained = run_script("train.py", "--epoch", "2", cwd=tmp_path, **environment)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("THIS IS NOT MNIST") == 2  # at the start and beside the results
    lines = [line for line in trained.stdout.splitlines() if line.startswith("Epoch ")]
    assert len(lines) == 2 and "images/s" in lines[0]
    assert trained.stderr == ""
    folder = ["--load_weight_dir", "weight_train"]
    evaluated = run_script("eval.py", *folder, cwd=tmp_path, **environment)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "300 test images of digits" in evaluated.stdout and evaluated.stderr == ""
    generated = run_script("eval_genresult.py", *folder, cwd=tmp_path)
    assert generated.returncode == 0 and generated.stderr == ""
    assert {path.name for path in (tmp_path / "result").iterdir()} == {
        "metrics.json",
        "reconstructions.png",
        "extremes.png",
        "generated.png",
        "generated.npz",
    }
    again = run_script("train.py", "--epoch", "2", cwd=tmp_path, **environment)
    assert again.returncode == 0 and "nothing to do" in again.stdout


def test_pretrained_weights_generate_alone_and_evaluate_where_mnist_is(tmp_path):
    """From a copy of the repository: no flags, no data, no network."""
    for name in os.listdir(ROOT):
        if name.endswith(".py"):
            shutil.copy(os.path.join(ROOT, name), tmp_path)
    shutil.copytree(os.path.join(ROOT, "better_weight"), tmp_path / "better_weight")
    environment = {**OFFLINE, "KERAS_HOME": str(tmp_path / "keras")}
    generated = run_script(str(tmp_path / "eval_genresult.py"), cwd=tmp_path, **environment)
    assert generated.returncode == 0, generated.stderr
    with np.load(tmp_path / "result" / "generated.npz") as archive:
        assert archive["images"].shape == (100, 28, 28) and archive["images"].max() > 200
    evaluated = run_script(str(tmp_path / "eval.py"), cwd=tmp_path, **environment)
    assert evaluated.returncode == 2 and "Traceback" not in evaluated.stderr
    line = last_line(evaluated.stderr)
    assert line.startswith("eval.py: error: ") and "--data_dir or MNIST_DIR" in line


PRETRAINED = [
    os.path.relpath(folder, ROOT)
    for folder, _, files in os.walk(os.path.join(ROOT, "better_weight"))
    if "config.json" in files
]


@pytest.mark.parametrize("folder", sorted(PRETRAINED))
def test_pretrained_weights_give_the_figures_of_their_model_card(mnist_dir, tmp_path, folder):
    """All but `nll`, which takes minutes; the probe for one folder only, as it takes seconds."""
    argv = ["--load_weight_dir", os.path.join(ROOT, folder), "--data_dir", mnist_dir]
    argv += ["--probe"] if folder == "better_weight" else []
    assert eval_script.main([*argv, "--output_dir", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["dataset"] == "mnist" and metrics["images"] == 10_000 and metrics["comparable"]
    with open(os.path.join(ROOT, folder, "README.md"), encoding="utf-8") as file:
        card = dict(re.findall(r"^\| `(\w+)` \| (-?[\d.]+)", file.read(), re.MULTILINE))
    assert set(card) >= {name for name, _ in eval_script.TABLE if metrics[name] is not None}
    for name, figure in card.items():
        if metrics[name] is not None:
            assert metrics[name] == pytest.approx(float(figure), rel=1e-3, abs=1e-5), name
    if folder == "better_weight":
        assert metrics["RMSE"] < 0.12007759 and metrics["probe_accuracy"] > 0.9


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
    other = [*argv, str(tmp_path / "c"), "--dataset", "mnist", "--data_dir", str(arrays)]
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
    cold = generated(trained, tmp_path, "--num", "7", "--temperature", "0")
    assert (cold == cold[0]).all() and (some != some[0]).any()


@pytest.fixture
def drawn(monkeypatch):
    """What each function of figures.py was given, by the name of the picture; it is drawn, too."""
    import figures

    given = {}

    def spy(function):
        def draw(path, *args):
            given[os.path.basename(path)] = args
            return function(path, *args)

        return draw

    for name in ("grid", "bars", "histogram", "latent_map", "reconstructions"):
        monkeypatch.setattr(figures, name, spy(getattr(figures, name)))
    return given


def is_picture(path):
    from matplotlib import image

    return image.imread(path).shape[:2] > (200, 400)


def test_interpolations_end_in_the_draws_they_join(trained, tmp_path, drawn):
    digits = generated(trained, tmp_path, "--interpolate", "--num", "20").reshape(10, 2, 784)
    rows = drawn["interpolate.png"][0].reshape(10, -1, 784)
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
    images, columns, _, rows, *_ = drawn["traverse.png"]
    rows_of = images.reshape(-1, columns, 784)
    assert len(rows_of) == len(rows) == 4  # all latent dimensions of the small model
    change = np.abs(rows_of[:, 0].astype(int) - rows_of[:, -1]).max(axis=1)
    assert (change > 0).all()
    posterior = json.loads((trained / "config.json").read_text())["posterior"]
    most = int(np.argmax(posterior["KLD"]))
    assert rows[0].startswith(f"z[{most}], ") and is_picture(tmp_path / "traverse.png")


def test_a_manifold_shows_every_corner_of_a_flat_latent(trained, tmp_path, drawn, capsys):
    flat = ["--dataset", "digits", "--hidden_units", "16", "--latent_dim", "2", "--epoch", "2"]
    folders = ["--save_weight_dir", str(tmp_path / "w"), "--log_dir", str(tmp_path / "l")]
    import train as script

    assert script.main([*flat, *folders]) == 0
    generated(tmp_path / "w", tmp_path, "--manifold")
    images, side, _, rows, columns, *_ = drawn["manifold.png"]
    assert side == 20 and images.shape == (400, 784)
    corners = images.reshape(20, 20, 784)[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert len(np.unique(corners, axis=0)) == 4 and is_picture(tmp_path / "manifold.png")
    # The inverse normal of 0.5 / 20: scipy's, by another function.
    from scipy.stats import norm

    assert columns[0] == f"{norm.ppf(0.025):+.1f}" and rows[-1].endswith(columns[0])
    capsys.readouterr()
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path / "none")]
    assert eval_genresult.main([*argv, "--manifold"]) == 2
    assert "--manifold shows a z of two dimensions" in last_line(capsys.readouterr().err)
    assert not (tmp_path / "none").exists()


def test_a_closer_look_says_what_the_figures_say(trained, tmp_path, drawn):
    argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path)]
    looks = ["--latent_map", "--kl_per_unit", "--outliers", "--probe", "--nll_samples", "20"]
    assert eval_script.main([*argv, *looks, "--projector", str(tmp_path / "projector")]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    heights = drawn["kl_per_unit.png"][0]
    assert len(heights) == 4 and sum(heights) == pytest.approx(metrics["loss_KLD"], rel=1e-4)
    values, groups, *_ = drawn["outliers.png"]
    assert np.mean(values) == pytest.approx(metrics["loss_total"], rel=1e-5)
    (_, _, lowest), (_, _, highest) = groups
    assert lowest[0] == values.min() and highest[0] == values.max()
    points, labels, *_ = drawn["latent_map.png"]
    assert points.shape == (300, 2) and set(labels) == set(range(10))
    assert 0.2 < metrics["probe_accuracy"] <= 1  # chance is 0.1
    assert 0 < metrics["nll"] < metrics["loss_total"] + 5
    for name in ("latent_map", "kl_per_unit", "outliers"):
        assert is_picture(tmp_path / f"{name}.png")
    from matplotlib import image

    folder = tmp_path / "projector"
    assert np.loadtxt(folder / "mu.tsv").shape == (300, 4)
    assert np.loadtxt(folder / "labels.tsv").shape == (300,)
    assert image.imread(folder / "digits.png").shape[:2] == (18 * 28, 18 * 28)
    assert "digits.png" in (folder / "projector_config.pbtxt").read_text()


@pytest.mark.parametrize("flag", [["--nll_samples", "5"], ["--outliers"]])
def test_what_only_a_bernoulli_model_has_is_refused_to_others(copy, tmp_path, capsys, flag):
    config = json.loads((copy / "config.json").read_text())
    edit(copy / "config.json", training=config["training"] | {"recon_loss": "l2"})
    argv = ["--load_weight_dir", str(copy), "--output_dir", str(tmp_path / "out"), *flag]
    assert eval_script.main(argv) == 2
    line = last_line(capsys.readouterr().err)
    assert f"{flag[0]}: {copy} was trained with --recon_loss l2" in line
    assert not (tmp_path / "out").exists()


def test_exports_need_nothing_of_this_repository(trained, tmp_path):
    """Loaded by a fresh process elsewhere: the numbers of the repository's own code."""
    folder = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path / "out")]
    assert eval_script.main([*folder, "--export", str(tmp_path / "encoder")]) == 0
    assert eval_genresult.main([*folder, "--export", str(tmp_path / "decoder")]) == 0
    code = (
        "import numpy as np, sys, tensorflow as tf\n"
        "encoder, decoder = tf.saved_model.load('encoder'), tf.saved_model.load('decoder')\n"
        "q = encoder.serve(np.load('images.npy'))\n"
        "np.savez('found.npz', mu=q['mu'], log_var=q['log_var'], out=decoder.serve(q['mu']))\n"
        "assert not {'model', 'weights', 'loop'} & set(sys.modules)\n"
    )
    images = np.random.default_rng(0).random((7, 784), np.float32)
    np.save(tmp_path / "images.npy", images)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    import tensorflow as tf

    import weights

    _, vae = weights.load_vae(str(trained))
    mu, log_var = vae.encode(images)
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["mu"], mu, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["log_var"], log_var, rtol=1e-5, atol=1e-6)
        expected = tf.sigmoid(vae.decode(mu))
        np.testing.assert_allclose(found["out"], expected, rtol=1e-5, atol=1e-6)


def test_an_export_never_replaces_what_is_there(trained, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    for script, flag in (
        (eval_script, "--export"),
        (eval_script, "--projector"),
        (eval_genresult, "--export"),
    ):
        argv = ["--load_weight_dir", str(trained), "--output_dir", str(tmp_path / "out")]
        assert script.main([*argv, flag, str(tmp_path / "mine")]) == 2
        assert f"{flag} {tmp_path / 'mine'} exists already" in last_line(capsys.readouterr().err)
    assert not list((tmp_path / "out").iterdir())
    argv = ["--load_weight_dir", str(trained), "--export", "same", "--projector", "./same"]
    assert eval_script.main(argv) == 2
    assert "name one folder" in last_line(capsys.readouterr().err)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def other_architecture(folder):
    """A config.json whose hash agrees, over weights of another shape."""
    config = folder / "config.json"
    edit(config, architecture={"hidden_units": [16, 32], "latent_dim": 4, "activation": "silu"})


def not_finite(folder):
    import hashlib

    path = folder / "vae.weights.h5"
    with h5py.File(path, "r+") as file:
        found = []
        file.visititems(
            lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None
        )
        for item in found:
            item[...] = np.nan
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(folder / "config.json", weights_sha256=digest)


DAMAGE = {
    "bit": (lambda f: flip(f / "vae.weights.h5"), "is damaged"),
    "truncated": (lambda f: os.truncate(f / "vae.weights.h5", 5000), "is damaged"),
    "missing": (lambda f: (f / "vae.weights.h5").unlink(), "is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), "lacks config.json"),
    "broken config": (lambda f: os.truncate(f / "config.json", 50), "no valid JSON"),
    "unknown key": (lambda f: edit(f / "config.json", surprise=1), "unknown keys"),
    "wrong value": (lambda f: edit(f / "config.json", epochs_done=-1), "epochs_done"),
    "other architecture": (other_architecture, "does not fit the architecture"),
    "not finite": (not_finite, "not finite"),
    "no folder": (shutil.rmtree, "does not exist"),
}


@pytest.mark.parametrize("damage, says", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_folder_costs_one_line(copy, tmp_path, capsys, damage, says):
    damage(copy)
    out = tmp_path / "out"
    for script in (eval_script, eval_genresult):
        argv = ["--load_weight_dir", str(copy), "--output_dir", str(out)]
        assert script.main(argv) == 2
        line = last_line(capsys.readouterr().err)
        assert line.startswith(script.parser().prog) and says in line
    assert not out.exists() or not list(out.iterdir())


def test_a_kill_between_weights_and_config_leaves_a_folder_that_loads(copy, tmp_path, capsys):
    """config.json names the new weights, which still wait under their first name."""
    os.rename(copy / "vae.weights.h5", copy / "vae.pending.weights.h5")
    argv = ["--load_weight_dir", str(copy), "--output_dir", str(tmp_path / "out")]
    assert eval_genresult.main(argv) == 0


WRONG_FLAGS = [
    ("train.py", ["--batch", "0"], "--batch"),
    ("train.py", ["--latent_dim", "-1"], "--latent_dim"),
    ("train.py", ["--learning_rate", "nan"], "--learning_rate"),
    ("train.py", ["--epoch", "1.5"], "--epoch"),
    ("train.py", ["--data_dir", "nowhere"], "--data_dir nowhere does not exist"),
    ("train.py", ["--dataset", "digits", "--data_dir", "here"], "--data_dir here has no use"),
    ("eval.py", ["--batch", "many"], "--batch"),
    ("eval_genresult.py", ["--num", "0"], "--num"),
    ("train.py", ["--warp", "1.5"], "--warp"),
    ("train.py", ["--importance_samples", "0"], "--importance_samples"),
    ("train.py", ["--importance_samples", "2000000"], "--importance_samples"),
    ("eval_genresult.py", ["--temperature", "-1"], "--temperature"),
    ("eval_genresult.py", ["--load_weight_dir", "nowhere"], "--load_weight_dir nowhere"),
]


@pytest.mark.parametrize("script, argv, says", WRONG_FLAGS)
def test_wrong_flags_cost_one_line(tmp_path, monkeypatch, capsys, script, argv, says):
    monkeypatch.chdir(tmp_path)
    module = __import__(script[:-3])
    assert module.main(argv) == 2
    line = last_line(capsys.readouterr().err)
    assert line.startswith(f"{script}: error: ") and says in line
    assert not files_in(tmp_path)


def test_a_folder_that_cant_be_written(trained, tmp_path, capsys):
    """A file stands where a folder should be made: refused for root as well."""
    (tmp_path / "file").write_text("mine")
    place = str(tmp_path / "file" / "out")
    for script, flag in ((eval_script, "--output_dir"), (eval_genresult, "--output_dir")):
        assert script.main(["--load_weight_dir", str(trained), flag, place]) == 2
        line = last_line(capsys.readouterr().err)
        assert f"{flag} {place} can't be written" in line
    import train as script

    for flag in ("--save_weight_dir", "--log_dir"):
        folders = ["--save_weight_dir", str(tmp_path / "w"), "--log_dir", str(tmp_path / "l")]
        assert script.main([*SMALL, *folders, flag, place]) == 2
        assert f"{flag} {place} can't be written" in last_line(capsys.readouterr().err)
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
