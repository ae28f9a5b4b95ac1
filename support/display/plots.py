"""Pictures of digits from arrays, in one style; nothing about models.

    plots.draw("generated.png", "100 digits", plots.in_rows(images, 10))

Every function that writes a PNG writes it whole or not at all. Images are uint8 (n, 784) or
(n, side, side), bright ink on dark as in MNIST, and are drawn as dark ink on white paper.
Colour-blind readers can distinguish the colours, and colour alone never carries information.
"""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from support import files
from support.datasets.types import PIXELS, SIDE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pixels between two images, before scaling.
GAP = 3
# Pixels of the picture for each pixel of an image.
SCALE = 2
# A power of two, so that sizes in pixels are exact fractions of an inch.
DPI = 128
TITLE_SIZE, LABEL_SIZE, TEXT_SIZE = 12, 11, 10
# Pixels of a picture's margin, and of one line of text.
EDGE, LINE = 16, 28
# Typed as Any, since Matplotlib's type has a literal for every key.
STYLE: Any = {
    "font.size": TEXT_SIZE,
    "axes.titlesize": LABEL_SIZE,
    "figure.facecolor": "white",
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
INK, ACCENT, GREY = "#332288", "#CC6677", "#BBBBBB"
# Paul Tol's "muted" scheme (https://personal.sron.nl/~pault/), made for colour-blind eyes.
CLASS_COLOURS = (
    "#332288",
    "#88CCEE",
    "#44AA99",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
    "#777777",
)


class Mark(NamedTuple):
    """A small triangle below a row, with a text below it.

    Attributes:
        column: its position: 0 is the middle of the first image; it may be between two columns.
        text: what it marks.
    """

    column: float
    text: str


class Row(NamedTuple):
    """A row of images.

    Attributes:
        name: the text to the left of it.
        images: uint8 (n, 784) or (n, side, side).
        captions: the text below each image, one or more lines; empty: no captions.
        mark: a mark below the row; None: no mark.
    """

    name: str
    images: NDArray[np.uint8]
    captions: Sequence[str] = ()
    mark: Mark | None = None

    @property
    def lines_below(self) -> int:
        """How many lines of text are below the row."""
        if self.mark:
            return 1
        return max((1 + caption.count("\n") for caption in self.captions), default=0)


def in_rows(images: NDArray[np.uint8], columns: int, names: Sequence[str] = ()) -> list[Row]:
    """Returns rows of `columns` images each, with `names` as their names if there are any."""
    rows = []
    for number, first in enumerate(range(0, len(images), columns)):
        name = names[number] if names else ""
        rows.append(Row(name, images[first : first + columns]))
    return rows


def mosaic(images: NDArray[np.uint8], columns: int, gap: int = GAP) -> NDArray[np.uint8]:
    """Places images row by row, each with `gap` empty pixels to the right and below.

    Args:
        images: uint8 (n, 784) or (n, side, side).
        columns: images per row.
        gap: width of the gap, in pixels.

    Returns:
        uint8 (rows * (side + gap), columns * (side + gap)); the rest of the last row is empty.
    """
    images = as_squares(images)
    side = images.shape[1]
    step = side + gap
    rows = -(-len(images) // columns)
    page = np.zeros((rows * step, columns * step), np.uint8)
    for number, image in enumerate(images):
        top, left = step * (number // columns), step * (number % columns)
        page[top : top + side, left : left + side] = image
    return page


def as_squares(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns images (n, 784) or (n, side, side) as (n, side, side)."""
    images = np.asarray(images, np.uint8)
    if images.ndim == 2 and images.shape[1] == PIXELS:
        return images.reshape(-1, SIDE, SIDE)
    return images


def enlarge(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Returns images as uint8 (n, side, side), with each pixel as a square of pixels.

    Args:
        images: uint8 (n, 784) or (n, s, s); `side` must be a multiple of s.
        side: the new side, in pixels.
    """
    images = as_squares(images)
    times = side // images.shape[1]
    return images.repeat(times, axis=1).repeat(times, axis=2)


def resize(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Returns a square greyscale picture, uint8, smoothly resized to (side, side)."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((side, side)))


def draw(
    path: str,
    title: str,
    rows: Sequence[Row],
    *,
    column_names: Sequence[str] = (),
    column_label: str = "",
    scale: int = SCALE,
    source: str = "",
) -> None:
    """Draws rows of images.

    Args:
        path: the PNG to write.
        title: one line above the images.
        rows: rows of images; 28 * scale must be a multiple of the side of each image.
        column_names: the text below each column.
        column_label: what the column names mean.
        scale: pixels of the picture for each pixel of a 28x28 image.
        source: see `figure`.
    """
    page = _Page(rows, scale)
    height, width = page.pixels.shape
    title_width, label_width, *name_widths = _text_widths(
        [(title, TITLE_SIZE), (column_label, LABEL_SIZE), *((row.name, TEXT_SIZE) for row in rows)]
    )
    left = 2 * EDGE + max(name_widths)
    total_width = max(left + width + EDGE, 2 * EDGE + max(title_width, label_width))
    # If a text is wider than the images, the images are centred.
    left += (total_width - left - width - EDGE) // 2
    top, bottom = 2 * LINE, EDGE
    if column_names:
        bottom += LINE
    if column_label:
        bottom += LINE
    total_height = top + height + bottom
    with figure(path, (total_width / DPI, total_height / DPI), source=source) as canvas:
        place = left / total_width, bottom / total_height, width / total_width
        axes = canvas.add_axes((*place, height / total_height))
        page.show(axes)
        for column, name in enumerate(column_names):
            axes.text(page.middle(column), height, name, ha="center", va="top")
        x = np.clip(left + width / 2, EDGE + label_width / 2, total_width - EDGE - label_width / 2)
        label_place = x / total_width, EDGE / 2 / total_height
        canvas.text(*label_place, column_label, ha="center", fontsize=LABEL_SIZE)
        title_place = 0.5, 1 - LINE / total_height
        canvas.text(*title_place, title, ha="center", va="center", fontsize=TITLE_SIZE)


def show(axes: "Axes", rows: Sequence[Row], scale: int = SCALE) -> None:
    """Shows rows of images, with their names, captions and marks, on axes of any size."""
    _Page(rows, scale).show(axes)


@contextlib.contextmanager
def figure(
    path: str,
    inches: tuple[float, float],
    layout: Literal["constrained"] | None = None,
    source: str = "",
) -> "Iterator[Figure]":
    """Yields a figure to draw on, and writes it if the block ends without an error.

    Args:
        path: the PNG to write.
        inches: its width and height.
        layout: constrained: Matplotlib arranges the axes; None: nothing is moved.
        source: where its content comes from, which the file keeps as text for `source_of`.
    """
    with _own_style():
        from matplotlib.figure import Figure

        canvas = Figure(figsize=inches, layout=layout)
        yield canvas
        texts = {"Source": source} if source else {}
        files.write_whole(
            path, lambda written: canvas.savefig(written, format="png", metadata=texts)
        )


def source_of(path: str) -> str:
    """Returns the source that a PNG or GIF of this project keeps; empty if it has none."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "GIF")) as picture:
            found = picture.info.get("Source") or picture.info.get("comment", b"")
    except Exception:
        # Pillow raises many types of errors for files that are not pictures.
        return ""
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


@contextlib.contextmanager
def _own_style() -> Iterator[None]:
    """Imports Matplotlib with its own defaults and `STYLE`, whatever settings the user has.

    A matplotlibrc may turn pictures upside down or need TeX, and the MPLBACKEND of a notebook names
    a module that may not be there. No backend is used here.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _text_widths(texts: Sequence[tuple[str, float]]) -> list[int]:
    """Returns the widths of texts in pixels; the number beside each is its font size in points."""
    with _own_style():
        from matplotlib.textpath import TextPath

        # Matplotlib has no path for an empty text.
        points = [
            TextPath((0, 0), text, size=size).get_extents().width if text else 0.0
            for text, size in texts
        ]
    return [math.ceil(width * DPI / 72) for width in points]


class _Page:
    """Rows of images as one array of pixels, and the text on it.

    Args:
        rows: the rows.
        scale: pixels of the page for each pixel of a 28x28 image.
    """

    def __init__(self, rows: Sequence[Row], scale: int) -> None:
        self._rows = rows
        self._side = scale * SIDE
        self._step = self._side + scale * GAP
        columns = max(len(row.images) for row in rows)
        parts = []
        self._tops = []
        top = 0
        for row in rows:
            ink = mosaic(enlarge(row.images, self._side), columns, scale * GAP)
            text = ((0, LINE * row.lines_below), (0, 0))
            parts.append(np.pad(255 - ink, text, constant_values=255))
            self._tops.append(top)
            top += len(parts[-1])
        self.pixels = np.vstack(parts)

    def middle(self, column: float) -> float:
        """Returns the x of the middle of a column."""
        return column * self._step + self._side / 2

    def show(self, axes: "Axes") -> None:
        """Shows everything on axes."""
        axes.imshow(self.pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
        for row, top in zip(self._rows, self._tops, strict=True):
            middle = top + self._side / 2
            axes.text(-EDGE / 2, middle, row.name, ha="right", va="center")
            below = top + self._side + 4
            for column, caption in enumerate(row.captions):
                axes.text(self.middle(column), below, caption, ha="center", va="top")
            if row.mark:
                self._show_mark(axes, row.mark, below)

    def _show_mark(self, axes: "Axes", mark: Mark, top: float) -> None:
        x = self.middle(mark.column)
        axes.plot([x], [top + EDGE / 4], marker="^", color=ACCENT, markersize=6, clip_on=False)
        # Centred below the triangle, but not beyond the images.
        half = _text_widths([(mark.text, TEXT_SIZE)])[0] / 2
        middle = np.clip(x, half, max(half, self.pixels.shape[1] - half))
        axes.text(middle, top + EDGE / 2, mark.text, ha="center", va="top")
