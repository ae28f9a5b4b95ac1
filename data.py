"""Images and labels as arrays, and how they become batches; nothing about models.

    import data
    mnist = data.load("auto", "")        # MNIST where it can be had, otherwise digits
    mnist.train.images                   # uint8, (55000, 784)

MNIST comes as `mnist.npz`, as the four IDX files (gzipped or not) or by Keras's cached download.
Other 28x28 arrays in the same formats are named `custom`. `digits` are the 1,797 handwritten
digits that scikit-learn carries inside its wheel, laid out as MNIST's are.
"""

import gzip
import hashlib
import os
import socket
import sys
import threading
import urllib.request
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from flags import UserError

SIDE = 28
GAP = 3
PIXELS = SIDE * SIDE
MNIST_SHA256 = "5a4d4600f9ae243d0ab9ee1ff6d948035e6f85a423fdfacf899262ac3ca6f325"
MNIST_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
MNIST_FILE_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
NETWORK_SECONDS = 15
# Also the bound on memory: a file that promises more is refused before anything is allocated.
MOST_IMAGES = 1_000_000
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
HOW_TO_GET = (
    "name a folder with mnist.npz or the four IDX files by --data_dir or MNIST_DIR, or connect "
    "to the network once for Keras's download"
)


class Split(NamedTuple):
    """Images, uint8 (n, 784), and their labels, uint8 (n,)."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set in its three parts.

    `name` is mnist, custom or digits; `sha256` is of all its arrays, before any `limit`;
    `notice` says why a fallback was taken, and is empty otherwise.
    """

    name: str
    sha256: str
    train: Split
    validation: Split
    test: Split
    notice: str = ""


def load(dataset="auto", data_dir="", limit=None):
    """Loads a data set.

    Args:
        dataset: `mnist` (never falls back), `digits`, or `auto`: MNIST where it can be had,
            otherwise digits with a notice.
        data_dir: a folder with `mnist.npz` or the IDX files, or an `.npz` file; empty: Keras's
            own cached download.
        limit: keep the first `limit` training images only; None: all.

    Returns:
        A `Dataset`.

    Raises:
        UserError: what is named can't be read, or MNIST can't be had.
    """
    notice = ""
    if dataset == "digits":
        if data_dir and data_dir != os.environ.get("MNIST_DIR"):
            raise UserError(f"--data_dir {data_dir} has no use with digits: leave the flag away")
        loaded = _digits()
    elif data_dir:
        loaded = _from_arrays(*_read_folder(data_dir))
    else:
        try:
            loaded = _from_arrays(*_read_npz(_download()))
        except UserError as error:
            if dataset == "mnist":
                raise
            notice = f"MNIST could not be had: {error}"
            loaded = _digits()
    train = Split(*(array[:limit] for array in loaded.train))
    return loaded._replace(train=train, notice=notice)


def batches(images, batch, seed, epoch):
    """Which images make up each step of an epoch: a function of (seed, epoch) alone.

    Args:
        images: how many images there are.
        batch: the global batch size; the last partial batch is dropped.

    Returns:
        int32 (steps, batch), indices into the training images.
    """
    order = np.random.default_rng([seed, epoch]).permutation(images).astype(np.int32)
    steps = images // batch
    return order[: steps * batch].reshape(steps, batch)


