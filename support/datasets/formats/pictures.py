"""Reads folders of pictures, one for each class, with or without train and test folders above them.

The name of a folder is its class. Greyscale pictures of 28x28 are used unchanged; others are
converted to greyscale and, if need be, preprocessed to 28x28. Pillow decodes the files.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from support.datasets import bar, labels, picture_files, preprocessing, roles
from support.datasets.entries import Entry
from support.datasets.formats import named_arrays
from support.datasets.formats.request import Request
from support.datasets.roles import TRAIN
from support.datasets.types import GREY_WEIGHTS, MOST_IMAGES, PIXELS, SIDE, Contents
from support.errors import UserError
from support.text import printable

if TYPE_CHECKING:
    from PIL import Image

# Pillow's names of the formats that are read.
PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
BEGINNINGS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
MOST_BYTES = 100_000_000
# The limit for all pictures together: some minutes of work.
MOST_PIXELS_IN_ALL = 10_000_000_000
# Up to this many pictures, or this share of them, are skipped if they cannot be read.
FEW, FEW_SHARE = 5, 0.01
# This many pixels along a side are enough for ink that becomes 20x20.
ENOUGH = 800
# A drawing whose pixel intensities differ by less than this has a single colour.
ONE_COLOUR = 0.1


class Picture(NamedTuple):
    """A picture file, with the part of the data set and the class that its folders stand for."""

    entry: Entry
    part: str
    class_name: str


def recognizes(entry: Entry) -> bool:
    """Whether this begins like a picture that Pillow reads."""
    head = entry.stored_head
    if head.startswith(BEGINNINGS):
        return True
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return True
    if head.startswith(b"BM") and entry.name.lower().endswith((".bmp", ".dib")):
        return True
    return head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()


def read(request: Request) -> Contents:
    """Reads a data set of pictures.

    Raises:
        UserError: there is only one picture, or many cannot be read.
    """
    found = sorted(_placed(request.entries), key=_order)
    if len(found) == 1:
        raise UserError(
            f"{request.where} holds one picture: expected one folder of pictures for each class "
            "(eval.py --images reads single pictures)"
        )
    if len(found) > MOST_IMAGES:
        raise UserError(
            f"{request.where} holds more than {MOST_IMAGES:,} pictures: use fewer pictures"
        )
    images, kept, notices = _read_all(found, request)
    parts: dict[str, NDArray[np.uint8]] = {}
    names: dict[str, NDArray] = {}
    for part in dict.fromkeys(picture.part for picture in kept):
        chosen = np.array([picture.part == part for picture in kept])
        parts[part] = images[chosen]
        classes = [picture.class_name for picture in kept if picture.part == part]
        if all(classes):
            names[part] = np.array(classes)
    parts, names = _with_training(parts, names)
    if not names:
        notices.append(
            "the pictures have no labels: to label them, put them into one folder for each class"
        )
    splits, class_names = named_arrays.with_labels(parts, names, request.where, notices)
    if request.transpose:
        raise UserError("--transpose is for arrays, and these are pictures: leave it out")
    values = _sizes(kept, request)
    return Contents(splits, class_names, f"pictures in {request.where}", values, tuple(notices))


def _with_training(
    parts: dict[str, NDArray[np.uint8]], names: dict[str, NDArray]
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, NDArray]]:
    """Makes the largest part the training images if no folder has that name."""
    if TRAIN in parts:
        return parts, names
    largest = max(parts, key=lambda part: len(parts[part]))
    renamed = {part: TRAIN if part == largest else part for part in parts}
    return (
        {renamed[part]: array for part, array in parts.items()},
        {renamed[part]: array for part, array in names.items()},
    )


def _placed(entries: Iterable[Entry]) -> list[Picture]:
    """Returns each file with the part and the class that its folders stand for.

    The class is the first level of folders below the part where all names are whole numbers (other
    levels may be, for example, one folder for each writer); without one, the topmost level.
    """
    folders = [entry.name.split("/")[:-1] for entry in entries]
    inner: list[list[str]] = []
    parts: list[str] = []
    for path in folders:
        part = ""
        kept: list[str] = []
        for name in path:
            named = roles.of(name).part
            if named and not part:
                part = named
                # Folders above the part say nothing about the class.
                kept = []
            elif not (named and named == part):
                kept.append(name)
        inner.append(kept)
        parts.append(part)
    shared = _shared(inner)
    inner = [path[shared:] for path in inner]
    level = _class_level(inner)
    pictures = []
    for entry, part, path in zip(entries, parts, inner, strict=True):
        class_name = ""
        if path:
            class_name = path[min(level, len(path) - 1)]
        pictures.append(Picture(entry, part or TRAIN, class_name))
    return pictures


def _shared(paths: list[list[str]]) -> int:
    """How many folders all paths have in common at their beginning."""
    shared = 0
    while all(len(path) > shared for path in paths):
        if len({path[shared] for path in paths}) > 1:
            break
        shared += 1
    return shared


def _class_level(paths: list[list[str]]) -> int:
    """The level of folders that names the classes."""
    deepest = max(map(len, paths))
    for level in range(deepest):
        names = {path[level] for path in paths if len(path) > level}
        if all(name.isdigit() for name in names):
            return level
    return 0


def _order(picture: Picture) -> tuple:
    """A key that sorts by the number in the file's name, then by class.

    This keeps the order of pictures that are numbered across classes, and mixes the classes of
    pictures that are numbered within each class.
    """
    name = picture.entry.name
    file_name = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return labels.natural(file_name), labels.natural(picture.class_name), name


def _read_all(
    found: list[Picture], request: Request
) -> tuple[NDArray[np.uint8], list[Picture], list[str]]:
    """Reads the pictures that can be read.

    Returns:
        The images, uint8 (n, 784), the pictures that they come from, and lines about what was done.

    Raises:
        UserError: many cannot be read.
    """
    with warnings.catch_warnings():
        # Pillow warns about pictures with wrong details or many pixels.
        warnings.simplefilter("ignore")
        return _read_each(found, request)


def _read_each(
    found: list[Picture], request: Request
) -> tuple[NDArray[np.uint8], list[Picture], list[str]]:
    images = np.empty((len(found), PIXELS), np.uint8)
    kept: list[Picture] = []
    failed: list[tuple[str, str]] = []
    done: Counter[str] = Counter()
    pixels = 0
    for picture in bar.shown(found, "Reading pictures"):
        try:
            with _opened(picture.entry) as opened:
                pixels += opened.width * opened.height
                images[len(kept)] = _as_bytes(opened, done)
            kept.append(picture)
        except ValueError as error:
            failed.append((picture.entry.name, printable(str(error)[:100])))
        _require_few(failed, found, request)
        if pixels > MOST_PIXELS_IN_ALL:
            raise UserError(
                f"{request.where} holds pictures with more than {MOST_PIXELS_IN_ALL:,} pixels in "
                "total: make them smaller"
            )
    notices = [_line(what, count) for what, count in done.items()]
    if failed:
        name, reason = failed[0]
        more = ""
        if len(failed) > 1:
            more = f", and {len(failed) - 1:,} more"
        notices.append(f"pictures that could not be read: {printable(name)} ({reason}){more}")
    return images[: len(kept)], kept, notices


def _line(what: str, count: int) -> str:
    if what == "preprocessed":
        return (
            f"{count:,} pictures are not 28x28: each was cropped to its ink, scaled to fit 20x20 "
            "and centred in 28x28, as in MNIST"
        )
    return f"{count:,} pictures have colours or transparency: they were converted to greyscale"


def _require_few(failed: list[tuple[str, str]], found: list[Picture], request: Request) -> None:
    if len(failed) > max(FEW, FEW_SHARE * len(found)) or len(failed) == len(found):
        name, reason = failed[0]
        raise UserError(
            f"{request.where}: {len(failed):,} of {len(found):,} pictures cannot be read, "
            f"such as {printable(name)} ({reason}): remove or repair them"
        )


@contextlib.contextmanager
def _opened(entry: Entry) -> Iterator[Image.Image]:
    """Opens a picture, after a check that its size is moderate.

    Raises:
        ValueError: it cannot be read.
    """
    from PIL import Image

    try:
        content = entry.stored(MOST_BYTES)
        file = io.BytesIO(content)
        with Image.open(file, formats=PILLOW_FORMATS) as picture:
            picture_files.refuse_large(picture, file)
            yield picture
    except Exception as error:
        # On a damaged file, Pillow's readers may raise any exception.
        if isinstance(error, Image.UnidentifiedImageError):
            raise ValueError("not a picture, or a damaged one") from error
        raise ValueError(str(error) or type(error).__name__) from error


def _as_bytes(picture: Image.Image, done: Counter[str]) -> NDArray[np.uint8]:
    """Returns a picture as uint8 (784,).

    Args:
        picture: the opened picture.
        done: counts what was done to pictures; it is updated.
    """
    from PIL import ImageOps

    if "exif" in picture.info:
        # EXIF data says which side is up.
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "L" and picture.size == (SIDE, SIDE) and "transparency" not in picture.info:
        return np.asarray(picture).reshape(PIXELS)
    grey, coloured = _grey(picture)
    if coloured:
        done["grey"] += 1
    if grey.shape == (SIDE, SIDE):
        return np.rint(255 * grey).astype(np.uint8).reshape(PIXELS)
    done["preprocessed"] += 1
    return preprocessing.preprocess(grey).reshape(PIXELS)


def _grey(picture: Image.Image) -> tuple[NDArray[np.float64], bool]:
    """Returns the pixel intensities of a picture.

    Returns:
        float (height, width), 0 black to 1 white; and whether there were colours or transparency.

    Raises:
        ValueError: there are pixels that are not finite.
    """
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(_smaller(picture.convert("F")), float)
        if not np.isfinite(values).all():
            raise ValueError("it has pixels that are NaN or infinite")
        white = next((most for most in (1, 255, 65535) if values.max() <= most), values.max())
        return np.clip(values / white, 0, 1), False
    if picture.has_transparency_data:
        colours = np.asarray(_smaller(picture.convert("RGBA")), float)
        return _without_transparency(colours / 255), True
    coloured = False
    if picture.mode not in ("1", "L"):
        channels = np.asarray(_smaller(picture.convert("RGB")))
        coloured = bool(np.ptp(channels, axis=2).any())
    return np.asarray(_smaller(picture.convert("L")), float) / 255, coloured


def _smaller(picture: Image.Image) -> Image.Image:
    """Returns a picture that is reduced if its sides are much longer than `ENOUGH` pixels."""
    factor = max(picture.size) // ENOUGH
    if factor > 1:
        return picture.reduce(factor)
    return picture


def _without_transparency(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the pixel intensities of a picture with transparency, on paper that contrasts.

    Bright drawings are put on black, and dark ones on white. A drawing in a single colour becomes
    bright on black, since its paper is unknown.

    Args:
        colours: float (height, width, 4) in [0, 1].
    """
    grey, alpha = colours[..., :3] @ np.array(GREY_WEIGHTS), colours[..., 3]
    drawn = grey[alpha > 0.5]
    if drawn.size == 0:
        raise ValueError("it is transparent everywhere")
    if np.ptp(drawn) < ONE_COLOUR and alpha.min() < 0.5:
        return alpha
    paper = 1.0 if drawn.mean() < 0.5 else 0.0
    return np.clip(alpha * grey + (1 - alpha) * paper, 0, 1)


def _sizes(kept: list[Picture], request: Request) -> str:
    kinds = Counter(picture.entry.name.rsplit(".", 1)[-1].lower() for picture in kept)
    shown = [f"{count:,} .{kind}" for kind, count in kinds.most_common(3)]
    text = ", ".join(shown)
    if request.unknown:
        text += f"; {len(request.unknown):,} other files skipped"
    return text
