"""Images and labels as arrays, and how they become batches; nothing about models.

    import data
    mnist = data.load("auto")            # MNIST where it can be had, otherwise digits
    mnist.train.images                   # uint8, (55000, 784)

MNIST comes as `mnist.npz`, as the four IDX files (gzipped or not) or by Keras's cached download.
Other 28x28 arrays in the same formats are named `custom`. `digits` are the 1,797 handwritten
digits that scikit-learn carries inside its wheel, laid out as MNIST's are.
"""

import gzip
import hashlib
import os
from typing import NamedTuple

import numpy as np

from support import cli, files
from support.datasets import download
from support.errors import UserError

SIDE = 28
PIXELS = SIDE * SIDE
MNIST_SHA256 = "5a4d4600f9ae243d0ab9ee1ff6d948035e6f85a423fdfacf899262ac3ca6f325"
SAME_SIZES = ("fashion_mnist", "kmnist")
MOST_IMAGES = 1_000_000
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
# The first 100 test images of MNIST, for eval.py without a network.
CARRIED = os.path.join(os.path.dirname(__file__), "better_weight", "mnist_test_100.npz")
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
IDX_FILES += ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
EXPECTED = f"expected whole numbers, {SIDE}x{SIDE} images, one label each, {MOST_IMAGES:,} at most"
PLACES = "name a folder with mnist.npz or the four IDX files, or an .npz file"
# Warps: at each of 4x4 places an image is pushed, right or left, up or down; around it a push fades
# as a Gaussian of 6 pixels. Interpolation blurs: 1.4 times the contrast makes up for it (the pixels
# of MNIST's warped images then have the mean entropy of the others, without it 1.6 times as much).
PUSHES, FADE, CONTRAST = 4, 6, 1.4
WARP_DRAWS = 2 * PUSHES**2 + 1


class Split(NamedTuple):
    """Images, uint8 (n, 784), and their labels, uint8 (n,)."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set in its three parts.

    `name` is mnist, fashion_mnist, kmnist, custom or digits; `sha256` is of all its arrays, before
    any `limit`;
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
        dataset: `mnist`, `fashion_mnist`, `kmnist`, `digits`, or `custom`, which needs `data_dir`;
            `auto`: what `data_dir` holds, or MNIST where it can be had, or digits with a notice.
        data_dir: a folder with `mnist.npz` or the IDX files, or an `.npz` file; empty: a download,
            cached.
        limit: keep the first `limit` training images only; None: all.

    Returns:
        A `Dataset`.

    Raises:
        UserError: what is named cannot be read or had, or is another data set.
    """
    notice = ""
    if dataset in ("digits", *SAME_SIZES) and data_dir == os.environ.get("MNIST_DIR"):
        data_dir = ""
    if dataset == "digits":
        if data_dir:
            raise UserError(f"{data_dir} has no use with the data set digits: drop one of them")
        loaded = _digits()
    elif data_dir:
        loaded = _split(dataset, *_read(data_dir))
        if dataset not in ("auto", loaded.name):
            raise UserError(f"{data_dir} holds {loaded.name} arrays, not {dataset}")
    elif dataset == "custom":
        raise UserError("the data set custom has no place of its own: name your .npz or folder")
    else:
        name = "mnist" if dataset == "auto" else dataset
        try:
            loaded = _split(name, *_read(download.fetch(name)))
        except UserError as error:
            if dataset != "auto":
                raise UserError(f"{error}: {PLACES}") from error
            notice = f"{error}: {PLACES}"
            loaded = _digits()
    train = Split(*(array[:limit] for array in loaded.train))
    return loaded._replace(train=train, notice=notice)


def carried(notice):
    """Returns the first 100 test images of MNIST, which this repository carries; no others.

    Args:
        notice: why not all.
    """
    images, labels = _read_npz(CARRIED, NPZ_KEYS[2:])
    nothing = Split(np.zeros((0, PIXELS), np.uint8), np.zeros(0, np.uint8))
    test = Split(images.reshape(-1, PIXELS), labels)
    return Dataset("mnist", MNIST_SHA256, nothing, nothing, test, notice)


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


