"""A folder of separate PNG files, one for each image.

    with png_folder.replaced("result/png", about, names) as folder:
        folder.write(images, labels)        # 000000_7.png, 000001_2.png, ...

The files are 28x28, bright ink on dark as in MNIST, unlike the pictures that `plots` draws: they
are data. A folder is written beside its destination and takes the place of an earlier one at the
end, so that it never holds files of two commands; folders with other files are refused.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from support import files
from support.datasets.entries import listed
from support.display import plots
from support.errors import UserError
from support.text import printable

# Shows that a folder is ours, and says where its images come from.
ABOUT = "about.json"
OUR_NAMES = re.compile(r"\d{6,}(_[^.]+)?\.png")
# What file managers leave in a folder that someone has opened.
STRAY_NAMES = (".DS_Store", "Thumbs.db", "desktop.ini")
# What a small file takes on most file systems.
BYTES_PER_FILE = 4096
# The longest part of a file name, in characters, that comes from the name of a class.
LONGEST_NAME = 40


class PngFolder:
    """A folder that is being filled.

    Args:
        path: the folder.
        count: how many images there will be.
        label_names: the text in the file names for each label; empty: only numbers.
    """

    def __init__(self, path: str, count: int, label_names: Sequence[str]) -> None:
        self._path = path
        self._digits = max(6, len(str(count - 1)))
        self._label_names = label_names
        self._written = 0

    def write(self, images: NDArray[np.uint8], labels: NDArray[np.uint8] | None) -> None:
        """Writes the next images.

        Args:
            images: uint8 (n, 784).
            labels: their labels, (n,); None: unknown.
        """
        from PIL import Image

        for position, image in enumerate(plots.as_squares(images)):
            name = f"{self._written:0{self._digits}}"
            if labels is not None and self._label_names:
                name += f"_{self._label_names[labels[position]]}"
            Image.fromarray(image).save(os.path.join(self._path, f"{name}.png"))
            self._written += 1


@contextlib.contextmanager
def replaced(
    path: str, count: int, label_names: Sequence[str], about: Mapping[str, Any]
) -> Iterator[PngFolder]:
    """Yields an empty folder, which takes the place of `path` if the block ends without an error.

    Args:
        path: the folder to create, or an earlier one of ours to replace.
        count: how many images there will be.
        label_names: as `names_for_files` returns them; empty: file names have no labels.
        about: where the images come from; written to about.json.

    Raises:
        UserError: `path` holds files that this module has not written.
    """
    with files.replaced_folder(path, lambda: require_ours(path)) as private:
        yield PngFolder(private, count, label_names)
        with open(os.path.join(private, ABOUT), "w", encoding="utf-8") as file:
            file.write(files.as_json(about))


def require_ours(path: str) -> None:
    """Raises a `UserError` if replacing the folder `path` would delete a file that is not ours."""
    if not os.path.lexists(path):
        return
    if not os.path.isdir(path):
        raise UserError(f"{path} is not a folder: rename it, or choose another --output_dir")
    names = sorted(set(os.listdir(path)).difference(STRAY_NAMES))
    if not names:
        return
    foreign = [name for name in names if name != ABOUT and not OUR_NAMES.fullmatch(name)]
    if ABOUT not in names:
        foreign = names
    if foreign:
        raise UserError(
            f"{path} holds files that this script did not write ({listed(foreign)}) and that it "
            "would have to delete: move them elsewhere, or choose another --output_dir"
        )


def about(path: str) -> dict[str, Any]:
    """Returns the content of about.json of a folder; empty if it cannot be read."""
    try:
        with files.open_regular(os.path.join(path, ABOUT)) as file:
            return files.read_json(file, path)
    except (OSError, UserError):
        return {}


def names_for_files(class_names: Sequence[str], classes: int) -> list[str]:
    """Returns the text for each label in file names, for labels from 0 to `classes` - 1.

    Letters, digits and hyphens of a name remain, and all else becomes a hyphen. If two names would
    become equal, or one empty, every name begins with its label.
    """
    numbers = [str(label) for label in range(classes)]
    if not class_names:
        return numbers
    safe = [_safe(name) for name in class_names]
    if len({name.casefold() for name in safe}) < len(safe) or not all(safe):
        safe = [f"{label}-{name}".strip("-") for label, name in enumerate(safe)]
    return safe + numbers[len(safe) :]


def _safe(name: str) -> str:
    """Returns what remains of a name in a file name, on every system."""
    return re.sub(r"[\W_]+", "-", printable(name)).strip("-")[:LONGEST_NAME].strip("-")
