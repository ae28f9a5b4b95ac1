"""Images and labels as arrays, and how they become batches; nothing about models.

    import data
    mnist = data.load("auto")            # MNIST where it is available, otherwise digits
    mnist.train.images                   # uint8, (55000, 784)

MNIST comes from `data_dir` in any format, or by Keras's cached download. Other images in the same
formats are named `custom`. `digits` are the 1,797 handwritten digits in scikit-learn's wheel.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from support import datasets, noise
from support.datasets.types import PIXELS, SIDE, Contents, Dataset, Split
from support.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["PIXELS", "SIDE", "Dataset", "Split", "batches", "load", "mnist_test_100", "to_float"]

MNIST_SHA256 = "5a4d4600f9ae243d0ab9ee1ff6d948035e6f85a423fdfacf899262ac3ca6f325"
# MNIST and the data sets that were made to replace it: the last twelfth of their training images
# validates, 5,000; and of other data the last eleventh.
SAME_SIZES = ("fashion_mnist", "kmnist")
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
MNIST_SHARE, CUSTOM_SHARE = 12, 11
# Without a test part, every seventh image: MNIST's 10,000 of 70,000.
TEST_SHARE = 7
FEWEST_TRAIN, FEWEST_TEST = 11, 2
FIRST_TEST_IMAGES = os.path.join(os.path.dirname(__file__), "better_weight", "mnist_test_100.npz")


def load(
    dataset: str = "auto",
    data_dir: str = "",
    limit: int | None = None,
    transpose: bool | None = None,
) -> Dataset:
    """Loads a data set.

    Args:
        dataset: `mnist`, `fashion_mnist`, `kmnist`, `digits`, or `custom`, which needs `data_dir`;
            `auto`: what `data_dir` holds, or MNIST where it is available, or digits with a reason.
        data_dir: a file, folder or archive; empty: a download, cached.
        limit: keep the first `limit` training images only; None: all.
        transpose: whether to exchange rows and columns of the images; None: where the names of the
            files say that they are EMNIST's.

    Raises:
        UserError: what is named cannot be read or is not available, or is another data set.
    """
    fallback_reason = ""
    if dataset == "digits":
        if data_dir:
            raise UserError(f"the data set digits does not use {data_dir}: leave out one of them")
        loaded = _digits()
    elif data_dir:
        contents = datasets.formats.read(os.path.expanduser(data_dir), transpose)
        loaded = _of_files(contents, dataset, data_dir)
    elif dataset == "custom":
        raise UserError("the data set custom has no download: --data_dir names your files")
    else:
        name = "mnist" if dataset == "auto" else dataset
        try:
            loaded = _downloaded(name)
        except UserError as error:
            if dataset != "auto":
                raise
            fallback_reason = str(error)
            loaded = _digits()
    train = _chosen(loaded.train, slice(limit))
    return loaded._replace(train=train, fallback_reason=fallback_reason)


def mnist_test_100(reason: str) -> Dataset:
    """Returns the first 100 test images of MNIST, which this repository has in a file; no others.

    Args:
        reason: why not all; the data set's `fallback_reason`.
    """
    contents = datasets.formats.read(FIRST_TEST_IMAGES)
    nothing = Split(np.zeros((0, PIXELS), np.uint8), np.zeros(0, np.uint8))
    return Dataset(
        "mnist",
        MNIST_SHA256,
        train=nothing,
        validation=nothing,
        test=contents.parts["train"],
        fallback_reason=reason,
    )


def batches(images: int, batch: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """Which images make up each step of an epoch: a function of (seed, epoch) alone.

    Args:
        images: how many images there are.
        batch: the global batch size; the last partial batch is dropped.

    Returns:
        int32 (steps, batch), indices into the training images.
    """
    order = noise.epoch_order(images, seed, epoch)
    steps = images // batch
    return order[: steps * batch].reshape(steps, batch)


def to_float(images: NDArray[np.uint8] | tf.Tensor) -> tf.Tensor:
    """Returns uint8 images as a float32 tensor in [0, 1]."""
    import tensorflow as tf

    return tf.cast(images, tf.float32) * (1 / 255)


def _downloaded(name: str) -> Dataset:
    """A data set by name, from the cache or the network."""
    download = datasets.download.fetch(name)
    contents = datasets.formats.read_entries(download.listing, name)
    loaded = _named_and_split(contents, name)
    return loaded._replace(notices=download.notices)


def _of_files(contents: Contents, wanted: str, data_dir: str) -> Dataset:
    """A data set in the user's files, with what is to be said about it."""
    loaded = _named_and_split(contents, wanted)
    if loaded.name == "mnist":
        return loaded
    if wanted == "mnist":
        raise UserError(
            f"{data_dir} holds other arrays than MNIST's ({len(contents.parts['train'].images):,} "
            "training images): without --dataset mnist they are trained on as custom data"
        )
    notices = [*contents.notices, *loaded.notices]
    if wanted in SAME_SIZES and loaded.name == "custom":
        notices.append(
            f"these are not all {TRAIN_IMAGES:,} and {TEST_IMAGES:,} images of {wanted}: "
            "the data set is named custom"
        )
    notices += datasets.inspection.notices(loaded, contents.transposed)
    description = datasets.inspection.describe(contents, loaded)
    return loaded._replace(description=description, notices=tuple(notices))