def pixels(images):
    """uint8 images as a float32 tensor in [0, 1]."""
    import tensorflow as tf

    return tf.cast(images, tf.float32) * (1 / 255)


def warped(images, push, share, uniform):
    """Bends images a little, as another hand would have written: elastic distortion, in the manner
    of Simard, Steinkraus and Platt (2003).

    Args:
        images: float32 tensor (n, 784) in [0, 1].
        push: the longest in each direction, pixels; neighbouring pushes add up.
        share: of the images that are bent, a number or (n,); the others stay as they are.
        uniform: draws in [0, 1), (n, WARP_DRAWS).

    Returns:
        float32 (n, 784) in [0, 1], interpolated linearly, then sharpened; 0 where nothing was.
    """
    import tensorflow as tf

    pushes = tf.split(push * (2 * uniform[:, :-1] - 1), 2, axis=1)
    pixel_rows, pixel_columns = np.indices((SIDE, SIDE), np.float32).reshape(2, -1)
    grid = np.linspace(3, SIDE - 4, PUSHES)
    squares = [(pixel_columns - x) ** 2 + (pixel_rows - y) ** 2 for x in grid for y in grid]
    fades = np.exp(np.float32(squares) / (-2 * FADE**2))
    # Around each image a frame of dark pixels, which stand for all outside.
    square, side = tf.reshape(images, [-1, SIDE, SIDE]), SIDE + 2
    padded = tf.reshape(tf.pad(square, [[0, 0], [1, 1], [1, 1]]), [-1])
    # Where each pixel comes from, and what lies there.
    places = (pixel_columns + pushes[0] @ fades, pixel_rows + pushes[1] @ fades)
    x, y = (tf.clip_by_value(place + 1, 0, side - 1) for place in places)
    left, top = (tf.minimum(tf.floor(place), side - 2) for place in (x, y))
    first = side**2 * tf.range(tf.shape(images)[0])[:, None] + tf.cast(side * top + left, tf.int32)
    a, b, c, d = (tf.gather(padded, first + step) for step in (0, 1, side, side + 1))
    upper, lower = a + (x - left) * (b - a), c + (x - left) * (d - c)
    bent = 0.5 + CONTRAST * (upper + (y - top) * (lower - upper) - 0.5)
    chosen = uniform[:, -1:] < tf.reshape(share, [-1, 1])
    return tf.where(chosen, tf.clip_by_value(bent, 0, 1), images)


def framed(image, middle):
    """Returns an image, uint8 (height, width), in 28x28, centred by mass at `middle`."""
    frame, sides = np.zeros((SIDE, SIDE), np.uint8), np.array(image.shape)
    top, left = np.clip(np.rint(middle - mass(image)).astype(int), 0, SIDE - sides)
    frame[top : top + sides[0], left : left + sides[1]] = image
    return frame


def mass(image):
    """The centre of mass of an image, in pixels from its first: (row, column)."""
    from scipy import ndimage

    return np.array(ndimage.center_of_mass(image))


