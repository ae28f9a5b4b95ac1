"""Converts labels of any type to bytes, and keeps them as class names if they are renumbered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from support import cli
from support.errors import UserError
from support.text import printable

MOST_CLASSES = 256
MOST_COLUMNS = 256
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Encoded(NamedTuple):
    """The labels of all parts as uint8, and the names of the classes if labels were renumbered."""

    parts: dict[str, NDArray[np.uint8]]
    class_names: tuple[str, ...]


def can_be(shape: tuple[int, ...], count: int) -> bool:
    """Whether an array of this shape may be the labels of `count` images."""
    if len(shape) == 1:
        return shape[0] == count
    return len(shape) == 2 and count in shape and min(shape) <= MOST_COLUMNS


def one_each(array: NDArray, count: int, what: str) -> tuple[NDArray, str]:
    """Returns one label for each image, and a notice about how they were read (often empty).

    Args:
        array: (n,), (n, 1), (1, n), one-hot (n, classes), or several columns, the first of which
            is the label, as in QMNIST.
        count: the number of images.
        what: the file or array, for messages.

    Raises:
        UserError: there are not `count` labels.
    """
    if not can_be(array.shape, count):
        raise UserError(
            f"{what} has labels of shape {array.shape} for {count:,} images: expected one label "
            "for each image"
        )
    if array.ndim == 1:
        return array, ""
    if len(array) != count:
        array = array.T
    if array.shape[1] == 1:
        return array[:, 0], ""
    if array.dtype.kind in "biuf" and _is_one_hot(array):
        return np.argmax(array, axis=1), ""
    notice = f"{what} has {array.shape[1]} columns of labels: the first was used"
    return array[:, 0], notice


def _is_one_hot(array: NDArray) -> bool:
    binary = bool(((array == 0) | (array == 1)).all())
    return binary and bool((array.sum(axis=1) == 1).all())


def encode(parts: dict[str, NDArray], what: str) -> Encoded:
    """Turns labels into bytes.

    Whole numbers from 0 to 255 stay as they are. Other labels are sorted and numbered, and their
    names are kept; the English words for digits become these digits.

    Raises:
        UserError: there are too many classes, or labels are fractions.
    """
    kinds = {array.dtype.kind for array in parts.values()}
    if kinds & {"U", "S"} and len(kinds) > 1:
        parts = {part: array.astype(str) for part, array in parts.items()}
    together = np.concatenate(list(parts.values()))
    if together.dtype.kind == "f":
        whole = np.isfinite(together) & (together == np.rint(together))
        if not whole.all():
            bad = together[~whole][0]
            raise UserError(f"{what} has the label {bad:g}: expected whole numbers or names")
        parts = {part: array.astype(np.int64) for part, array in parts.items()}
        together = together.astype(np.int64)
    if together.dtype.kind in "US":
        return _names_encoded(parts, together, what)
    if together.dtype.kind not in "biu":
        raise UserError(f"{what} has labels of type {together.dtype}: expected numbers or names")
    if together.size == 0 or (together.min() >= 0 and together.max() < MOST_CLASSES):
        return Encoded({part: array.astype(np.uint8) for part, array in parts.items()}, ())
    return _numbered(parts, sorted(set(together.tolist())), what)


def _names_encoded(parts: dict[str, NDArray], together: NDArray, what: str) -> Encoded:
    if together.dtype.kind == "S":
        together = np.char.decode(together, "utf-8", "replace")
        parts = {part: np.char.decode(array, "utf-8", "replace") for part, array in parts.items()}
    names = set(together.tolist())
    blank = np.flatnonzero(np.char.strip(together.astype(str)) == "")
    if len(blank):
        raise UserError(
            f"{what} has {len(blank):,} images without a label, the first of them image "
            f"{blank[0] + 1:,}: label them, or remove them"
        )
    if all(re.fullmatch("[0-9]{1,3}", name) and int(name) < MOST_CLASSES for name in names):
        return Encoded(
            {part: array.astype(int).astype(np.uint8) for part, array in parts.items()}, ()
        )
    words = {name: name.strip().lower() for name in names}
    if set(words.values()) <= set(DIGIT_WORDS) and len(set(words.values())) == len(names):
        digit = {name: DIGIT_WORDS.index(word) for name, word in words.items()}
        return Encoded(_mapped(parts, digit), DIGIT_WORDS)
    return _numbered(parts, sorted(names, key=natural), what)


def _numbered(parts: dict[str, NDArray], names: list, what: str) -> Encoded:
    if len(names) > MOST_CLASSES:
        raise UserError(
            f"{what} has {len(names):,} different labels, such as {printable(str(names[0]))!r}: "
            f"expected at most {MOST_CLASSES} classes"
        )
    number = {name: index for index, name in enumerate(names)}
    return Encoded(_mapped(parts, number), tuple(printable(str(name)) for name in names))


def _mapped(parts: dict[str, NDArray], number: dict) -> dict[str, NDArray[np.uint8]]:
    return {
        part: np.array([number[label] for label in array.tolist()], np.uint8)
        for part, array in parts.items()
    }


def labels_of(classes: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Returns the labels of classes.

    Args:
        classes: numbers, or names in `class_names`, as a user types them.
        class_names: the names of the classes; empty: they are numbers.

    Raises:
        UserError: there is no such class.
    """
    labels = {name.casefold(): label for label, name in enumerate(class_names)}
    if not class_names or tuple(class_names) == DIGIT_WORDS:
        labels |= {str(number): number for number in range(MOST_CLASSES)}
    unknown = [name for name in classes if name.casefold() not in labels]
    if unknown:
        known = cli.as_typed(class_names) if class_names else "whole numbers from 0 to 255"
        advice = cli.separation_hint(unknown[0]) or f": choose from {known:.400}"
        raise UserError(f"has no class {unknown[0]!r:.40}{advice}")
    return [labels[name.casefold()] for name in classes]


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts names as people do: img_2 before img_10."""
    key = []
    for piece in re.split("([0-9]+)", name.lower()):
        if piece[:1].isdigit() and piece.isascii():
            digits = piece.lstrip("0")
            key.append((0, len(digits), digits))
        elif piece:
            key.append((1, 0, piece))
    return key
