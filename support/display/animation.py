"""Looping GIFs of images that change, small enough for a README.

    animation.write("interpolate.gif", frames)      # uint8 (frames, n, 784)

They show dark ink on white paper, as the pictures of `plots` do. Pillow writes them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from support import files
from support.datasets.types import SIDE
from support.display import plots

if TYPE_CHECKING:
    from PIL.Image import Image

MILLISECONDS = 60
# Few shades keep a file small, and a digit has few.
SHADES = 12
# Pixels of the margin, and of a line of text.
EDGE, LINE, FONT_SIZE = 6, 18, 12
BLACK, GREY = 0, 160


class Slider(NamedTuple):
    """A line below the images with a dot that shows how far the film is.

    Attributes:
        positions: the place of the dot in each frame, from 0, left, to 1, right.
        low, high: the texts at both ends of the line.
    """

    positions: Sequence[float]
    low: str
    high: str


def write(
    path: str,
    frames: NDArray[np.uint8],
    *,
    captions: Sequence[str] = (),
    slider: Slider | None = None,
    comment: str = "",
) -> None:
    """Writes a GIF that repeats for ever.

    Args:
        path: the file to write.
        frames: the images of each frame, side by side, uint8 (frames, n, 784).
        captions: the text below each of the n images.
        slider: what shows how far the film is; None: nothing does.
        comment: a comment in the file.
    """
    from PIL import Image

    pages = []
    for number, images in enumerate(frames):
        page = Image.fromarray(_page(images, bool(captions) + bool(slider)))
        _draw_texts(page, captions, slider, number)
        shades = np.round(np.asarray(page) / 255 * (SHADES - 1)).astype(np.uint8)
        pages.append(Image.fromarray(shades, "P"))
        pages[-1].putpalette(np.repeat(np.linspace(0, 255, SHADES).astype(np.uint8), 3).tobytes())
    files.write_whole(
        path,
        lambda written: pages[0].save(
            written,
            format="GIF",
            save_all=True,
            append_images=pages[1:],
            duration=MILLISECONDS,
            loop=0,
            comment=comment.encode(),
        ),
    )


def _page(images: NDArray[np.uint8], lines: int) -> NDArray[np.uint8]:
    """Returns one frame without text: the images in a row, dark on white, and space below."""
    side = plots.SCALE * SIDE
    ink = plots.mosaic(plots.enlarge(images, side), len(images), EDGE)
    # A mosaic has a gap to the right of its last image and below.
    return 255 - np.pad(ink, ((EDGE, LINE * lines), (EDGE, 0)))


def _draw_texts(page: "Image", captions: Sequence[str], slider: Slider | None, number: int) -> None:
    """Draws the captions and the slider on a frame."""
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(FONT_SIZE)
    side = plots.SCALE * SIDE
    top = 2 * EDGE + side
    for column, caption in enumerate(captions):
        middle = EDGE + column * (side + EDGE) + side / 2
        draw.text((middle, top), caption, fill=BLACK, font=font, anchor="ma")
    if slider:
        middle = page.height - LINE / 2
        ends = EDGE, page.width - EDGE
        draw.text((ends[0], middle), slider.low, fill=BLACK, font=font, anchor="lm")
        draw.text((ends[1], middle), slider.high, fill=BLACK, font=font, anchor="rm")
        left = ends[0] + draw.textlength(slider.low, font) + 2 * EDGE
        right = ends[1] - draw.textlength(slider.high, font) - 2 * EDGE
        draw.line((left, middle, right, middle), fill=GREY)
        x = left + slider.positions[number] * (right - left)
        draw.ellipse((x - 4, middle - 4, x + 4, middle + 4), fill=BLACK)