def mosaic(images, columns, gap=GAP):
    """Lays digits out row by row, each with `gap` empty pixels right and below.

    Args:
        images: uint8 (n, 784) or (n, 28, 28).

    Returns:
        uint8 (rows * (28 + gap), columns * (28 + gap)); an open last row stays empty.
    """
    images = np.asarray(images, np.uint8).reshape(-1, SIDE, SIDE)
    rows, step = -(-len(images) // columns), SIDE + gap
    tiles = np.zeros((rows * columns, step, step), np.uint8)
    tiles[: len(images), :SIDE, :SIDE] = images
    tiles = tiles.reshape(rows, columns, step, step)
    return tiles.swapaxes(1, 2).reshape(rows * step, columns * step)


def _from_arrays(x_train, y_train, x_test, y_test):
    """Names, hashes and splits arrays as the classic TensorFlow tutorial did."""
    digest = _sha256(x_train, y_train, x_test, y_test)
    name = "mnist" if digest == MNIST_SHA256 else "custom"
    kept = len(x_train) - len(x_train) // (12 if name == "mnist" else 11)
    return Dataset(
        name,
        digest,
        Split(x_train[:kept], y_train[:kept]),
        Split(x_train[kept:], y_train[kept:]),
        Split(x_test, y_test),
    )


def _sha256(*arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _digits():
    """The digits of scikit-learn, 8x8, scaled to 20x20 and centred by mass in 28x28."""
    from scipy import ndimage
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) * (255 / 16)
    scaled = ndimage.zoom(images, (1, 2.5, 2.5), order=3, mode="nearest", grid_mode=True)
    scaled = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    framed = np.zeros((len(scaled), SIDE, SIDE), np.uint8)
    border = (SIDE - 20) // 2
    for frame, image in zip(framed, scaled, strict=True):
        shift = np.rint(9.5 - np.array(ndimage.center_of_mass(image))).astype(int)
        row, column = border + np.clip(shift, -border, border)
        frame[row : row + 20, column : column + 20] = image
    framed = framed.reshape(-1, PIXELS)
    labels = labels.astype(np.uint8)
    # A fixed draw: the split is part of the data set and does not follow --seed.
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=300, stratify=labels, random_state=0
    )
    train, validation = train_test_split(rest, test_size=200, stratify=labels[rest], random_state=0)
    parts = (Split(framed[part], labels[part]) for part in (train, validation, test))
    return Dataset("digits", _sha256(framed, labels), *parts)


def _read_folder(path):
    """Reads the four arrays from an `.npz` file, or a folder with one or with IDX files."""
    if os.path.isfile(path):
        return _read_npz(path)
    if not os.path.isdir(path):
        raise UserError(f"--data_dir {path} does not exist: {HOW_TO_GET}")
    npz = os.path.join(path, "mnist.npz")
    if os.path.isfile(npz):
        return _read_npz(npz)
    found = []
    for name in IDX_FILES:
        choices = [os.path.join(path, name + ending) for ending in ("", ".gz")]
        found += [choice for choice in choices if os.path.isfile(choice)][:1]
    if len(found) < len(IDX_FILES):
        raise UserError(
            f"--data_dir {path} holds neither mnist.npz nor the four IDX files "
            f"({', '.join(IDX_FILES)}, gzipped or not): {HOW_TO_GET}"
        )
    return _checked(path, *(_read_idx(name) for name in found))


def _read_npz(path):
    """Reads the four arrays of an `.npz`, whose headers are checked before any allocation."""
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [key for key in NPZ_KEYS if key + ".npy" not in archive.namelist()]
            if missing:
                raise UserError(
                    f"{path} lacks the array {missing[0]}: expected {', '.join(NPZ_KEYS)}, "
                    "as in Keras's mnist.npz"
                )
            arrays = [_read_npy(archive, key, path) for key in NPZ_KEYS]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is damaged or no .npz file ({error}): get it anew") from error
    except OSError as error:
        raise UserError(
            f"{path} can't be read ({error.strerror or error}): get it anew or name another file"
        ) from error
    return _checked(path, *arrays)


def _read_npy(archive, key, path):
    try:
        with archive.open(key + ".npy") as file:
            version = np.lib.format.read_magic(file)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = header(file)
            if dtype.hasobject or dtype.kind not in "iu" or fortran:
                raise UserError(
                    f"{path}: the array {key} has the type {dtype}: expected plain uint8 "
                    "(pickled objects are never loaded)"
                )
            if (
                len(shape) not in (1, 2, 3)
                or shape[0] > MOST_IMAGES
                or shape[1:]
                not in (
                    (),
                    (PIXELS,),
                    (SIDE, SIDE),
                )
            ):
                raise UserError(f"{path}: the array {key} has the shape {shape}: {_EXPECTED}")
            size = int(np.prod(shape)) * dtype.itemsize
            content = _read_exactly(file, size, f"{path}: the array {key}")
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: the array {key} has a damaged header: get it anew") from error
    array = np.frombuffer(content, dtype).reshape(shape)
    if array.size and (array.min() < 0 or array.max() > 255):
        raise UserError(f"{path}: the array {key} has values outside 0 to 255: expected uint8")
    return array.astype(np.uint8)


