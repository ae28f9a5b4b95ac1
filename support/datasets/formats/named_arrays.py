"""Reads data sets whose images and labels are arrays with names, in any format of arrays.

IDX files, `.npy` files and the members of `.npz` files differ only in their headers. What an array
holds follows from the names of files and keys, or, if they do not say, from its shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from support.datasets import arrays, labels, roles
from support.datasets.entries import MOST_BYTES, Entry, listed, reading
from support.datasets.roles import IMAGES, LABELS, TEST, TRAIN, VALIDATION
from support.datasets.types import Contents, Split
from support.errors import UserError
from support.text import printable

# The limit for arrays that cannot be read piece by piece: labels, and images in Fortran order.
MOST_BYTES_WHOLE = 1_000_000_000
PIECE_BYTES = 1 << 23
# If names do not say otherwise, fewer columns than 8x8 images have pixels are labels.
FEWEST_PIXELS = 64


class Header(NamedTuple):
    """The header of an array: how its numbers are laid out, and how many bytes the header takes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    length: int


class NamedArray(NamedTuple):
    """One array in a file.

    Attributes:
        entry: the file.
        header: its shape and type.
        part, kind: as in `roles.Role`, from names; if these do not say, the kind follows from the
            shape; it is empty if the array can be neither images nor labels.
        family: the words that all arrays of a data set share, from the file's name.
        extra: how many words of the array's own key say nothing about its role.
    """

    entry: Entry
    header: Header
    part: str
    kind: str
    family: str
    extra: int


def named(entry: Entry, header: Header) -> NamedArray:
    """Returns an array with the role that follows from its names and its shape."""
    key = roles.of(entry.name)
    file = roles.of(entry.container) if entry.container else roles.Role("", "", "")
    part = key.part or file.part or roles.part_of_folders(entry.container or entry.name)
    kind = key.kind or file.kind or _likely_kind(header.shape)
    if not _fits(kind, header):
        kind = ""
    family = file.family if entry.container else key.family
    extra = len(key.family.split()) if entry.container else 0
    return NamedArray(entry, header, part, kind, family, extra)


def _likely_kind(shape: tuple[int, ...]) -> str:
    """What an array of this shape probably holds, if names do not say."""
    if len(shape) > 2 or (len(shape) == 2 and max(shape[1:]) >= FEWEST_PIXELS):
        return IMAGES
    return LABELS


def _fits(kind: str, header: Header) -> bool:
    """Whether an array of this shape and type may be images or labels."""
    shape, numeric = header.shape, header.dtype.kind in "biuf"
    if kind == LABELS:
        few = len(shape) == 1 or (len(shape) == 2 and min(shape) <= labels.MOST_COLUMNS)
        return few and (numeric or header.dtype.kind in "US")
    if not numeric or len(shape) < 2:
        return False
    if len(shape) == 2:
        return bool(arrays.layout_of(shape[1:]) or arrays.layout_of(shape[:1]))
    return True


def assemble(
    found: list[NamedArray],
    where: str,
    files: str,
    turned: Callable[[list[str]], bool],
    check: Callable[[list[NamedArray]], None] | None = None,
) -> Contents:
    """Reads the arrays of one data set.

    Args:
        found: all arrays that were found.
        where: where they are, for messages.
        files: the format, for the description.
        turned: a function that says, given the names of the files, whether to exchange the rows
            and columns of the images.
        check: a function that raises an error if arrays of the chosen data set are missing.

    Raises:
        UserError: there are no images, there are several data sets, or arrays do not match.
    """
    if not any(array.kind == IMAGES for array in found):
        raise UserError(
            f"{where} holds no images (found {_listed(found)}): "
            "expected images of shape (n, 28, 28) or (n, 784)"
        )
    images, label_arrays, surplus = _by_part(found, where)
    if check:
        family = next(iter(images.values())).family
        check([array for array in found if array.family == family])
    images, label_arrays = _with_training(images, label_arrays, where)
    notices = []
    used_names = {_name(array) for array in (*images.values(), *label_arrays.values())}
    # torchvision keeps its downloads beside the unpacked files.
    unused = [name for name in map(_name, surplus) if name.removesuffix(".gz") not in used_names]
    if unused:
        notices.append(f"arrays that were not used: {listed(unused)}")
    sources = {
        part: _source(array, _count(array, label_arrays.get(part)))
        for part, array in images.items()
    }
    transposed = turned([_path(array) for array in images.values()])
    result = arrays.read(sources, transposed)
    read_labels: dict[str, NDArray] = {}
    for part, array in label_arrays.items():
        raw = read_whole(array.entry, array.header)
        count = sources[part].images or 0
        read_labels[part], notice = labels.one_each(raw, count, _name(array))
        if notice:
            notices.append(notice)
    for part, mask in result.kept.items():
        if part in read_labels:
            read_labels[part] = read_labels[part][mask]
    parts, class_names = with_labels(result.parts, read_labels, where, notices)
    used = [array.entry.where for array in (*images.values(), *label_arrays.values())]
    return Contents(
        parts,
        class_names,
        f"{files}: {listed(sorted(set(map(_file_of, used))))}",
        values_line(sources, result.values),
        (*notices, *result.notices),
        transposed,
    )


