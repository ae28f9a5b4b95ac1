"""Turns pictures of handwritten digits (photos, scans, screenshots) into images like MNIST's.

    digits, notices = photos.read(["my7.png", "scans", "phone/*.jpg"])
    digits[0].pixels                  # uint8 (784,), bright ink on dark

The steps are: file -> greyscale (picture_files) -> sheet, darkness of the ink (ink) -> digits
(segmentation) -> 28x28 (preprocessing).
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from support.datasets import ink, picture_files, preprocessing, segmentation
from support.datasets.entries import is_stray
from support.datasets.ink import Grey
from support.datasets.types import PIXELS
from support.errors import UserError
from support.text import printable

# The most files in one call, entries read from one folder or pattern, and digits in one picture.
MOST_FILES, MOST_ENTRIES, MOST_DIGITS = 1000, 100_000, 40
# How many names a notice lists.
LISTED = 5
# The side of a crop in pixels, and the margin around its digit, as a share of the digit's size.
CROP_SIDE, CROP_MARGIN = 112, 0.25
# Smaller pictures are enlarged to this many pixels on their longer side, for wider strokes.
SMALLEST = 200


@dataclass(frozen=True)
class Digit:
    """One digit of a picture.

    Attributes:
        file: the path, as given or as found in a folder.
        name: the file's name; " (2 of 3)" is added if one picture has several digits.
        crop: uint8 (112, 112), the part of the picture that shows the digit, as a person sees it.
        pixels: uint8 (784,), the preprocessed image: bright ink on dark, as in MNIST.
    """

    file: str
    name: str
    crop: NDArray[np.uint8]
    pixels: NDArray[np.uint8]


class Pictures(NamedTuple):
    """The digits of some pictures, and notices about files without digits or with several."""

    digits: list[Digit]
    notices: list[str]


def read(paths: Sequence[str]) -> Pictures:
    """Reads pictures of digits.

    Args:
        paths: paths of files, folders (which are read with their subfolders), and patterns such as
            `*.jpg`.

    Raises:
        UserError: no digit was found in any of them, or there are too many files.
    """
    found = _expanded(paths)
    strays, failures = found.strays, found.failures
    digits: list[Digit] = []
    notices: list[str] = []
    for path in found.files:
        try:
            of_picture = read_picture(path)
        except picture_files.NotAPicture:
            strays.append(path)
        except FileNotFoundError:
            failures.setdefault("there is no such file", []).append(path)
        except UserError as error:
            notices.append(printable(str(error)))
        except ValueError as error:
            failures.setdefault(printable(str(error)), []).append(path)
        else:
            digits += of_picture
            if len(of_picture) > 1:
                notices.append(
                    f"{printable(path)} shows {len(of_picture)} digits: each becomes an image of "
                    "its own, from left to right and from top to bottom"
                )
    notices += [f"{_listed(files)}: {reason}" for reason, files in failures.items()]
    if strays:
        notices.append(f"{_listed(strays)}: skipped, as {_are_no_pictures(len(strays))}")
    if not digits:
        expected = "expected pictures of handwritten digits, such as PNG or JPEG files"
        raise UserError(f"no digit was found ({expected}): {'; '.join(notices[:LISTED])}")
    return Pictures(digits, notices)


def read_picture(path: str) -> list[Digit]:
    """Reads the digits of one picture, in reading order.

    Raises:
        FileNotFoundError, UserError, NotAPicture, ValueError: as `picture_files.read`; ValueError
            also if no digit was found, or too many.
    """
    grey = picture_files.read(path)
    name = printable(os.path.basename(path))
    found = find(grey)
    if len(found) > MOST_DIGITS:
        raise ValueError(
            f"it shows more than {MOST_DIGITS} shapes like digits: crop it to the digits"
        )
    digits = []
    for number, (crop, pixels) in enumerate(found, 1):
        part = ""
        if len(found) > 1:
            part = f" ({number} of {len(found)})"
        digits.append(Digit(path, name + part, crop, pixels.reshape(PIXELS)))
    return digits


def find(grey: Grey) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Finds the digits in a picture, in reading order.

    Args:
        grey: float (h, w), 0 black to 1 white.

    Returns:
        For each digit, its crop, uint8 (112, 112), and its preprocessed image, uint8 (28, 28).

    Raises:
        ValueError: no digit was found.
    """
    done = preprocessing.if_preprocessed(grey)
    if done is not None:
        return [(_resized(grey), done)]
    page = ink.sheet(ink.without_dark_edges(_enlarged(grey)))
    found = segmentation.digits(ink.darkness(page))
    return [(_crop(page, digit.area), preprocessing.from_ink(digit.ink)) for digit in found]