def _split(wanted, x_train, y_train, x_test, y_test):
    """Names, hashes and splits arrays as the classic TensorFlow tutorial did.

    Args:
        wanted: the name that was asked for. MNIST is known by its hash; other sets of its sizes
            are taken at their word.
    """
    digest = _sha256(x_train, y_train, x_test, y_test)
    name = "mnist" if digest == MNIST_SHA256 else "custom"
    if name != "mnist" and wanted in SAME_SIZES and (len(x_train), len(x_test)) == (60_000, 10_000):
        name = wanted
    kept = len(x_train) - len(x_train) // (11 if name == "custom" else 12)
    parts = (x_train[:kept], y_train[:kept]), (x_train[kept:], y_train[kept:]), (x_test, y_test)
    return Dataset(name, digest, *(Split(*part) for part in parts))


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
    images = np.stack([framed(image, (SIDE - 1) / 2) for image in scaled]).reshape(-1, PIXELS)
    labels = labels.astype(np.uint8)
    # A fixed draw: the split is part of the data set and does not follow --seed.
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=300, stratify=labels, random_state=0
    )
    train, validation = train_test_split(rest, test_size=200, stratify=labels[rest], random_state=0)
    parts = (Split(images[part], labels[part]) for part in (train, validation, test))
    return Dataset("digits", _sha256(images, labels), *parts)


def _read(path):
    """Returns the four arrays of an `.npz` file, or of a folder with one or with IDX files."""
    npz = os.path.join(path, "mnist.npz") if os.path.isdir(path) else path
    if os.path.exists(npz):
        return _checked(npz, *_read_npz(npz, NPZ_KEYS))
    if not os.path.isdir(path):
        raise UserError(f"{path} does not exist: {PLACES}")
    found = []
    for name in IDX_FILES:
        choices = [os.path.join(path, name + ending) for ending in ("", ".gz")]
        found += [choice for choice in choices if os.path.isfile(choice)][:1]
    if len(found) < len(IDX_FILES):
        raise UserError(f"{path} holds neither mnist.npz nor the four IDX files: {PLACES}")
    return _checked(path, *map(_read_idx, found))


def _read_npz(path, keys):
    """Returns the arrays of an `.npz` file, in the order of `keys`."""
    with files.open_regular(path) as file, cli.explained(after=f"; {EXPECTED}"):
        return files.read_npz(file, path, dict.fromkeys(keys, _accepts), compressed=True).values()


def _accepts(shape, dtype):
    """Whether an array of this shape and type may be images or labels."""
    fits = shape[1:] in ((), (PIXELS,), (SIDE, SIDE)) and len(shape) >= 1
    return fits and shape[0] <= MOST_IMAGES and dtype.kind in "iu"


def _read_idx(path):
    """Reads one IDX file, gzipped or not (the format: LeCun, Cortes and Burges, MNIST page)."""
    dimensions = 3 if "idx3" in os.path.basename(path) else 1
    with files.open_regular(path) as file:
        content = gzip.GzipFile(fileobj=file) if path.endswith(".gz") else file
        with files.damage(path):
            header = np.frombuffer(content.read(4 + 4 * dimensions), ">u4").tolist()
            shape = header[1:]
            if len(shape) != dimensions or header[0] != 2048 + dimensions:
                raise ValueError("no IDX file of bytes, or a truncated one")
            if not _accepts(tuple(shape), np.dtype(np.uint8)):
                raise ValueError(f"unexpected shape {tuple(shape)}; {EXPECTED}")
        return files.read_exactly(content, shape, np.uint8, path)


def _checked(path, x_train, y_train, x_test, y_test):
    """Returns the four arrays as uint8, images (n, 784), where they make a data set."""
    arrays = x_train, y_train, x_test, y_test
    if any(array.size and (array.min() < 0 or array.max() > 255) for array in arrays):
        raise UserError(f"{path} has values outside 0 to 255: save the arrays as uint8")
    for part, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        if images.ndim == 1 or labels.ndim != 1 or len(images) != len(labels):
            shapes = f"images of shape {images.shape} with labels of shape {labels.shape}"
            raise UserError(f"{path}: {part} {shapes}: {EXPECTED}")
    if len(x_train) < 11 or len(x_test) < 2:
        raise UserError(f"{path}: {len(x_train)} training, {len(x_test)} test images are too few")
    x_train, y_train, x_test, y_test = (array.astype(np.uint8) for array in arrays)
    return x_train.reshape(-1, PIXELS), y_train, x_test.reshape(-1, PIXELS), y_test
