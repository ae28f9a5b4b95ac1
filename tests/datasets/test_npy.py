"""NumPy's arrays: names of keys and files, types, ranges, shapes, and what is refused."""

import gzip
import io
import os
import re

import numpy as np
import pytest

import data
from support.errors import UserError
from tests.datasets.samples import arrays, npy, promise, strokes, write_npz
from tests.datasets.test_idx import same

X, Y = "x_train", "y_train"


def load(path, **content):
    np.savez(path, **content)
    return data.load("auto", str(path))


KEYS = {
    "keras": ("x_train", "y_train", "x_test", "y_test"),
    "capitals": ("X_train", "Y_train", "X_test", "Y_test"),
    "medmnist": ("train_images", "train_labels", "test_images", "test_labels"),
    "reversed": ("images_train", "labels_train", "images_test", "labels_test"),
    "short": ("Xtr", "ytr", "Xte", "yte"),
    "joined": ("xtrain", "ytrain", "xtest", "ytest"),
    "data": ("train_data", "train_targets", "test_data", "test_targets"),
    "camel": ("trainImages", "trainLabels", "testImages", "testLabels"),
    "positions": ("arr_0", "arr_1", "arr_2", "arr_3"),
    "scikit-learn's order": ("arr_0", "arr_2", "arr_1", "arr_3"),
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS.keys())
def test_names_of_keys(tmp_path, keys):
    content = arrays()
    renamed = dict(zip(keys, content.values(), strict=True))
    same(load(tmp_path / "mine.npz", **renamed), content)


def test_one_part_under_usual_names(tmp_path):
    content = arrays(train=133, test=2)
    for images, labels in (
        ("images", "labels"),
        ("data", "target"),
        ("X", "y"),
        ("arr_0", "arr_1"),
    ):
        loaded = load(tmp_path / "mine.npz", **{images: content[X], labels: content[Y]})
        assert len(loaded.test.images) > 9 and loaded.test.labels is not None


def test_surplus_arrays_are_not_used_and_named(tmp_path):
    content = arrays()
    more = {"x_train_noisy": content[X][::-1], "ids": np.arange(121), "names": np.array(["a", "b"])}
    loaded = load(tmp_path / "mine.npz", **more, **content)
    same(loaded, content)
    unused = "arrays that were not used: x_train_noisy, ids, names"
    assert any(line == unused for line in loaded.notices)


