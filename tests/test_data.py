"""data.py: formats, names, splits, and what is refused."""

import gzip
import io
import socket
import time
import zipfile

import numpy as np
import pytest

import data
from support import UserError, download


def arrays(train=121, test=12, side=28):
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (train, side, side), np.uint8),
        "y_train": random.integers(0, 10, train, np.uint8),
        "x_test": random.integers(0, 256, (test, side, side), np.uint8),
        "y_test": random.integers(0, 10, test, np.uint8),
    }


def idx(array):
    header = np.array([2048 + array.ndim, *array.shape], ">u4").tobytes()
    return header + array.tobytes()


def write_idx(folder, content, zipped):
    folder.mkdir()
    for name, array in zip(data.IDX_FILES, content.values(), strict=True):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return folder


def same(first, second):
    assert first.name == second.name and first.sha256 == second.sha256
    for one, other in zip(first[2:5], second[2:5], strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_every_format_gives_identical_arrays(tmp_path):
    content = arrays()
    (tmp_path / "npz").mkdir()
    np.savez_compressed(tmp_path / "npz" / "mnist.npz", **content)
    loaded = data.load("mnist", str(tmp_path / "npz"))
    same(loaded, data.load("auto", str(tmp_path / "npz" / "mnist.npz")))
    same(loaded, data.load("auto", str(write_idx(tmp_path / "plain", content, False))))
    same(loaded, data.load("auto", str(write_idx(tmp_path / "gz", content, True))))
    assert loaded.name == "custom" and loaded.notice == ""
    assert [len(split.images) for split in loaded[2:5]] == [110, 11, 12]  # the last eleventh
    flat = content["x_train"].reshape(-1, 784)
    np.testing.assert_array_equal(loaded.train.images, flat[:110])
    np.testing.assert_array_equal(loaded.validation.images, flat[110:])
    np.testing.assert_array_equal(loaded.test.labels, content["y_test"])
    limited = data.load("auto", str(tmp_path / "gz"), limit=7)
    assert len(limited.train.images) == 7 and len(limited.validation.images) == 11


def test_the_npz_is_taken_where_both_are(tmp_path):
    folder = write_idx(tmp_path / "both", arrays(), True)
    other = arrays() | {"y_test": np.zeros(12, np.uint8)}
    np.savez(folder / "mnist.npz", **other)
    assert not data.load("auto", str(folder)).test.labels.any()


def test_digits_are_split_evenly_and_laid_out_as_mnist():
    digits = data.load("digits")
    splits = digits[2:5]
    assert [len(split.images) for split in splits] == [1297, 200, 300]
    assert all(np.bincount(split.labels).min() >= len(split.labels) // 11 for split in splits)
    images = np.concatenate([split.images for split in splits])
    assert len(np.unique(images, axis=0)) == 1797
    ink = images.reshape(-1, 28, 28).astype(float)
    assert images.max() == 255 and not ink[:, 0].any() and not ink[:, :, -1].any()
    rows = (ink.sum(2) @ np.arange(28)) / ink.sum((1, 2))
    assert np.abs(rows - 13.5).max() < 1.0  # centred by mass


def test_an_unanswering_network_is_given_up_on(tmp_path, monkeypatch):
    """A server that takes the connection and says nothing: digits for auto, one line for mnist."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(download, "SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/mnist.npz"
        source = download.SOURCES["mnist"]._replace(url=url)
        monkeypatch.setitem(download.SOURCES, "mnist", source)
        started = time.monotonic()
        fallen_back = data.load("auto")
        assert time.monotonic() - started < 10
        assert fallen_back.name == "digits" and "no answer within 1 s" in fallen_back.notice
        with pytest.raises(UserError, match="name a folder with mnist"):
            data.load("mnist")


def test_batches_are_a_permutation_of_the_epoch():
    order = data.batches(95, 10, 5, 0)
    assert order.shape == (9, 10)
    assert len(set(order.ravel())) == 90 and set(order.ravel()) <= set(range(95))
    np.testing.assert_array_equal(order, data.batches(95, 10, 5, 0))
    assert (order != data.batches(95, 10, 5, 1)).any()
    assert (order != data.batches(95, 10, 5 + 1, 0)).any()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def promise(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue() + b"\0" * 100


def npz(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for key, content in members.items():
            archive.writestr(f"{key}.npy", content)


GOOD = {key: npy(array) for key, array in arrays().items()}
REFUSED = {
    "missing array": ({k: v for k, v in GOOD.items() if k != "y_test"}, "expected .*y_test"),
    "surplus array": (GOOD | {"more": npy(np.zeros(3))}, r"it holds .*more\.npy"),
    "pickled": (GOOD | {"x_train": npy(np.array([{}], object))}, "type object"),
    "floats": (GOOD | {"x_train": npy(np.zeros((9, 28, 28)))}, "type float64"),
    "image size": ({k: npy(v) for k, v in arrays(side=32).items()}, r"shape \(121, 32, 32\)"),
    "labels": (GOOD | {"y_train": npy(np.zeros(3, np.uint8))}, "one label each"),
    "terabytes": (GOOD | {"x_train": promise((10**10, 28, 28))}, "unexpected shape"),
    "negative shape": (GOOD | {"x_train": promise((-1, 28, 28))}, "unexpected shape"),
    "short": (GOOD | {"x_train": promise((121, 28, 28))}, "truncated: 100 of"),
    "long": (GOOD | {"y_train": GOOD["y_train"] + b"\0"}, "longer than its header"),
    "header": (GOOD | {"x_train": b"no header at all"}, "x_train is damaged"),
    "too few": ({k: npy(v) for k, v in arrays(train=10).items()}, "are too few"),
    "negative": (GOOD | {"y_train": npy(np.full(121, -1))}, "outside 0 to 255"),
}


@pytest.mark.parametrize("members, message", REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_npz_is_refused(tmp_path, members, message):
    npz(tmp_path / "mnist.npz", **members)
    with pytest.raises(UserError, match=message):
        data.load("auto", str(tmp_path))


@pytest.mark.parametrize("cut", [0, 10, 300, -40])
def test_a_truncated_npz_is_refused(tmp_path, cut):
    npz(tmp_path / "whole.npz", **GOOD)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:cut])
    with pytest.raises(UserError, match=r"cut\.npz"):
        data.load("mnist", str(tmp_path / "cut.npz"))


def test_wrong_idx_files_are_refused(tmp_path):
    folder = write_idx(tmp_path / "idx", arrays(), True)
    images = folder / f"{data.IDX_FILES[0]}.gz"
    whole = images.read_bytes()
    bomb = gzip.compress(np.array([2051, 10, 28, 28], ">u4").tobytes() + bytes(50_000_000))
    for content, message in (
        (whole[:-100], "ended before"),
        (whole[:20], "ended before"),
        (b"", "truncated"),
        (b"not gzip", "damaged"),
        (whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], "damaged|truncated|no IDX|longer"),
        (gzip.compress(idx(arrays(side=32)["x_train"])), "unexpected shape"),
        (gzip.compress(np.array([2051, 2**31, 28, 28], ">u4").tobytes()), "unexpected shape"),
        (bomb, "longer than its header"),
        (gzip.compress(idx(arrays()["y_train"])), "no IDX file|truncated"),
    ):
        images.write_bytes(content)
        with pytest.raises(UserError, match=message):
            data.load("auto", str(folder))


def test_a_folder_without_data_says_what_to_bring(tmp_path):
    with pytest.raises(UserError, match=r"neither mnist\.npz nor the four IDX files"):
        data.load("auto", str(tmp_path))
    with pytest.raises(UserError, match="does not exist"):
        data.load("mnist", str(tmp_path / "nowhere"))