def with_labels(
    images: dict[str, NDArray[np.uint8]],
    found: dict[str, NDArray],
    where: str,
    notices: list[str],
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Puts images and labels together.

    If the training images have labels, a test or validation part without labels is left out; if
    they have none, all labels are left out. A line that says so is appended to `notices`.

    Returns:
        The parts, and the names of the classes.
    """
    for part in [part for part in images if TRAIN in found and part not in found]:
        notices.append(f"the {len(images[part]):,} {part} images have no labels: they are not used")
        images = {name: array for name, array in images.items() if name != part}
    if TRAIN not in found:
        if found:
            notices.append("the training images have no labels: no labels are used")
        return {part: Split(array, None) for part, array in images.items()}, ()
    encoded = labels.encode({part: found[part] for part in images}, where)
    return (
        {part: Split(array, encoded.parts[part]) for part, array in images.items()},
        encoded.class_names,
    )


def values_line(sources: dict[str, arrays.ImageSource], values: arrays.Values) -> str:
    """Returns a line with the type, shape and range of images."""
    first = next(iter(sources.values()))
    return f"{first.kind}, shape {first.shape}, from {values.lowest:.6g} to {values.highest:.6g}"


def _name(array: NamedArray) -> str:
    """The name of an array for messages: that of its file, or its key in an `.npz`."""
    if array.entry.container:
        return array.entry.name.removesuffix(".npy")
    return array.entry.name


def _file_of(where: str) -> str:
    return where.split(": ")[0].rsplit("/", 1)[-1]


def _by_part(
    found: list[NamedArray], where: str
) -> tuple[dict[str, NamedArray], dict[str, NamedArray], list[NamedArray]]:
    """Chooses the arrays of one data set: images by part, labels by part, and the other arrays.

    Raises:
        UserError: several data sets are equally suitable.
    """
    families = {array.family for array in found if array.kind == IMAGES}
    usable = [array for array in found if array.kind and array.family in families]
    preferred = sorted(usable, key=lambda array: (array.extra, array.entry.gzipped))
    kept, _ = roles.one_data_set(preferred, _named, where)
    images: dict[str, NamedArray] = {}
    label_arrays: dict[str, NamedArray] = {}
    for kind, into in ((IMAGES, images), (LABELS, label_arrays)):
        of_kind = [array for array in kept if array.kind == kind]
        into.update(_parts_of(of_kind))
    if not images:
        raise UserError(
            f"{where} holds images and labels in different folders or with different names "
            f"({_listed(found)}): put the files of one data set into one folder"
        )
    used = [id(array) for array in (*images.values(), *label_arrays.values())]
    return images, label_arrays, [array for array in found if id(array) not in used]


def _with_training(
    images: dict[str, NamedArray], label_arrays: dict[str, NamedArray], where: str
) -> tuple[dict[str, NamedArray], dict[str, NamedArray]]:
    """Makes the largest part the training images if no part has that name.

    Raises:
        UserError: there are training labels, but no training images.
    """
    if TRAIN not in images:
        if TRAIN in label_arrays:
            raise UserError(
                f"{where} has training labels, {_name(label_arrays[TRAIN])}, but no training "
                f"images: add them (found {_listed([*images.values(), *label_arrays.values()])})"
            )
        largest = max(images, key=lambda part: images[part].header.shape[0])
        images = {TRAIN: images.pop(largest), **images}
        if largest in label_arrays:
            label_arrays[TRAIN] = label_arrays.pop(largest)
    return images, {part: array for part, array in label_arrays.items() if part in images}


def _named(array: NamedArray) -> roles.Named:
    return roles.Named(_path(array), array.family, (array.part, array.kind, _order(array)))


def _path(array: NamedArray) -> str:
    """The path of an array's file; for a member of an `.npz`, that of the `.npz`."""
    return array.entry.container or array.entry.name


def _order(array: NamedArray) -> str:
    """The key of an array with a name like arr_0, to tell arrays of one file apart; else empty."""
    key = array.entry.name.rsplit("/", 1)[-1].removesuffix(".npy")
    if array.entry.container and not array.part and key.startswith("arr_"):
        return key
    return ""


def _parts_of(found: list[NamedArray]) -> dict[str, NamedArray]:
    """Assigns a part to each array of one kind.

    It follows from the name of the array, or from its place among arr_0, arr_1 and so on: training
    comes first, and test last.
    """
    if len(found) == 1 and not found[0].part:
        return {TRAIN: found[0]}
    if any(array.part for array in found):
        parts: dict[str, NamedArray] = {}
        for array in found:
            parts.setdefault(array.part or TRAIN, array)
        return parts
    places = (TRAIN, TEST) if len(found) == 2 else (TRAIN, VALIDATION, TEST)
    ordered = sorted(found, key=lambda array: labels.natural(array.entry.name))
    return dict(zip(places, ordered, strict=False))


def _count(images: NamedArray, beside: NamedArray | None) -> int:
    """Returns how many images there are; labels show if images are on the last axis, as in MATLAB.

    Raises:
        UserError: the shapes of images and labels do not match.
    """
    shape = images.header.shape
    if beside is None:
        return shape[0]
    label_shape = beside.header.shape
    if labels.can_be(label_shape, shape[0]):
        return shape[0]
    if labels.can_be(label_shape, shape[-1]) and arrays.layout_of(shape[:-1]):
        return shape[-1]
    raise UserError(
        f"{images.entry.where} has images of shape {shape}, and {beside.entry.where} labels of "
        f"shape {label_shape}: expected one label for each image"
    )


def _source(array: NamedArray, count: int) -> arrays.ImageSource:
    header, what = array.header, array.entry.where
    kind = header.dtype.name
    if math.prod(header.shape) * header.dtype.itemsize > MOST_BYTES:
        raise UserError(
            f"{what} claims to have the shape {header.shape} and type {header.dtype}, more than "
            f"{MOST_BYTES // 10**9} GB: save the images as uint8, and at most 1,000,000 of them"
        )
    last = header.shape[0] != count
    if last or header.fortran:
        shape = header.shape[:-1] if last else header.shape[1:]
        return arrays.ImageSource(what, count, shape, kind, lambda: _pieces_of_whole(array, last))
    return arrays.ImageSource(
        what, count, header.shape[1:], kind, lambda: _pieces(array.entry, header)
    )


def _pieces(entry: Entry, header: Header) -> Iterator[NDArray]:
    """Reads an array of images in pieces of some megabytes.

    Raises:
        UserError: the file is shorter or longer than its header says, or damaged.
    """
    count, shape = header.shape[0], header.shape[1:]
    each = math.prod(shape) * header.dtype.itemsize
    step = max(1, PIECE_BYTES // max(1, each))
    with reading(entry.where), entry.open() as file:
        file.read(header.length)
        for start in range(0, count, step):
            images = min(step, count - start)
            content = _exactly(file, images * each, entry.where)
            yield np.frombuffer(content, header.dtype).reshape(images, *shape)
        _require_end(file, entry.where)


def _pieces_of_whole(array: NamedArray, last: bool) -> Iterator[NDArray]:
    whole = read_whole(array.entry, array.header)
    if last:
        whole = np.moveaxis(whole, -1, 0)
    step = max(1, arrays.PIECE // max(1, math.prod(whole.shape[1:])))
    for start in range(0, len(whole), step):
        yield np.ascontiguousarray(whole[start : start + step])


def read_whole(entry: Entry, header: Header) -> NDArray:
    """Reads an array as a whole.

    Raises:
        UserError: it is too large, damaged, or not as long as its header says.
    """
    size = math.prod(header.shape) * header.dtype.itemsize
    if size > MOST_BYTES_WHOLE:
        raise UserError(
            f"{entry.where} has shape {header.shape} and type {header.dtype}, too large with "
            f"{size:,} bytes: save it as uint8 and in C order (numpy.ascontiguousarray)"
        )
    with reading(entry.where), entry.open() as file:
        file.read(header.length)
        content = _exactly(file, size, entry.where)
        _require_end(file, entry.where)
    flat = np.frombuffer(content, header.dtype)
    if header.fortran:
        return flat.reshape(header.shape[::-1]).T
    return flat.reshape(header.shape)


def _exactly(file: IO[bytes], size: int, what: str) -> bytearray:
    """Reads `size` bytes; memory is allocated only as they arrive."""
    content = bytearray()
    while len(content) < size:
        piece = file.read(min(PIECE_BYTES, size - len(content)))
        if not piece:
            raise UserError(f"{what} is truncated: download or copy it again")
        content += piece
    return content


def _require_end(file: IO[bytes], what: str) -> None:
    # Reading past the end also makes gzip and zip verify their checksums.
    if file.read(1):
        raise UserError(f"{what} is longer than its header says: save it again")


def require_shape(entry: Entry, shape: tuple[int, ...]) -> None:
    """Refuses impossible shapes before any arithmetic with them."""
    whole = all(type(length) is int and 0 <= length < 2**40 for length in shape)
    if not whole or len(shape) > 8:
        raise UserError(f"{entry.where} claims to have the impossible shape {shape}: save it again")


def _listed(found: list[NamedArray]) -> str:
    shown = [
        f"{printable(array.entry.name)} {array.header.shape} {array.header.dtype}"
        for array in found[:6]
    ]
    return ", ".join(shown) or "no arrays"
