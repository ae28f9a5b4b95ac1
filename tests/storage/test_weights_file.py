"""support/storage/weights_file.py: names, places, and one file that is written completely."""

import dataclasses
import io
import json
import zipfile

import h5py
import numpy as np
import pytest

import model
from support import files, records
from support.errors import UserError
from support.storage import validation, weights_file
from tests.storage.examples import PRIOR, RECORD, new_vae, weights_of

TRAINING = {"step": np.int64(24), "sums": np.array([0.5, -1.0])}


def test_the_names_of_a_folder():
    assert weights_file.finished_path("w") == "w/vae.keras"
    assert weights_file.save_path("w", 24) == "w/checkpoint/step-000000024.keras"


def test_saved_steps_are_those_of_names_that_are_exactly_right(tmp_path):
    assert weights_file.saved_steps(str(tmp_path)) == []
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in (
        "step-000000100.keras",
        "step-000000007.keras",
        "step-7.keras",
        "step-000000008.keras.tmp",
        "x-step-000000009.keras",
        "notes.txt",
    ):
        (folder / name).touch()
    assert weights_file.saved_steps(str(tmp_path)) == [7, 100]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "checkpoint").write_text("a file")
    assert weights_file.saved_steps(str(tmp_path / "other")) == []


@pytest.mark.parametrize("hidden, latent", [((9,), 1), ((33, 17, 5), 7), ((8, 8, 8), 3)])
def test_keras_keeps_every_array_where_it_is_expected(tmp_path, hidden, latent):
    vae, path = model.VAE(hidden, latent), tmp_path / "x.keras"
    vae.as_keras_model().save(path)
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read(weights_file.WEIGHTS))
    places = weights_file.places(records.Architecture(hidden, latent, "silu"))
    with h5py.File(content) as file:
        found = [file[place.path][...] for part in ("encoder", "decoder") for place in places[part]]
        arrays = []
        file.visititems(
            lambda name, item: arrays.append(name) if isinstance(item, h5py.Dataset) else None
        )
    for array, variable in zip(found, vae.trainable_variables, strict=True):
        np.testing.assert_array_equal(array, variable.numpy())
    assert sorted(arrays) == sorted(p.path for part in places.values() for p in part)


@pytest.mark.parametrize("training, prior", [(TRAINING, None), (None, PRIOR)])
def test_what_is_written_is_read(tmp_path, training, prior):
    vae, path = new_vae(), str(tmp_path / "x.keras")
    weights_file.write(path, vae, RECORD, training=training, prior=prior)
    found = validation.read(path, training_like=training)
    assert found.record == RECORD
    for value, variable in zip(weights_of(found), vae.trainable_variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())
    if training:
        assert found.prior is None and found.training.keys() == training.keys()
        for name, array in training.items():
            np.testing.assert_array_equal(found.training[name], array)
    else:
        for array, expected in zip(found.prior, PRIOR, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_a_file_is_a_plain_zip_that_lists_its_members(tmp_path):
    path = tmp_path / "x.keras"
    weights_file.write(str(path), new_vae(), RECORD, training=TRAINING)
    with zipfile.ZipFile(path) as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        run = json.loads(archive.read("run.json"))
        members = ["metadata.json", "config.json", "model.weights.h5", "training.npz", "run.json"]
        assert archive.namelist() == run["members"] == members
    assert run["format"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.keras"]


def test_a_record_that_no_reader_would_accept_is_not_written(tmp_path):
    wide = records.Posterior((float("nan"),), (0.0,), (0.0,))
    for wrong in ({"step": -1}, {"posterior": wide}, {"run_id": "A"}):
        with pytest.raises(ValueError):
            weights_file.write(
                str(tmp_path / "x.keras"), new_vae(), dataclasses.replace(RECORD, **wrong)
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "no space"), RuntimeError("Can't write data")])
def test_a_disk_that_is_full_is_one_line(tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(files, "write_whole", full)
    with pytest.raises(UserError, match=r"x.keras cannot be written"):
        weights_file.write(str(tmp_path / "x.keras"), new_vae(), RECORD)


def test_a_check_before_the_commit_keeps_the_file_of_before(tmp_path):
    path = str(tmp_path / "x.keras")
    weights_file.write(path, new_vae(seed=1), RECORD)
    before = (tmp_path / "x.keras").read_bytes()

    def refuse():
        raise UserError("the folder is another one")

    with pytest.raises(UserError, match="another one"):
        weights_file.write(path, new_vae(seed=2), RECORD, before_commit=refuse)
    assert (tmp_path / "x.keras").read_bytes() == before


def test_a_saved_model_needs_no_initializer(tmp_path):
    """Keras 3.13 and 3.14 cannot read the default initializer as 3.15 writes it."""
    path = tmp_path / "x.keras"
    weights_file.write(str(path), new_vae(), RECORD)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    assert "Zeros" in config and "GlorotUniform" not in config
