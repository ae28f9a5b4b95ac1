"""The table of latents: its rows, its file, and which files it may replace."""

import os

import numpy as np
import pytest

from support.analysis import latents, own_images
from support.analysis.metrics import Figures
from support.datasets.photos import Digit
from support.datasets.types import Split
from support.errors import UserError

RANDOM = np.random.default_rng(0)


def figures(count, classes=True, fitted=True):
    """Random metrics of `count` images, with z of three dimensions."""
    names = [name for name in latents.METRICS if fitted or name != "loss_total_fitted"]
    return Figures(
        values={name: RANDOM.random(count, np.float32) for name in [*names, "prior_accuracy"]},
        mu=RANDOM.random((count, 3), np.float32),
        log_var=RANDOM.random((count, 3), np.float32),
        predicted_label=RANDOM.integers(0, 256, count).astype(np.uint8) if classes else None,
        probability=RANDOM.random(count, np.float32) if classes else None,
    )


def images(count):
    return RANDOM.integers(0, 256, (count, 784), np.uint8)


def own(path, name):
    digit = Digit(path, name, np.zeros((112, 112), np.uint8), images(1)[0])
    return own_images.compare(digit, digit.pixels, figures(1), np.arange(5.0))


def table_of(name="test", count=4, labels=True, **kwargs):
    labels = np.array([0, 255, 7, 3], np.uint8)[:count] if labels else None
    pixels = images(count)
    return latents.of_split(name, Split(pixels, labels), pixels, figures(count, **kwargs))


def test_a_file_holds_every_row_in_order_and_needs_no_pickle(tmp_path):
    tables = [
        table_of("validation", 2),
        table_of(),
        latents.of_own_images([own("scans/a.png", "a.png"), own("b.jpg", "b.jpg (2 of 3)")]),
    ]
    path = str(tmp_path / "it.npz")
    latents.write(path, latents.joined(tables), ("cat", "dog"))
    with np.load(path) as found:
        assert found["split"].tolist() == ["validation"] * 2 + ["test"] * 4 + ["images"] * 2
        assert found["index"].tolist() == [0, 1, 0, 1, 2, 3, 0, 1]
        assert found["file"].tolist() == [*[""] * 6, "scans/a.png", "b.jpg (2 of 3)"]
        # A label of 255 is not taken for -1.
        assert found["labels"].tolist() == [0, 255, 0, 255, 7, 3, -1, -1]
        assert found["class_names"].tolist() == ["cat", "dog"]
        assert found["mu"].dtype == found["log_var"].dtype == np.float32
        for number in range(3):
            table, rows = tables[number], slice((0, 2, 6)[number], (2, 6, 8)[number])
            for name in ("mu", "log_var", "predicted", "probability"):
                np.testing.assert_array_equal(found[name][rows], getattr(table, name))
            for name in latents.METRICS:
                np.testing.assert_array_equal(found[name][rows], table.metrics[name])
        assert "prior_accuracy" not in found and found["predicted"].min() >= 0


def test_a_file_has_no_arrays_of_what_there_is_not(tmp_path):
    table = table_of(labels=False, classes=False, fitted=False)
    latents.write(str(tmp_path / "it.npz"), table)
    with np.load(tmp_path / "it.npz") as found:
        absent = {"labels", "class_names", "predicted", "probability", "loss_total_fitted"}
        assert not absent & set(found) and "loss_total" in found


def test_an_earlier_table_may_be_replaced(tmp_path):
    path = str(tmp_path / "it.NPZ")
    latents.require_replaceable(path)
    latents.require_replaceable(str(tmp_path / "no folder" / "it.npz"))
    open(path, "w").close()
    latents.require_replaceable(path)
    latents.write(path, table_of())
    latents.require_replaceable(path)
    latents.write(path, table_of(count=2))
    assert os.listdir(tmp_path) == ["it.NPZ"] and len(np.load(path)["mu"]) == 2


def other_arrays(path):
    np.savez(path, x_train=np.zeros(3), mu=np.zeros(3))


OTHERS = {
    "another npz": ("it.npz", other_arrays, "does not hold latents that eval.py wrote"),
    "text": ("it.npz", lambda path: path.write_text("PK mine"), "does not hold latents"),
    "a folder": ("it.npz", lambda path: path.mkdir(), "is not a regular file"),
    "a pipe": ("it.npz", os.mkfifo, "is not a regular file"),
    "another name": ("it.keras", lambda path: None, "expected the name of a file that ends in"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_not_a_table_is_not_replaced(tmp_path, what):
    name, make, says = OTHERS[what]
    make(tmp_path / name)
    with pytest.raises(UserError, match=says):
        latents.require_replaceable(str(tmp_path / name))
