"""IDX files under their many names, and what is refused."""

import gzip
import shutil

import numpy as np
import pytest

import data
from support.errors import UserError
from tests.datasets.samples import IDX_FILES, arrays, idx, write_idx


def same(loaded, content):
    images = np.concatenate([loaded.train.images, loaded.validation.images])
    labels = np.concatenate([loaded.train.labels, loaded.validation.labels])
    np.testing.assert_array_equal(images, content["x_train"].reshape(-1, 784))
    np.testing.assert_array_equal(labels, content["y_train"])
    np.testing.assert_array_equal(loaded.test.images, content["x_test"].reshape(-1, 784))
    np.testing.assert_array_equal(loaded.test.labels, content["y_test"])


NAMES = {
    "as published": lambda name: name,
    "dots": lambda name: name.replace("-idx", ".idx"),
    "prefix": lambda name: f"kmnist-{name}",
    "test for t10k": lambda name: name.replace("t10k", "test"),
    "capitals": lambda name: name.upper(),
    "underscores": lambda name: name.replace("-", "_"),
    "no format": lambda name: name.split("-idx")[0],
    "one word": lambda name: name.split("-idx")[0].replace("-", ""),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("zipped", [False, True])
def test_names_and_places(tmp_path, name, place, zipped):
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    content = arrays()
    for key, usual in IDX_FILES.items():
        # The extension does not matter: gzipped files have no .gz here, and plain ones do below.
        file = idx(content[key])
        (folder / NAMES[name](usual)).write_bytes(gzip.compress(file) if zipped else file)
    same(data.load("auto", str(tmp_path)), content)


def test_an_ending_that_is_wrong(tmp_path):
    content = arrays()
    same(data.load("auto", str(write_idx(tmp_path / "a", content, "{}.gz"))), content)


def test_each_file_in_a_folder_of_its_name(tmp_path):
    """As Kaggle unpacks them."""
    content = arrays()
    for key, name in IDX_FILES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(idx(content[key]))
    same(data.load("auto", str(tmp_path)), content)


@pytest.mark.parametrize("kind", ["i1", ">i2", ">i4", ">f4", ">f8"])
def test_other_types_of_numbers(tmp_path, kind):
    content = arrays()
    if kind == "i1":
        content = {key: array % 128 for key, array in content.items()}
    for key, name in IDX_FILES.items():
        (tmp_path / name).write_bytes(idx(content[key], kind))
    same(data.load("auto", str(tmp_path)), content)


def test_labels_of_several_columns(tmp_path):
    """As in QMNIST: eight columns, the class first."""
    content = arrays()
    for part in ("train", "test"):
        labels = np.arange(8 * len(content[f"y_{part}"])).reshape(-1, 8)
        labels[:, 0] = content[f"y_{part}"]
        images = idx(content[f"x_{part}"])
        (tmp_path / f"qmnist-{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"qmnist-{part}-labels-idx2-int.gz").write_bytes(
            gzip.compress(idx(labels, ">i4"))
        )
    loaded = data.load("auto", str(tmp_path))
    same(loaded, content)
    assert any("8 columns of labels: the first was used" in line for line in loaded.notices)


def test_emnist_is_turned_upright(tmp_path):
    content = arrays()
    sideways = content | {
        key: content[key].transpose(0, 2, 1).copy() for key in ("x_train", "x_test")
    }
    folder = write_idx(tmp_path / "a", sideways, "emnist-letters-{}")
    loaded = data.load("auto", str(folder))
    same(loaded, content)
    assert any("lie on their sides" in line for line in loaded.notices)
    same(data.load("auto", str(folder), transpose=False), sideways)
    # The name of the folder is not evidence, but the flag decides.
    plain = write_idx(tmp_path / "emnist", sideways)
    same(data.load("auto", str(plain)), sideways)
    same(data.load("auto", str(plain), transpose=True), content)


def test_a_file_stands_for_the_others_of_its_data_set(tmp_path):
    content, other = arrays(), arrays(seed=1)
    write_idx(tmp_path / "a", content, "emnist-digits-{}")
    write_idx(tmp_path / "a", other, "emnist-letters-{}")
    with pytest.raises(UserError, match=r"2 data sets.*; give the path of one of these files"):
        data.load("auto", str(tmp_path / "a"))
    path = tmp_path / "a" / "emnist-letters-t10k-labels-idx1-ubyte"
    same(data.load("auto", str(path), transpose=False), other)


def test_several_folders_with_data_sets_are_ambiguous_and_the_topmost_is_not(tmp_path):
    content, other = arrays(), arrays(seed=1)
    write_idx(tmp_path / "MNIST" / "raw", content)
    write_idx(tmp_path / "FashionMNIST" / "raw", other)
    with pytest.raises(UserError, match="holds 2 data sets"):
        data.load("auto", str(tmp_path))
    write_idx(tmp_path, content)
    loaded = data.load("auto", str(tmp_path))
    same(loaded, content)
    assert any(line.startswith("arrays that were not used: ") for line in loaded.notices)


def test_plain_files_are_preferred_to_gzipped_ones(tmp_path):
    content, other = arrays(), arrays(seed=1)
    write_idx(tmp_path, content)
    write_idx(tmp_path, other, "{}.gz", zipped=True)
    loaded = data.load("auto", str(tmp_path))
    same(loaded, content)
    assert not any("not used" in line for line in loaded.notices), "as torchvision leaves them"


def test_what_is_missing_is_named(tmp_path):
    folder = write_idx(tmp_path / "a", arrays())
    (folder / "t10k-labels-idx1-ubyte").unlink()
    for path in (folder, folder / "train-images-idx3-ubyte"):
        with pytest.raises(UserError, match="but not t10k-labels-idx1-ubyte: put all"):
            data.load("auto", str(path))
    (folder / "t10k-images-idx3-ubyte").unlink()
    assert len(data.load("auto", str(folder)).test.images) == 17, "no test part: one is set aside"
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="but not train-labels-idx1-ubyte, t10k-images"):
        data.load("auto", str(folder))
    shutil.move(folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(arrays()["y_train"]))
    with pytest.raises(UserError, match="but not train-images-idx3-ubyte"):
        data.load("auto", str(folder))