def _enlarged(grey: Grey) -> Grey:
    """Enlarges small pictures, so that the thinnest stroke is some pixels wide."""
    from PIL import Image

    factor = SMALLEST / max(grey.shape)
    if factor <= 1:
        return grey
    height, width = (max(1, round(factor * length)) for length in grey.shape)
    picture = Image.fromarray(grey.astype(np.float32))
    larger = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(larger, float), 0, 1)


def _crop(page: Grey, area: tuple[slice, slice]) -> NDArray[np.uint8]:
    """Cuts the square around a digit out of its page."""
    height, width = (part.stop - part.start for part in area)
    side = round((1 + 2 * CROP_MARGIN) * max(height, width))
    padded = np.pad(page, side, mode="edge")
    top, left = ((part.start + part.stop + side) // 2 for part in area)
    return _resized(padded[top : top + side, left : left + side])


def _resized(grey: Grey) -> NDArray[np.uint8]:
    from PIL import Image

    picture = Image.fromarray(np.uint8(np.rint(255 * np.clip(grey, 0, 1))))
    return np.asarray(picture.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BILINEAR))


class _Files(NamedTuple):
    """Files to read, files to skip, and, by reason, the given paths that lead to no file."""

    files: list[str]
    strays: list[str]
    failures: dict[str, list[str]]


def _expanded(paths: Sequence[str]) -> _Files:
    """Finds the files that are given as paths, folders or patterns.

    Raises:
        UserError: there are too many.
    """
    found = _Files([], [], {})
    for given in paths:
        path = os.path.expanduser(given)
        named = [path]
        if glob.has_magic(path) and not os.path.lexists(path):
            matches = itertools.islice(glob.iglob(path, recursive=True), MOST_ENTRIES)
            named = sorted(matches, key=_natural)
            if not named:
                found.failures.setdefault("no file matches this pattern", []).append(given)
        for one in named:
            inside = [one]
            if os.path.isdir(one):
                inside = _in_folder(one)
                if not inside:
                    found.failures.setdefault("the folder has no files", []).append(one)
            for file in inside:
                stray = is_stray(os.path.basename(file))
                (found.strays if stray else found.files).append(file)
    if len(found.files) > MOST_FILES:
        raise UserError(
            f"found {len(found.files):,} files, but at most {MOST_FILES:,} are read at a time: "
            "give the paths of fewer files"
        )
    return found


def _in_folder(folder: str, depth: int = 1) -> list[str]:
    """Returns the files in a folder and in its subfolders, in natural order."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, MOST_ENTRIES)]
    except OSError:
        return []
    files = []
    for name in sorted(names, key=_natural):
        path = os.path.join(folder, name)
        if not os.path.isdir(path):
            files.append(path)
        elif depth and not is_stray(name):
            files += _in_folder(path, depth - 1)
    return files


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts 9.png before 10.png."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(int(part[:18]) if part.isdigit() else 0, part) for part in parts]


def _are_no_pictures(count: int) -> str:
    if count == 1:
        return "it is not a picture"
    return f"these {count} files are not pictures"


def _listed(paths: Sequence[str]) -> str:
    """Returns the names of files for a message: the first few, and how many more there are."""
    names = ", ".join(printable(os.path.basename(path) or path) for path in paths[:LISTED])
    if len(paths) > LISTED:
        return f"{names} and {len(paths) - LISTED} more"
    return names
