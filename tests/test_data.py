"""data.py: formats, names, splits, and what is refused."""

import gzip
import hashlib
import http.server
import io
import os
import threading
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
    loaded = data.load("auto", str(tmp_path / "npz"))
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


CONTENT = b"what the data set is"
FAULTS = {
    "404": "Not Found",
    "503": "Service Unavailable",
    "truncated": "another hash",
    "other": "another hash",
    "garbage": "no protocol",
    "silent": "no answer within 0.5 s",
    "stalls": "timed out",
}


@pytest.fixture
def mirrors(tmp_path, monkeypatch):
    """A server on this machine whose folders fail in the ways of `FAULTS`, and one that does not;
    a function of their names that makes them the mirrors of MNIST."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            fault = self.path.split("/")[1]
            if fault == "silent":
                return asked.wait(5)
            if fault == "garbage":
                return self.wfile.write(b"no protocol\r\n")
            if fault in ("404", "503"):
                return self.send_error(int(fault))
            self.send_response(200)
            self.send_header("Content-Length", len(CONTENT))
            self.end_headers()
            sent = {"other": CONTENT[::-1], "truncated": CONTENT[:5], "stalls": CONTENT[:5]}
            self.wfile.write(sent.get(fault, CONTENT))
            if fault == "stalls":
                asked.wait(5)

        def log_message(self, *_):
            pass

    def set_to(*names):
        url = f"http://127.0.0.1:{server.server_port}"
        hashes = {"set.npz": hashlib.sha256(CONTENT).hexdigest()}
        found = tuple(download.Mirror(f"{url}/{name}/", "", hashes) for name in names)
        monkeypatch.setitem(download.MIRRORS, "mnist", found)

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(download, "SECONDS", 1)
    asked = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield set_to
        asked.set()
        server.shutdown()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mirror_that_fails_gives_way_to_the_next(mirrors, tmp_path, fault):
    mirrors(fault, "good")
    path = download.fetch("mnist")
    assert path == str(tmp_path / "keras" / "datasets" / "set.npz")
    assert (tmp_path / "keras" / "datasets" / "set.npz").read_bytes() == CONTENT
    mirrors(fault, fault)
    assert download.fetch("mnist") == path  # from the cache
    os.remove(path)
    with pytest.raises(UserError) as error:
        download.fetch("mnist")
    assert str(error.value).count(FAULTS[fault]) == 2
    assert not os.listdir(os.path.dirname(path))


def test_an_unanswering_network_is_given_up_on(mirrors):
    """Digits for auto, one line for mnist."""
    mirrors("silent", "silent")
    started = time.monotonic()
    fallen_back = data.load("auto")
    assert time.monotonic() - started < 10
    assert fallen_back.name == "digits" and "no answer within" in fallen_back.notice
    with pytest.raises(UserError, match="name a folder with mnist"):
        data.load("mnist")


def test_arrays_have_the_name_that_fits_them(tmp_path):
    path = str(tmp_path / "arrays.npz")
    np.savez(path, **arrays())
    assert data.load("auto", path).name == data.load("custom", path).name == "custom"
    for name in ("mnist", "kmnist"):
        with pytest.raises(UserError, match=f"holds custom arrays, not {name}"):
            data.load(name, path)
    large = np.zeros((60_000, 784), np.uint8), np.zeros(60_000, np.uint8)
    large += np.zeros((10_000, 784), np.uint8), np.zeros(10_000, np.uint8)
    np.savez(path, **dict(zip(data.NPZ_KEYS, large, strict=True)))
    fashion = data.load("fashion_mnist", path)
    assert fashion.name == "fashion_mnist" and len(fashion.validation.images) == 5000
    with pytest.raises(UserError, match="no place of its own"):
        data.load("custom")


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
        data.load("auto", str(tmp_path / "cut.npz"))


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
        data.load("auto", str(tmp_path / "nowhere"))
