"""Small data sets to write in every format, and to compare with what is read back."""

import gzip
import io
import struct
import zipfile
import zlib

import numpy as np

IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
IDX_TYPES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}


def arrays(train=121, test=12, side=28, seed=0):
    """Images of noise: no two are equal, and none is equal to its transpose or its negative."""
    random = np.random.default_rng(seed)
    return {
        "x_train": random.integers(0, 256, (train, side, side), np.uint8),
        "y_train": random.integers(0, 10, train, np.uint8),
        "x_test": random.integers(0, 256, (test, side, side), np.uint8),
        "y_test": random.integers(0, 10, test, np.uint8),
    }


def strokes(count, side, ink=255, seed=0):
    """Images (count, side, side) with one bright rectangle each, which stands for a digit."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, side, side), np.uint8)
    for image in images:
        top, left = random.integers(1, side // 3, 2)
        height, width = random.integers(side // 3, side // 2, 2)
        image[top : top + height, left : left + width] = ink
    return images


def idx(array, kind="u1"):
    header = bytes([0, 0, IDX_TYPES[kind], array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(kind).tobytes()


def write_idx(folder, content, name="{}", zipped=False):
    """Writes four IDX files; `name` is a format string for their usual names."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, array in content.items():
        file = idx(array)
        (folder / name.format(IDX_FILES[key])).write_bytes(gzip.compress(file) if zipped else file)
    return folder


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def promise(shape, kind="|u1", fortran=False):
    """An `.npy` file that promises more than it holds."""
    file = io.BytesIO()
    header = {"descr": kind, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + b"\0" * 100


def write_npz(path, **members):
    """Writes an `.npz` whose members are given as bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, content in members.items():
            archive.writestr(f"{key}.npy", content)
    return path


def table(images, labels=None, last=False):
    """Rows of numbers for CSV."""
    pixels = images.reshape(len(images), -1)
    if labels is None:
        return pixels
    return np.column_stack([pixels, labels] if last else [labels, pixels])


def write_csv(path, rows, header="", separator=",", end="\n", spell=str):
    lines = [separator.join(map(spell, row)) + end for row in rows.tolist()]
    path.write_bytes((header + "".join(lines)).encode())
    return path


def png_chunks(width, height, *chunks):
    """A PNG file with the given chunks, (type, content) each."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    inner = b"".join(chunk(kind, content) for kind, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + inner + chunk(b"IEND", b"")


def write_pictures(folder, images, labels, name="{label}/{index}.png", **options):
    from PIL import Image

    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / name.format(label=label, index=index)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, **options)
    return folder
