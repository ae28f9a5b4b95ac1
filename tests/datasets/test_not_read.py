"""Formats that are only recognized, and the recipes to convert them."""

import gzip
import pickle
import struct
import zipfile

import numpy as np
import pytest

import data
from support.datasets.formats import not_read
from support.errors import UserError
from tests.datasets.samples import arrays
from tests.datasets.test_idx import same


def zip_of(name):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"content")

    return write


def record():
    length = struct.pack("<Q", 10)
    # The checksum that tensorflow.io.TFRecordWriter writes for a record of ten bytes.
    crc = not_read._crc32c(length)
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    return length + struct.pack("<I", masked) + bytes(14)


FILES = {
    "a pickle": pickle.dumps([1, 2]),
    "a pickle [text]": pickle.dumps([1, 2], 0),
    "a pickle [gzip]": gzip.compress(pickle.dumps({"x": np.zeros(3)}, 2)),
    "a MATLAB file": b"MATLAB 5.0 MAT-file, Platform: posix" + bytes(200),
    "a Parquet file": b"PAR1" + bytes(100),
    "an ARFF file": b"% comment\n\n@RELATION mnist\n@ATTRIBUTE pixel1 real\n",
    "a TFRecord file": record(),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "text with spaces between the numbers": b"0 0 1 0 " * 500,
    "a PyTorch file": zip_of("archive/data.pkl"),
    "an Excel workbook": zip_of("xl/workbook.xml"),
    "a model that Keras saved": zip_of("model.weights.h5"),
    "a 7z archive": b"7z\xbc\xaf\x27\x1c" + bytes(100),
    "an xz archive": b"\xfd7zXZ\0" + bytes(100),
    "a PDF": b"%PDF-1.7\n",
    "a web page instead of the file": b"\n<!DOCTYPE html><html>Sign in</html>",
    "a Git LFS pointer instead of the file": b"version https://git-lfs.github.com/spec/v1\n",
    "text in UTF-16": "1,2,3\n".encode("utf-16"),
}


@pytest.mark.parametrize("name", FILES)
def test_formats_are_named(tmp_path, name):
    path = tmp_path / "mnist.npz"  # the name does not matter
    content, name = FILES[name], name.split(" [")[0]
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"mnist.npz is {name}.* and cannot be read: ") as error:
        data.load("auto", str(path))
    assert "damaged" not in str(error.value)
    folder = path.rename(tmp_path / "other").parent
    with pytest.raises(UserError, match=f"is {name}.* and cannot be read: "):
        data.load("auto", str(folder))


def run(message, folder, monkeypatch):
    """Runs the Python code in a message, and returns the data set that it wrote."""
    monkeypatch.chdir(folder)
    exec(message[message.index("import ") :].removesuffix(" (h5py reads version 7.3)"), {})
    return data.load("auto", "mine.npz")


def test_recipes_convert(tmp_path, monkeypatch):
    content = arrays()
    flat = {key: array.reshape(len(array), -1) for key, array in content.items() if "x_" in key}
    train, test = (
        (flat["x_train"] / 255, content["y_train"]),
        (flat["x_test"] / 255, content["y_test"]),
    )
    with gzip.open(tmp_path / "some.pkl.gz", "wb") as file:
        pickle.dump((train, train, test), file)
    (tmp_path / "some.pkl").write_bytes(pickle.dumps((train, train, test)))
    from scipy import io

    io.savemat(tmp_path / "some.mat", {"data": flat["x_train"].T, "label": content["y_train"]})
    np.savetxt(tmp_path / "some.amat", flat["x_train"] > 127, fmt="%d")
    messages = {}
    for name in ("some.pkl.gz", "some.pkl", "some.mat", "some.amat"):
        with pytest.raises(UserError) as error:
            data.load("auto", str(tmp_path / name))
        messages[name] = str(error.value)
    same(run(messages["some.pkl.gz"], tmp_path, monkeypatch), content)
    same(run(messages["some.pkl"], tmp_path, monkeypatch), content)
    assert run(messages["some.mat"], tmp_path, monkeypatch).train.labels is not None
    assert run(messages["some.amat"], tmp_path, monkeypatch).train.images.max() == 255