CHANGES = {
    "fortran": np.asfortranarray,
    "flat": lambda x: x.reshape(len(x), 784),
    "flat fortran": lambda x: np.asfortranarray(x.reshape(len(x), 784)),
    "channels last": lambda x: x[..., None],
    "channels first": lambda x: x[:, None],
    "int64": lambda x: x.astype(np.int64),
    "big-endian": lambda x: x.astype(">i4"),
    "0 to 1": lambda x: x / 255,
    "0 to 1, half": lambda x: (x / 255).astype(np.float16),
    "0 to 1, fortran": lambda x: np.asfortranarray((x / np.float32(255)).reshape(len(x), 784)),
    "-1 to 1": lambda x: (x / 127.5 - 1).astype(np.float32),
    "floats to 255": lambda x: x.astype(np.float64),
    "16 bits": lambda x: x.astype(np.uint16) * 257,
    "images last": lambda x: np.moveaxis(x, 0, -1),
    "columns": lambda x: x.reshape(len(x), 784).T,
    "grey as colours": lambda x: np.repeat(x[..., None], 3, axis=-1),
    "grey as colours first": lambda x: np.repeat(x[:, None], 3, axis=1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_images_of_other_types_and_shapes(tmp_path, change):
    content = arrays()
    changed = content | {X: change(content[X]), "x_test": change(content["x_test"])}
    loaded = load(tmp_path / "mine.npz", **changed)
    same(loaded, content)
    scaled = [line for line in loaded.notices if line.startswith("the pixel values")]
    assert bool(scaled) == (changed[X].dtype.kind == "f" or changed[X].dtype == np.uint16)


def test_one_scale_for_all_parts(tmp_path):
    """Test images that are darker than the training images stay darker."""
    content = arrays()
    content["x_test"] = content["x_test"] // 2
    floats = {key: content[key] / 255 for key in (X, "x_test")}
    same(load(tmp_path / "mine.npz", **content | floats), content)


def test_black_and_white(tmp_path):
    content = arrays()
    binary = {key: content[key] > 127 for key in (X, "x_test")}
    expected = content | {key: np.where(array, 255, 0) for key, array in binary.items()}
    loaded = load(tmp_path / "bool.npz", **content | binary)
    same(loaded, expected)
    assert any("type bool" in line for line in loaded.notices)
    whole = {key: array.astype(np.int32) for key, array in binary.items()}
    loaded = load(tmp_path / "whole.npz", **content | whole)
    same(loaded, expected)
    assert any("whole numbers from 0 to 1" in line for line in loaded.notices)


LABELS = {
    "column": lambda y: y[:, None],
    "row": lambda y: y[None],
    "one-hot": lambda y: np.eye(10)[y],
    "one-hot bool": lambda y: np.eye(10, dtype=bool)[y],
    "floats": lambda y: y.astype(float),
    "text": lambda y: y.astype(str),
    "bytes": lambda y: y.astype("S1"),
    "int64": lambda y: y.astype(np.int64),
}


@pytest.mark.parametrize("change", LABELS.values(), ids=LABELS.keys())
def test_labels_of_other_types_and_shapes(tmp_path, change):
    content = arrays()
    changed = content | {Y: change(content[Y]), "y_test": change(content["y_test"])}
    loaded = load(tmp_path / "mine.npz", **changed)
    same(loaded, content)
    assert loaded.class_names == ()


def test_images_of_other_sizes_are_preprocessed(tmp_path):
    labels = np.arange(60) % 10
    for side, ink in ((8, 16), (32, 255), (64, 255)):
        images = strokes(60, side, ink)
        loaded = load(tmp_path / "mine.npz", x_train=images, y_train=labels)
        assert any(f"{side}x{side}" in line for line in loaded.notices)
        square = loaded.train.images.reshape(-1, 28, 28)
        rows, columns = square.any(axis=2).sum(axis=1), square.any(axis=1).sum(axis=1)
        assert (np.maximum(rows, columns) == 20).all() and square.max() == 255
    flat = load(tmp_path / "mine.npz", x_train=images.reshape(60, -1), y_train=labels)
    np.testing.assert_array_equal(flat.train.images, loaded.train.images)
    colours = np.repeat(images[..., None], 3, axis=-1)
    coloured = load(tmp_path / "mine.npz", x_train=colours, y_train=labels)
    np.testing.assert_array_equal(coloured.train.images, loaded.train.images)
    assert any("converted to greyscale" in line for line in coloured.notices)


def test_empty_images_of_other_sizes_are_left_out_with_their_labels(tmp_path):
    images, labels = strokes(60, 32), np.arange(60)
    images[[3, 7]] = 0
    loaded = load(tmp_path / "mine.npz", x_train=images, y_train=labels)
    kept = np.concatenate([split.labels for split in loaded[2:5]])
    assert sorted(kept.tolist()) == [label for label in range(60) if label not in (3, 7)]
    assert any(re.match("blank images .* left out: 2$", line) for line in loaded.notices)
    images[10:20] = 0
    with pytest.raises(UserError, match="12 of 60 images are blank"):
        load(tmp_path / "mine.npz", x_train=images, y_train=labels)


def test_arrays_in_files_of_their_own(tmp_path):
    content = arrays()
    for key, array in content.items():
        np.save(tmp_path / f"{key}.npy", array)
    same(data.load("auto", str(tmp_path)), content)
    same(data.load("auto", str(tmp_path / "y_test.npy")), content)
    for part in ("train", "test"):
        for kind, key in (("images", "x"), ("labels", "y")):
            folder = tmp_path / "by_part" / part
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{kind}.npy", content[f"{key}_{part}"])
            folder = tmp_path / "by_kind" / kind
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{part}.npy", content[f"{key}_{part}"])
    same(data.load("auto", str(tmp_path / "by_part")), content)
    same(data.load("auto", str(tmp_path / "by_kind")), content)


def test_files_of_one_array_each_as_those_of_kmnist(tmp_path):
    content = arrays()
    kinds = {"x_train": "train-imgs", "y_train": "train-labels"}
    kinds |= {"x_test": "test-imgs", "y_test": "test-labels"}
    for family in ("kmnist", "k49"):
        (tmp_path / family).mkdir()
        for key, kind in kinds.items():
            np.savez_compressed(tmp_path / family / f"{family}-{kind}.npz", content[key])
        same(data.load("auto", str(tmp_path / family)), content)
        same(data.load("auto", str(tmp_path / family / f"{family}-test-imgs.npz")), content)


def test_a_file_that_names_no_part_stands_for_itself(tmp_path):
    np.savez(tmp_path / "mine1.npz", arrays(seed=1)[X])
    np.savez(tmp_path / "mine3.npz", **arrays(seed=1))
    np.savez(tmp_path / "mine2.npz", **arrays())
    assert data.load("auto", str(tmp_path / "mine1.npz")).train.labels is None
    with pytest.raises(UserError, match="holds 2 data sets"):
        data.load("auto", str(tmp_path))


def test_mnist_npz_is_preferred_in_a_folder(tmp_path):
    np.savez(tmp_path / "mnist.npz", **arrays())
    np.savez(tmp_path / "another.npz", **arrays(seed=1))
    loaded = data.load("auto", str(tmp_path))
    same(loaded, arrays())
    os.remove(tmp_path / "mnist.npz")
    same(data.load("auto", str(tmp_path)), arrays(seed=1))


def test_a_gzipped_npz(tmp_path):
    file = io.BytesIO()
    np.savez(file, **arrays())
    (tmp_path / "mine.npz.gz").write_bytes(gzip.compress(file.getvalue()))
    same(data.load("auto", str(tmp_path / "mine.npz.gz")), arrays())


def changed(**members):
    return {key: npy(array) for key, array in arrays().items()} | members


REFUSED = {
    "pickled": (changed(x_train=npy(np.array([{}], object))), "a pickle, which could run code"),
    "no images": ({k: v for k, v in changed().items() if k != X}, "but no training images: add"),
    "nothing numeric": ({"x_train": npy(np.array(["a", "b"]))}, r"holds no images \(found"),
    "latents": ({"x_train": npy(np.zeros((9, 2)))}, r"no images \(found .*\(9, 2\) float64"),
    "complex": (
        {"x_train": npy(np.zeros((9, 28, 28), complex))},
        r"no images \(found .*complex128",
    ),
    "five axes": ({"x_train": npy(np.zeros((20, 2, 5, 28, 28)))}, r"shape \(2, 5, 28, 28\)"),
    "terabytes": (
        changed(x_train=promise((10**9, 28, 28)), y_train=promise((10**9,))),
        "more than 4 GB",
    ),
    "gigabytes": ({"x_train": promise((10**6, 28, 28), "<i8")}, "more than 4 GB: save the images"),
    "too many": ({"x_train": promise((2 * 10**6, 28, 28))}, "expected at most 1,000,000"),
    "many large": (
        {"x_train": promise((500_000, 32, 32))},
        "500,000 images of 32x32: expected at most 200,000",
    ),
    "negative shape": (changed(x_train=promise((-1, 28, 28))), "the impossible shape"),
    "huge shape": (changed(x_train=promise((2**70, 28, 28))), "the impossible shape"),
    "short": (changed(x_train=promise((121, 28, 28))), "x_train.npy is truncated"),
    "short, fortran": (changed(x_train=promise((121, 28, 28), fortran=True)), "is truncated"),
    "long": (changed(y_train=npy(arrays()[Y]) + b"\0"), "longer than its header"),
    "negative": (changed(x_train=npy(np.full((121, 28, 28), -5))), "pixel values from -5 to 255"),
    "standardized": (
        changed(x_train=npy(np.linspace(-0.4, 2.8, 121 * 784).reshape(121, 28, 28))),
        "undo what was done",
    ),
    "not finite": (changed(x_train=npy(np.full((121, 28, 28), np.nan))), "NaN or infinite"),
    "half a label": (changed(y_train=npy(np.full(121, 0.5))), "the label 0.5"),
    "too few labels": (changed(y_train=npy(np.zeros(9, np.uint8))), r"labels of shape \(9,\)"),
    "too many classes": (
        {"x": npy(np.zeros((300, 784))), "y": npy(np.arange(300))},
        "300 different",
    ),
    "deep header": ({"x": b"\x93NUMPY\x01\x00" + b"\x10\x27" + b"(" * 10_000}, "cannot be read"),
}


@pytest.mark.parametrize("members, message", REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_npz_is_refused(tmp_path, members, message):
    write_npz(tmp_path / "mnist.npz", **members)
    with pytest.raises(UserError, match=message) as error:
        data.load("auto", str(tmp_path))
    assert "damaged" not in str(error.value), "nothing is damaged here"


@pytest.mark.parametrize("cut", [0, 10, 300, -40])
def test_a_truncated_npz_is_refused(tmp_path, cut):
    write_npz(tmp_path / "whole.npz", **changed())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:cut])
    with pytest.raises(UserError, match=r"cut\.npz is (damaged|empty)"):
        data.load("auto", str(tmp_path / "cut.npz"))


def test_a_flipped_bit_is_damage(tmp_path):
    write_npz(tmp_path / "mine.npz", **changed())
    content = bytearray((tmp_path / "mine.npz").read_bytes())
    content[5000] ^= 1
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged .*CRC"):
        data.load("auto", str(tmp_path / "mine.npz"))
