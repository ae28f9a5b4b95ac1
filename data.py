"""Loads data sets as arrays of images and labels, and forms batches; knows nothing about models.

    import data
    mnist = data.load("auto")            # MNIST if it is available, otherwise digits
    mnist.train.images                   # uint8, (55000, 784)

MNIST is read from `data_dir`, or else downloaded and cached as Keras does. Other images in
`data_dir` are the data set `custom`. `digits` is the set of 1,797 handwritten digits that is part
of scikit-learn.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from support import cli, datasets, noise
from support.datasets.types import PIXELS, SIDE, Contents, Dataset, Split
from support.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["PIXELS", "SIDE", "Dataset", "Split", "batches", "load", "mnist_test_100", "to_float"]

MNIST_SHA256 = "5a4d4600f9ae243d0ab9ee1ff6d948035e6f85a423fdfacf899262ac3ca6f325"
# Data sets that were made to replace MNIST, with as many images.
SAME_SIZES = ("fashion_mnist", "kmnist")
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
# If there is no validation part, one in this many training images is set aside for it: the last
# twelfth (5,000) in MNIST and the data sets above, the last eleventh in other data.
MNIST_SHARE, CUSTOM_SHARE = 12, 11
# If there is no test part, one in this many images is set aside for it, as in MNIST (10,000 of
# 70,000).
TEST_SHARE = 7
FEWEST_TRAIN, FEWEST_TEST = 11, 2
FIRST_TEST_IMAGES = os.path.join(os.path.dirname(__file__), "better_weight", "mnist_test_100.npz")


def load(
    dataset: str = "auto",
    data_dir: str = "",
    limit: int | None = None,
    transpose: bool | None = None,
    classes: Sequence[str] = (),
) -> Dataset:
    """Loads a data set.

    Args:
        dataset: `mnist`, `fashion_mnist`, `kmnist`, `digits`, or `custom` (which needs `data_dir`);
            `auto`: what `data_dir` holds; without `data_dir`, MNIST if it is available, and
            otherwise digits, with a `fallback_reason`.
        data_dir: the path of a file, folder or archive; empty: the data set is downloaded, or read
            from the cache.
        limit: keep only the first `limit` training images (of `classes`); None: all.
        transpose: whether to exchange the rows and columns of the images; None: only if the names
            of the files say that the images are EMNIST's.
        classes: keep only the training and validation images of these classes, which are numbers
            or names as a user types them; empty: all.

    Raises:
        UserError: the data set cannot be read or is not available, or `data_dir` holds another one;
            or it lacks one of `classes`.
    """
    fallback_reason = ""
    if dataset == "digits":
        if data_dir:
            raise UserError(
                f"--dataset digits does not use {data_dir}: leave out --dataset or --data_dir"
            )
        loaded = _digits()
    elif data_dir:
        contents = datasets.formats.read(os.path.expanduser(data_dir), transpose)
        loaded = _of_files(contents, dataset, data_dir)
    elif dataset == "custom":
        raise UserError(
            "the data set custom cannot be downloaded: give the path of your files with --data_dir"
        )
    else:
        name = "mnist" if dataset == "auto" else dataset
        try:
            loaded = _downloaded(name)
        except UserError as error:
            if dataset != "auto":
                raise
            fallback_reason = str(error)
            loaded = _digits()
    if classes:
        loaded = _of_classes(loaded, classes)
    train = _chosen(loaded.train, slice(limit))
    return loaded._replace(train=train, fallback_reason=fallback_reason)


def mnist_test_100(reason: str) -> Dataset:
    """Returns only the first 100 test images of MNIST, which are in a file of this repository.

    Args:
        reason: why MNIST itself is not available; becomes the data set's `fallback_reason`.
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
    """Returns which images make up each step of an epoch, in an order set by (seed, epoch) alone.

    Args:
        images: the number of training images.
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
    """Returns a data set by name, from the cache or the internet."""
    download = datasets.download.fetch(name)
    contents = datasets.formats.read_entries(download.listing, name)
    loaded = _named_and_split(contents, name)
    return loaded._replace(notices=download.notices)


def _of_files(contents: Contents, wanted: str, data_dir: str) -> Dataset:
    """Returns the data set in the user's files, with a description and notices."""
    loaded = _named_and_split(contents, wanted)
    if loaded.name == "mnist":
        return loaded
    if wanted == "mnist":
        raise UserError(
            f"{data_dir} does not hold MNIST (it has {len(contents.parts['train'].images):,} "
            "training images): leave out --dataset mnist to use it as custom data"
        )
    notices = [*contents.notices, *loaded.notices]
    if wanted in SAME_SIZES and loaded.name == "custom":
        notices.append(
            f"the files do not hold exactly the {TRAIN_IMAGES:,} training and {TEST_IMAGES:,} test "
            f"images of {wanted}: the data set is named custom"
        )
    notices += datasets.inspection.notices(loaded, contents.transposed)
    for_training = tuple(datasets.inspection.training_notices(loaded))
    description = datasets.inspection.describe(contents, loaded)
    return loaded._replace(
        description=description, notices=tuple(notices), training_notices=for_training
    )


