"""support/storage/weights.py: the newest valid weights, and the same file loaded by Keras alone."""

import dataclasses
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from support.errors import UserError
from support.storage import validation, weights, weights_file
from tests.helpers import ROOT, arrays_of
from tests.storage.examples import RECORD, new_vae


def test_weights_come_back_as_the_model_that_was_saved(tmp_path):
    vae = new_vae(seed=3)
    weights_file.write(str(tmp_path / "vae.keras"), vae, RECORD)
    images = np.random.default_rng(0).random((5, 784), np.float32)
    for where in (tmp_path, tmp_path / "vae.keras"):
        loaded, record = weights.load(str(where))
        assert record == RECORD and loaded.latent_dim == 2
        for part, expected in zip(loaded.encode(images), vae.encode(images), strict=True):
            np.testing.assert_array_equal(part, expected)
        z = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
        np.testing.assert_array_equal(loaded.decode(z), vae.decode(z))
    decoder = weights.build_decoder(weights.read(str(tmp_path), ("decoder",)))
    np.testing.assert_array_equal(decoder(z), vae.decode(z))


def test_a_folder_without_weights_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    (tmp_path / "file.h5").write_text("x")
    for name, says in (
        ("nowhere", "does not exist"),
        ("nowhere.keras", "does not exist"),
        ("empty", "holds no weights"),
        ("old", "of an older version"),
        ("file.h5", "neither a weights folder nor a .keras file"),
    ):
        with pytest.raises(UserError, match=rf"{name}.* {says}"):
            weights.read(str(tmp_path / name))
    assert weights.read_record(str(tmp_path / "empty")) is None
    assert weights.read_record(str(tmp_path / "nowhere")) is None


@pytest.fixture
def saves(tmp_path):
    """A folder with the saves of steps 1 to 3, and their paths."""
    (tmp_path / "checkpoint").mkdir()
    paths = []
    for step in (1, 2, 3):
        paths.append(weights_file.save_path(str(tmp_path), step))
        record = dataclasses.replace(RECORD, step=step)
        weights_file.write(paths[-1], new_vae(step), record, training={"a": np.zeros(1)})
    return paths


def test_the_newest_save_counts_until_a_finished_file_is_there(saves, tmp_path):
    assert weights.read_record(str(tmp_path)).step == 3
    assert weights.read(str(tmp_path)).record.step == 3
    assert weights.read(saves[0]).record.step == 1
    shutil.copy(saves[0], tmp_path / "vae.keras")
    assert weights.read_record(str(tmp_path)).step == 1
    # A damaged finished file is never silently skipped.
    os.truncate(tmp_path / "vae.keras", 3000)
    with pytest.raises(UserError, match=r"vae.keras is damaged"):
        weights.read(str(tmp_path))


def test_a_damaged_save_gives_way_to_the_one_before_with_a_notice(saves, tmp_path, capsys):
    os.truncate(saves[2], 3000)
    assert weights.read(str(tmp_path)).record.step == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith(f"Notice: {saves[2]} is damaged")
    assert captured.err.endswith("); the previous save is used instead.\n")
    assert "restore" not in captured.err
    assert weights.read_record(str(tmp_path)).step == 2
    assert capsys.readouterr().err == ""
    os.truncate(saves[1], 3000)
    os.truncate(saves[0], 3000)
    with pytest.raises(UserError, match=r"step-000000001.keras is damaged"):
        weights.read(str(tmp_path))
    assert capsys.readouterr().err.count("Notice") == 2


def test_a_save_that_vanishes_while_it_is_looked_for_is_looked_for_again(
    copy, tmp_path, monkeypatch
):
    """The run finishes between the listing of its saves and the opening of one."""
    expected = arrays_of(copy)
    (copy / weights_file.CHECKPOINTS).mkdir()
    save = copy / weights_file.CHECKPOINTS / "step-000000012.keras"
    os.rename(copy / weights_file.FINISHED, save)
    opened = []
    open_regular = validation.files.open_regular

    def slow(path):
        if not opened:
            os.rename(save, copy / weights_file.FINISHED)
        opened.append(path)
        return open_regular(path)

    monkeypatch.setattr(validation.files, "open_regular", slow)
    for value, other in zip(arrays_of(copy), expected, strict=True):
        np.testing.assert_array_equal(value, other)
    assert len(opened) == 2


def test_a_folder_that_never_stands_still_is_given_up_on(saves, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PAUSE_SECONDS", 0)
    tried = []

    def vanished(path, *_):
        tried.append(path)
        raise FileNotFoundError

    monkeypatch.setattr(validation, "read", vanished)
    with pytest.raises(UserError, match="changes faster than it can be read"):
        weights.read(str(tmp_path))
    assert len(tried) == 3 * weights.ATTEMPTS


KERAS_ALONE = """
import sys
import keras, numpy as np
vae = keras.saving.load_model("vae.keras")
images = np.load("images.npy")
q = vae(images)
decoder = vae.get_layer("decoder")
logits = decoder(np.load("z.npy"))
found = {name: keras.ops.convert_to_numpy(value) for name, value in q.items()}
np.savez("found.npz", decoded=keras.ops.convert_to_numpy(logits), **found)
assert ("tensorflow" in sys.modules) == (keras.backend.backend() == "tensorflow")
assert not {"model", "support", "data"} & set(sys.modules)
"""


@pytest.mark.parametrize("backend", [pytest.param("tensorflow", marks=pytest.mark.slow), "numpy"])
def test_keras_loads_the_file_elsewhere(trained, tmp_path, backend):
    """In an empty folder, without this repository, it gives the same numbers as this code."""
    shutil.copy(trained / weights_file.FINISHED, tmp_path)
    random = np.random.default_rng(0)
    images = random.random((7, 784), np.float32)
    z = random.normal(size=(7, 4)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "z.npy", z)
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    environment["KERAS_BACKEND"] = backend
    run = subprocess.run(
        [sys.executable, "-c", KERAS_ALONE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    vae, _ = weights.load(str(trained))
    mu, log_var = vae.encode(images)
    expected = {"mu": mu, "log_var": log_var, "logits": vae.decode(mu), "decoded": vae.decode(z)}
    with np.load(tmp_path / "found.npz") as found:
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("folder", ["better_weight", "better_weight/latent2"])
def test_committed_weights_reconstruct_the_digits_that_come_with_them(folder):
    """Arrays in a wrong order or place would not reconstruct them."""
    vae, _ = weights.load(os.path.join(ROOT, folder))
    with np.load(os.path.join(ROOT, "better_weight", "mnist_test_100.npz")) as archive:
        images = archive["x_test"].reshape(-1, 784) / np.float32(255)
    mu, _ = vae.encode(images)
    pixels = 1 / (1 + np.exp(-vae.decode(mu).numpy()))
    assert np.sqrt(np.mean((pixels - images) ** 2)) < 0.2  # 0.36 for their mean image
