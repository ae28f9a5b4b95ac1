"""Describes in a few lines what the user's files hold, and what is probably wrong with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from support.datasets.types import SIDE, Contents, Dataset, Split

# The mean over the pixels of MNIST's training images, in [0, 1].
MNIST_INK = 0.131
BRIGHT = 0.5
FEWEST_OF_A_CLASS = 10
# Fewer training images than this are worth a notice.
FEW_IMAGES = 5_000
MOST_CLASSES_SHOWN = 12
SAMPLE = 2_000
# On average, upright digits and letters are taller than wide.
WIDER = 1.1


def describe(contents: Contents, dataset: Dataset) -> tuple[str, ...]:
    """Returns the lines that describe a data set.

    Args:
        contents: what the files hold.
        dataset: the same images after they were split.
    """
    counts = [len(part.images) for part in (dataset.train, dataset.validation, dataset.test)]
    lines = [
        f"{'files':8}{contents.files}",
        f"{'values':8}{contents.values}",
        f"{'images':8}{counts[0]:,} train, {counts[1]:,} validation, {counts[2]:,} test",
        f"{'classes':8}{_classes(dataset)}",
        f"{'ink':8}mean pixel value {mean_ink(dataset.train.images):.3f} of 1 (MNIST: {MNIST_INK})",
    ]
    return tuple(lines)


def _classes(dataset: Dataset) -> str:
    labels = all_labels(dataset)
    if labels is None:
        return "no labels"
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    if len(present) > MOST_CLASSES_SHOWN:
        fewest, most = counts[present].min(), counts[present].max()
        return f"{len(present)}, with {fewest:,} to {most:,} images each"
    shown = [f"{class_name(dataset, label)} ({counts[label]:,})" for label in present.tolist()]
    return f"{len(present)}: {', '.join(shown)}"


def class_name(dataset: Dataset, label: int) -> str:
    """Returns the class name of a label."""
    if dataset.class_names:
        return dataset.class_names[label]
    return str(label)


def all_labels(dataset: Dataset) -> NDArray[np.uint8] | None:
    """Returns the labels of all parts; None if there are none."""
    labels = [part.labels for part in (dataset.train, dataset.validation, dataset.test)]
    found = [part for part in labels if part is not None]
    return np.concatenate(found) if found else None


def mean_ink(images: NDArray[np.uint8]) -> float:
    """The mean pixel value of images, or of a sample of them, in [0, 1]."""
    step = max(1, len(images) // 10_000)
    return float(images[::step].mean() / 255)


def notices(dataset: Dataset, transposed: bool) -> list[str]:
    """Returns a line for everything that is probably wrong.

    Args:
        dataset: the data set to check.
        transposed: whether the rows and columns of its images have been exchanged already.
    """
    return [
        *_about_values(dataset.train, transposed),
        *_about_labels(dataset),
        *_about_repeats(dataset),
    ]


def _about_values(train: Split, transposed: bool) -> list[str]:
    found = []
    ink, largest = mean_ink(train.images), train.images.max()
    if ink > BRIGHT:
        found.append(
            f"the images are mostly bright (mean {ink:.2f} of 1), unlike MNIST's bright ink on "
            "dark: if they show dark ink on bright paper, invert them (255 - x, or 1 - x if they "
            "range from 0 to 1)"
        )
    elif largest == 0:
        found.append("all images are black")
    elif largest < 128:
        found.append(
            f"the largest pixel value is {largest}, expected 255: check that the images are not "
            "too dark"
        )
    if not transposed and lies_on_its_side(train.images):
        found.append(
            "what the images show is wider than tall: if they lie on their sides, as EMNIST's do, "
            "use --transpose"
        )
    return found


def lies_on_its_side(images: NDArray[np.uint8]) -> bool:
    """Whether the ink is wider than tall by a factor of `WIDER`, on average over some images."""
    step = max(1, len(images) // SAMPLE)
    square = images[::step].reshape(-1, SIDE, SIDE) > 127
    rows, columns = square.any(axis=2).sum(axis=1), square.any(axis=1).sum(axis=1)
    return bool(rows.mean() > 0 and columns.mean() > WIDER * rows.mean())


def _about_labels(dataset: Dataset) -> list[str]:
    labels = all_labels(dataset)
    if labels is None or dataset.train.labels is None:
        return []
    found = []
    counts = np.bincount(dataset.train.labels, minlength=int(labels.max()) + 1)
    present = np.unique(labels)
    if len(present) == 1:
        found.append(f"all labels are the same ({class_name(dataset, int(present[0]))})")
        return found
    few = [label for label in present if counts[label] < FEWEST_OF_A_CLASS]
    if few:
        shown = ", ".join(class_name(dataset, int(label)) for label in few[:MOST_CLASSES_SHOWN])
        classes = "class has" if len(few) == 1 else "classes have"
        found.append(
            f"{len(few)} {classes} fewer than {FEWEST_OF_A_CLASS} training images ({shown})"
        )
    return found


def _about_repeats(dataset: Dataset) -> list[str]:
    trained_on = set(_hashes(dataset.train.images))
    repeated = sum(image in trained_on for image in _hashes(dataset.test.images))
    if not repeated:
        return []
    return [
        f"{repeated:,} of the {len(dataset.test.images):,} test images are also training images: "
        "test results will be better than on new images"
    ]


def _hashes(images: NDArray[np.uint8]) -> list[int]:
    return [hash(image.tobytes()) for image in images]


def training_notices(dataset: Dataset) -> list[str]:
    """Returns what matters only to who trains on a data set."""
    images = len(dataset.train.images)
    if images >= FEW_IMAGES:
        return []
    return [
        f"{images:,} training images are few: expect blurred samples, and train for at least a "
        "few thousand steps (the default number of epochs is enough)"
    ]