WHOLE = gzip.compress(idx(arrays()["x_train"]))
BOMB = gzip.compress(np.array([2051, 121, 28, 28], ">u4").tobytes() + bytes(50_000_000))
REFUSED = {
    "truncated": (WHOLE[:-100], "is damaged"),
    "header only": (gzip.compress(idx(arrays()["x_train"])[:16]), "truncated"),
    "checksum": (WHOLE[:-8] + bytes([WHOLE[-8] ^ 1]) + WHOLE[-7:], "is damaged"),
    "empty": (b"", r"is not an IDX file \(it begins with b''\)"),
    "other": (b"not gzip", r"is not an IDX file \(it begins with b'not gzip'\)"),
    "not gzip": (b"\x1f\x8b\x08not gzip at all", "is not an IDX file"),
    "promise": (
        gzip.compress(np.array([2051, 2**31 - 1, 28, 28], ">u4").tobytes()),
        "expected one",
    ),
    "longer": (BOMB, "longer than its header"),
    "wrong kind": (gzip.compress(idx(arrays()["y_train"])), "but not train-images|no images"),
    "short": (gzip.compress(idx(arrays()["x_train"][:50])), "expected one label for each image"),
}


@pytest.mark.parametrize("content, message", REFUSED.values(), ids=REFUSED.keys())
def test_wrong_files_are_refused(tmp_path, content, message):
    folder = write_idx(tmp_path / "idx", arrays(), "{}.gz", zipped=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        data.load("auto", str(folder))
    assert ("damaged" in str(error.value)) == message.endswith("damaged")
