"""Real MNIST, all 70,000 images, in each format: the same arrays, and therefore the same name."""

import gzip
import io
import os
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest

import data

IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def arrays_of(mnist_dir):
    with np.load(os.path.join(mnist_dir, "mnist.npz")) as archive:
        return {key: archive[key] for key in IDX_FILES}


def idx(array):
    return np.array([2048 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def idx_files(folder, arrays):
    for key, name in IDX_FILES.items():
        (folder / name).write_bytes(idx(arrays[key]))


def idx_gz(folder, arrays):
    for key, name in IDX_FILES.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(arrays[key]), 1))


def idx_int32(folder, arrays):
    for key, name in IDX_FILES.items():
        header = np.array([0x0C00 + arrays[key].ndim, *arrays[key].shape], ">u4").tobytes()
        (folder / name).write_bytes(header + arrays[key].astype(">i4").tobytes())


def zip_of_idx(folder, arrays):
    with zipfile.ZipFile(folder / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for key, name in IDX_FILES.items():
            archive.writestr(f"archive/{name}", idx(arrays[key]), compresslevel=1)
    return folder / "archive.zip"


def tar_gz_of_idx(folder, arrays):
    with tarfile.open(folder / "mnist.tar.gz", "w:gz", compresslevel=1) as archive:
        for key, name in IDX_FILES.items():
            content = idx(arrays[key])
            member = tarfile.TarInfo(f"MNIST/raw/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder / "mnist.tar.gz"


def npz(folder, arrays):
    np.savez_compressed(folder / "mnist.npz", **arrays)


def npz_gz(folder, arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    (folder / "mnist.npz.gz").write_bytes(gzip.compress(stream.getvalue(), 1))
    return folder / "mnist.npz.gz"


def npz_float32(folder, arrays):
    floats = {key: arrays[key] / np.float32(255) for key in ("x_train", "x_test")}
    np.savez(folder / "mnist.npz", **arrays | floats)


def npz_int64_fortran(folder, arrays):
    wide = {key: np.asfortranarray(array.astype(np.int64)) for key, array in arrays.items()}
    np.savez_compressed(folder / "mnist.npz", **wide)


def npz_one_hot(folder, arrays):
    labels = {key: np.eye(10)[arrays[key]] for key in ("y_train", "y_test")}
    np.savez_compressed(folder / "mnist.npz", **arrays | labels)


def npy_files(folder, arrays):
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", array)


def csv(folder, arrays, header=""):
    for part in ("train", "test"):
        images = arrays[f"x_{part}"].reshape(-1, 784)
        table = np.column_stack([arrays[f"y_{part}"], images])
        with open(folder / f"mnist_{part}.csv", "w") as file:
            file.write(header)
            file.writelines(",".join(map(str, row)) + "\n" for row in table.tolist())


def csv_gz(folder, arrays):
    csv(folder, arrays, "label," + ",".join(f"pixel{index}" for index in range(784)) + "\n")
    for path in list(folder.glob("*.csv")):
        with open(path, "rb") as plain, gzip.open(f"{path}.gz", "wb", 1) as packed:
            packed.writelines(plain)
        path.unlink()


def png_folders(folder, arrays):
    from PIL import Image

    for part, name in (("train", "training"), ("test", "testing")):
        for label in range(10):
            (folder / name / str(label)).mkdir(parents=True)
        pairs = zip(arrays[f"x_{part}"], arrays[f"y_{part}"], strict=True)
        for index, (image, label) in enumerate(pairs):
            path = folder / name / str(label) / f"{index}.png"
            Image.fromarray(image).save(path, compress_level=1)


def zip_of_png_folders(folder, arrays):
    inside = folder / "inside"
    inside.mkdir()
    png_folders(inside, arrays)
    with zipfile.ZipFile(folder / "mnist_png.zip", "w") as archive:
        for path in inside.rglob("*.png"):
            archive.write(path, path.relative_to(folder))
    return folder / "mnist_png.zip"


FORMATS = {
    writer.__name__: writer
    for writer in (
        idx_files,
        idx_gz,
        idx_int32,
        zip_of_idx,
        tar_gz_of_idx,
        npz,
        npz_gz,
        npz_float32,
        npz_int64_fortran,
        npz_one_hot,
        npy_files,
        csv,
        csv_gz,
        png_folders,
        zip_of_png_folders,
    )
}


@pytest.mark.parametrize("name", FORMATS)
def test_mnist_is_recognized_in_each_format(mnist_dir, tmp_path, name):
    arrays = arrays_of(mnist_dir)
    path = FORMATS[name](tmp_path, arrays) or tmp_path
    loaded = data.load("mnist", str(path))
    assert loaded.name == "mnist" and loaded.sha256 == data.MNIST_SHA256
    assert loaded.description == () and loaded.notices == ()
    images = arrays["x_train"].reshape(-1, 784)
    np.testing.assert_array_equal(loaded.train.images, images[:55_000])
    np.testing.assert_array_equal(loaded.validation.images, images[55_000:])
    np.testing.assert_array_equal(loaded.validation.labels, arrays["y_train"][55_000:])
    np.testing.assert_array_equal(loaded.test.images, arrays["x_test"].reshape(-1, 784))
    np.testing.assert_array_equal(loaded.test.labels, arrays["y_test"])


def test_the_folder_itself_is_mnist(mnist_dir):
    assert data.load("auto", str(pathlib.Path(mnist_dir))).name == "mnist"