def _named_and_split(contents: Contents, wanted: str) -> Dataset:
    """Names, hashes and splits images and labels.

    Args:
        contents: what the files hold.
        wanted: the name that was asked for. MNIST is recognized by its hash; the data sets in
            `SAME_SIZES` are recognized by their sizes, if they were asked for.
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
            f"no test images were found: {len(test.images):,} training images were set aside for "
            "testing (a fixed split, in proportion to the classes)"
        )
    if validation is None:
        if name == "custom" and _by_class(train):
            train, validation = _apart(train, CUSTOM_SHARE)
            notices.append(
                "the training images are sorted by class, so the validation images were taken from "
                "every class in proportion (a fixed split)"
            )
        else:
            share = CUSTOM_SHARE if name == "custom" else MNIST_SHARE
            train, validation = _last(train, share)
    _require_enough(train, validation, test)
    return Dataset(
        name, digest, train, validation, test, contents.class_names, notices=tuple(notices)
    )


def _sha256(*arrays: NDArray) -> str:
    """Returns the SHA-256 of arrays and their shapes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _last(part: Split, share: int) -> tuple[Split, Split]:
    """Splits off the last images of a part, one in `share`; returns the rest, then these."""
    kept = len(part.images) - len(part.images) // share
    return _chosen(part, slice(kept)), _chosen(part, slice(kept, None))


def _apart(part: Split, share: int) -> tuple[Split, Split]:
    """Splits off one in `share` of the images of each class; returns the rest, then these.

    Both are shuffled, always in the same way: the split does not depend on --seed.
    """
    order = np.random.default_rng(0).permutation(len(part.images))
    labels = np.zeros(len(order), np.uint8) if part.labels is None else part.labels[order]
    apart = np.zeros(len(order), bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        apart[of_class[: round(len(of_class) / share)]] = True
    if apart.sum() < len(order) // (2 * share):
        # Most classes are too small to contribute an image.
        apart[: len(order) // share] = True
    return _chosen(part, order[~apart]), _chosen(part, order[apart])


def _chosen(part: Split, index: slice | NDArray) -> Split:
    labels = None if part.labels is None else part.labels[index]
    return Split(part.images[index], labels)


def _of_classes(loaded: Dataset, classes: Sequence[str]) -> Dataset:
    """Returns a data set with the training and validation images of some classes only."""
    train, validation = loaded.train, loaded.validation
    if train.labels is None or validation.labels is None:
        raise UserError("the images have no labels, which --digits needs: leave out --digits")
    with cli.error_context("the data "):
        wanted = sorted(set(datasets.labels.labels_of(classes, loaded.class_names)))
    existing = np.unique(train.labels).tolist()
    missing = [label for label in wanted if label not in existing]
    if missing:
        raise UserError(
            f"the data has no training images of class {missing[0]}, which --digits asks for: "
            f"choose from {cli.as_typed(existing):.400}"
        )
    if wanted == existing:
        return loaded
    train = _chosen(train, np.isin(train.labels, wanted))
    validation = _chosen(validation, np.isin(validation.labels, wanted))
    _require_enough(train, validation, loaded.test)
    return loaded._replace(train=train, validation=validation, classes=tuple(wanted))


def _by_class(part: Split) -> bool:
    """Whether images are sorted by class, so that the last ones belong to few classes."""
    if part.labels is None or len(part.labels) < 2:
        return False
    changes = np.count_nonzero(np.diff(part.labels))
    classes = len(np.unique(part.labels))
    return classes > 1 and bool(changes < min(2 * classes, len(part.labels) / 4))


def _require_enough(train: Split, validation: Split, test: Split) -> None:
    used = len(train.images) + len(validation.images)
    if used < FEWEST_TRAIN or len(test.images) < FEWEST_TEST or not len(validation.images):
        raise UserError(
            f"{used} training and {len(test.images)} test images are too few: expected at least "
            f"{FEWEST_TRAIN} and {FEWEST_TEST}"
        )


def _digits() -> Dataset:
    """Returns the digits of scikit-learn."""
    images, labels = datasets.sklearn_digits.load()
    train, validation, test = datasets.sklearn_digits.split(images, labels)
    return Dataset("digits", _sha256(images, labels), train, validation, test)