_EXPECTED = f"expected images of {SIDE}x{SIDE} and one label each, {MOST_IMAGES:,} at most"


def _read_idx(path):
    """Reads one IDX file, gzipped or not (the format: LeCun, Cortes and Burges, MNIST page)."""
    opener = gzip.open if path.endswith(".gz") else open
    dimensions = 3 if "idx3" in os.path.basename(path) else 1
    try:
        with opener(path, "rb") as file:
            header = np.frombuffer(_read_exactly(file, 4 + 4 * dimensions, path, False), ">u4")
            shape = tuple(int(length) for length in header[1:])
            if header[0] != 2048 + dimensions:
                raise UserError(f"{path} is no IDX file of bytes: get it anew")
            if shape[0] > MOST_IMAGES or shape[1:] not in ((), (SIDE, SIDE)):
                raise UserError(f"{path} has the shape {shape}: {_EXPECTED}")
            content = _read_exactly(file, int(np.prod(shape)), path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is truncated or damaged ({error}): get it anew") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error})") from error
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_exactly(file, size, what, last=True):
    """Reads `size` bytes in pieces, so that a false promise costs no memory."""
    pieces, left = [], size
    while left:
        piece = file.read(min(left, 1 << 24))
        if not piece:
            raise UserError(f"{what} is truncated ({size - left} of {size} bytes): get it anew")
        pieces.append(piece)
        left -= len(piece)
    # Reading past the end also lets gzip and zip check their sums.
    if last and file.read(1):
        raise UserError(f"{what} is longer than its header says: get it anew")
    return b"".join(pieces)


def _checked(path, x_train, y_train, x_test, y_test):
    for part, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        if images.ndim == 1 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
            raise UserError(
                f"{path}: {part} images of shape {images.shape} with labels of shape "
                f"{labels.shape}: {_EXPECTED}"
            )
    if len(x_train) < 11 or len(x_test) < 2:
        raise UserError(
            f"{path}: {len(x_train)} training and {len(x_test)} test images are too few: the last "
            "eleventh of the training images validates"
        )
    return x_train.reshape(-1, PIXELS), y_train, x_test.reshape(-1, PIXELS), y_test


def _download():
    """Returns the path of Keras's cached, hash-checked `mnist.npz`, fetched if need be."""
    home = os.environ.get("KERAS_HOME", os.path.join(os.path.expanduser("~"), ".keras"))
    cached = os.path.join(home, "datasets", "mnist.npz")
    if os.path.isfile(cached):
        with open(cached, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == MNIST_FILE_SHA256:
                return cached
    # Name lookup has no timeout of its own, so the whole attempt runs on a thread that can be
    # left behind.
    answer = {}
    attempt = threading.Thread(target=_probe, args=(answer,), daemon=True)
    attempt.start()
    attempt.join(NETWORK_SECONDS)
    if "reached" not in answer:
        reason = answer.get("error", f"no answer within {NETWORK_SECONDS} seconds")
        raise UserError(f"the download of mnist.npz failed ({reason}): {HOW_TO_GET}")
    from flags import quiet_tensorflow

    # Without a look at the devices, which a strategy has to be the first to take.
    quiet_tensorflow(lambda: None)
    import keras

    print("Downloading mnist.npz (11 MB) ...", file=sys.stderr)
    default_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        return keras.utils.get_file("mnist.npz", MNIST_URL, file_hash=MNIST_FILE_SHA256)
    except Exception as error:  # get_file raises a bare Exception for every HTTP and URL error
        raise UserError(f"the download of mnist.npz failed ({error}): {HOW_TO_GET}") from error
    finally:
        socket.setdefaulttimeout(default_timeout)


def _probe(answer):
    try:
        with urllib.request.urlopen(MNIST_URL, timeout=NETWORK_SECONDS) as response:
            response.read(1)
        answer["reached"] = True
    except (OSError, ValueError) as error:
        answer["error"] = getattr(error, "reason", error)