def _named_and_split(contents: Contents, wanted: str) -> Dataset:
    """Names, hashes and splits images and labels.

    Args:
        contents: of the files.
        wanted: the name that was asked for. MNIST is known by its hash; other sets of its sizes
            are called what they were asked for.
    """
    train, test = contents.parts["train"], contents.parts.get("test")
    validation = contents.parts.get("validation")
    in_order = [part for part in (train, validation, test) if part is not None]
    digest = _sha256(*(array for part in in_order for array in part if array is not None))
    sizes = len(train.images), len(test.images) if test else 0
    name = "custom"
    if digest == MNIST_SHA256:
        name = "mnist"
    elif wanted in SAME_SIZES and sizes == (TRAIN_IMAGES, TEST_IMAGES) and not validation:
        name = wanted
    notices = []
    if test is None:
        train, test = _apart(train, TEST_SHARE)
        notices.append(
            f"there are no test images: {len(test.images):,} were set aside, always the same, "
            "from each class its share"
        )
    if validation is None:
        if name == "custom" and _by_class(train):
            train, validation = _apart(train, CUSTOM_SHARE)
            notices.append(
                "the training images are sorted by class: the validation images were taken from "
                "each class its share, always the same"
            )
        else:
            share = CUSTOM_SHARE if name == "custom" else MNIST_SHARE
            train, validation = _last(train, share)
    _require_enough(train, validation, test)
    return Dataset(
        name, digest, train, validation, test, contents.class_names, notices=tuple(notices)
    )


def _sha256(*arrays: NDArray) -> str:
    """The SHA-256 of arrays with their shapes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _last(part: Split, share: int) -> tuple[Split, Split]:
    """Returns a part without its last images, one in `share`, and these."""
    kept = len(part.images) - len(part.images) // share
    return _chosen(part, slice(kept)), _chosen(part, slice(kept, None))


def _apart(part: Split, share: int) -> tuple[Split, Split]:
    """Returns a part without one in `share` of the images of each class, and these.

    Both are shuffled, always in the same way: the split does not follow --seed.
    """
    order = np.random.default_rng(0).permutation(len(part.images))
    labels = np.zeros(len(order), np.uint8) if part.labels is None else part.labels[order]
    apart = np.zeros(len(order), bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        apart[of_class[: round(len(of_class) / share)]] = True
    if apart.sum() < len(order) // (2 * share):
        # Most classes have too few images to give one.
        apart[: len(order) // share] = True
    return _chosen(part, order[~apart]), _chosen(part, order[apart])


def _chosen(part: Split, index: slice | NDArray) -> Split:
    labels = None if part.labels is None else part.labels[index]
    return Split(part.images[index], labels)


def _by_class(part: Split) -> bool:
    """Whether images are sorted by class, so that the last of them show few classes."""
    if part.labels is None or len(part.labels) < 2:
        return False
    changes = np.count_nonzero(np.diff(part.labels))
    classes = len(np.unique(part.labels))
    return classes > 1 and bool(changes < min(2 * classes, len(part.labels) / 4))


def _require_enough(train: Split, validation: Split, test: Split) -> None:
    used = len(train.images) + len(validation.images)
    if used < FEWEST_TRAIN or len(test.images) < FEWEST_TEST or not len(validation.images):
        raise UserError(
            f"{used} training and {len(test.images)} test images are too few: expected "
            f"{FEWEST_TRAIN} and {FEWEST_TEST} at least"
        )


def _digits() -> Dataset:
    """The digits of scikit-learn."""
    images, labels = datasets.sklearn_digits.load()
    train, validation, test = datasets.sklearn_digits.split(images, labels)
    return Dataset("digits", _sha256(images, labels), train, validation, test)
