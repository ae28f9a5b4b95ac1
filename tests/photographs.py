"""Renders MNIST's digits as photographs, scans and screenshots of handwriting, to test with.

    picture = photographs.render([digit], "half shadow", seed=3)      # a Pillow image
    picture.save("shadow.png")

`render` can make each of `KINDS`. A digit is enlarged to a share of the page, its edges are made as
sharp as a pen's, and it is put on a page at a place that depends on the seed; then comes the effect
that the kind is named after.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Grey = NDArray[np.float64]
# The reflectance of paper and of ink.
PAPER, INK = 0.9, 0.15


def render(digits: Sequence[NDArray[np.uint8]], kind: str, seed: int) -> Image.Image:
    """Renders digits, uint8 (784,) or (28, 28), side by side, as a photograph of the given kind."""
    names = sorted(KINDS)
    rng = np.random.default_rng([seed, names.index(kind)])
    shapes = [np.reshape(digit, (28, 28)) for digit in digits]
    return KINDS[kind](shapes, rng)


def coverage(digits: Sequence[NDArray[np.uint8]], rng: np.random.Generator, **options) -> Grey:
    """How much ink covers each pixel of a page, 0 to 1: digits side by side at a random place.

    Args:
        digits: the digits, (28, 28) each.
        rng: the source of random numbers.
        share: the least and the greatest height of a digit's 28x28, as shares of the page's height.
        height: the height of the page in pixels.
        pen: a function of the coverage of an enlarged digit that changes its shape.
    """
    share, height = options.get("share", (0.45, 0.75)), options.get("height", 400)
    pen = options.get("pen", lambda enlarged: enlarged)
    side = round(height * rng.uniform(*share))
    width = max(height, round(side * 1.15 * len(digits) + 20))
    page = np.zeros((height, width))
    gap = width / len(digits)
    # On one slightly uneven line, with each digit within its own part of the page's width.
    top = rng.integers(0, height - side + 1)
    for position, digit in enumerate(digits):
        enlarged = pen(enlarge(digit, side))
        loose = max(0, int(gap - side))
        left = int(position * gap) + rng.integers(0, loose + 1)
        row = int(np.clip(top + rng.integers(-side // 20, side // 20 + 1), 0, height - side))
        area = page[row : row + side, left : left + side]
        np.maximum(area, enlarged, out=area)
    return page


def enlarge(digit: NDArray[np.uint8], side: int) -> Grey:
    """Enlarges a digit of 28x28 to side x side, with edges as sharp as a pen's."""
    smooth = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    values = ndimage.gaussian_filter(np.asarray(smooth, float) / 255, side / 28 * 0.35)
    return np.clip((values - 0.4) * 4 + 0.5, 0, 1)


def ballpoint(enlarged: Grey) -> Grey:
    """The digit as written with a thin pen: the ridge of its strokes."""
    side = len(enlarged)
    inside = ndimage.distance_transform_edt(enlarged > 0.5)
    ridge = (inside > 1) & (inside >= ndimage.maximum_filter(inside, 3) - 0.7)
    distance = ndimage.distance_transform_edt(~ridge)
    return np.clip(side / 90 - distance + 0.5, 0, 1)


def felt_pen(enlarged: Grey) -> Grey:
    """The digit as written with a thick pen."""
    return ndimage.grey_dilation(enlarged, footprint=disc(len(enlarged) // 45))


def disc(radius: int) -> NDArray[np.bool_]:
    """A round footprint."""
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return rows**2 + columns**2 <= radius**2


def paper(shape: tuple[int, int], rng: np.random.Generator, texture: float = 0.01) -> Grey:
    """A page with the fibres and spots of paper."""
    fibres = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5) * 3
    return PAPER * (1 + texture * fibres)


def written(ink: Grey, page: Grey, level: float = INK) -> Grey:
    """Puts ink with the reflectance `level` on a page."""
    return page * (1 - ink) + np.minimum(page, level) * ink


def photographed(grey: Grey, rng: np.random.Generator, noise: float = 0.01) -> Image.Image:
    """A page as a camera takes it: with a little blur and noise, in eight bits."""
    blurred = ndimage.gaussian_filter(grey, 0.7)
    return as_picture(blurred + noise * rng.standard_normal(grey.shape))


def as_picture(grey: Grey) -> Image.Image:
    return Image.fromarray(np.uint8(np.rint(255 * np.clip(grey, 0, 1))))


def through_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """A picture after JPEG compression."""
    file = io.BytesIO()
    picture.save(file, "jpeg", quality=quality)
    return Image.open(file).convert(picture.mode)


def coordinates(shape: tuple[int, int]) -> tuple[Grey, Grey]:
    """The coordinates of a page's rows and columns, from -1 to 1."""
    rows = np.linspace(-1, 1, shape[0])[:, None]
    return rows, np.linspace(-1, 1, shape[1])[None, :]


# Lines and frames: how much ink covers each pixel, 0 to 1.


def ruled_lines(shape: tuple[int, int], rng: np.random.Generator, tilt: float = 0.0) -> Grey:
    """Lines across the page, with a random distance and offset."""
    pitch, thick = shape[0] / rng.uniform(4, 9), shape[0] * rng.uniform(0.003, 0.007)
    rows, columns = np.indices(shape)
    across = rows + columns * np.tan(np.radians(tilt)) + rng.uniform(0, pitch)
    return np.clip(thick / 2 - np.abs((across + pitch / 2) % pitch - pitch / 2) + 0.5, 0, 1)


def squares(shape: tuple[int, int], rng: np.random.Generator, tilt: float = 0.0) -> Grey:
    """The lines of squared paper."""
    pitch, thick = shape[0] / rng.uniform(7, 16), max(1.0, shape[0] * rng.uniform(0.002, 0.005))
    rows, columns = np.indices(shape)
    slope = np.tan(np.radians(tilt))
    lines = np.zeros(shape)
    for along in (rows + slope * columns, columns - slope * rows):
        across = along + rng.uniform(0, pitch)
        line = np.clip(thick / 2 - np.abs((across + pitch / 2) % pitch - pitch / 2) + 0.5, 0, 1)
        lines = np.maximum(lines, line)
    return lines


def frame(ink: Grey, rng: np.random.Generator) -> Grey:
    """The box of a form around the ink."""
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis)) for axis in (1, 0))
    space = int(max(np.ptp(rows), np.ptp(columns)) * rng.uniform(0.12, 0.3))
    height, width = ink.shape
    top, bottom = max(3, rows[0] - space), min(height - 4, rows[-1] + space)
    left, right = max(3, columns[0] - space), min(width - 4, columns[-1] + space)
    thick = int(rng.integers(2, 5))
    box = np.zeros(ink.shape)
    box[top - thick // 2 : bottom + thick, left - thick // 2 : right + thick] = 1
    box[top + thick : bottom - thick // 2, left + thick : right - thick // 2] = 0
    return box


# Kinds: functions of (digits, rng) that return a picture.


def clean_scan(digits, rng):
    return as_picture(written(coverage(digits, rng), np.full((1, 1), 1.0), 0.0))


def page_texture(digits, rng):
    ink = coverage(digits, rng)
    return photographed(written(ink, paper(ink.shape, rng, 0.03)), rng)


def gradient(digits, rng):
    ink = coverage(digits, rng)
    rows, columns = coordinates(ink.shape)
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.4)
    light = 0.6 + depth * (np.cos(angle) * columns + np.sin(angle) * rows) / 1.4
    return photographed(written(ink, paper(ink.shape, rng)) * light, rng)


def half_shadow(digits, rng):
    ink = coverage(digits, rng)
    rows, columns = coordinates(ink.shape)
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.4)
    distance = np.cos(angle) * columns + np.sin(angle) * rows - offset
    soft = rng.uniform(0.005, 0.06)
    light = 1 - rng.uniform(0.4, 0.6) * np.clip(distance / soft + 0.5, 0, 1)
    return photographed(written(ink, paper(ink.shape, rng)) * light, rng)


def vignette(digits, rng):
    ink = coverage(digits, rng)
    rows, columns = coordinates(ink.shape)
    light = 1 - rng.uniform(0.3, 0.4) * (rows**2 + columns**2)
    return photographed(written(ink, paper(ink.shape, rng)) * light, rng)


def ruled_paper(digits, rng):
    ink = coverage(digits, rng)
    lines = ruled_lines(ink.shape, rng, rng.uniform(-2, 2))
    page = written(lines, paper(ink.shape, rng), rng.uniform(0.35, 0.7))
    return photographed(written(ink, page), rng)


def squared_paper(digits, rng):
    ink = coverage(digits, rng)
    lines = squares(ink.shape, rng, rng.uniform(-2, 2))
    page = written(lines, paper(ink.shape, rng), rng.uniform(0.4, 0.75))
    return photographed(written(ink, page), rng)


def dark_table(digits, rng):
    """A sheet that lies on a dark table, slightly turned, sometimes partly outside the picture."""
    ink = coverage(digits, rng, height=300)
    sheet = written(ink, paper(ink.shape, rng))
    height, width = ink.shape
    grain = np.clip(
        0.2 + 0.05 * ndimage.gaussian_filter(rng.standard_normal((480, width + 180)), (1, 30)) * 8,
        0,
        1,
    )
    top, left = rng.integers(0, 170), rng.integers(0, 170)
    laid, there = grain.copy(), np.zeros(grain.shape)
    laid[top : top + height, left : left + width] = sheet
    there[top : top + height, left : left + width] = 1
    angle = rng.uniform(-8, 8)
    laid = ndimage.rotate(laid, angle, reshape=False, order=1, mode="nearest")
    there = ndimage.rotate(there, angle, reshape=False, order=1) > 0.99
    return photographed(np.where(there, laid, grain), rng)


def form_box(digits, rng):
    ink = coverage(digits, rng, share=(0.4, 0.65))
    page = written(frame(ink, rng), paper(ink.shape, rng), rng.uniform(0.1, 0.5))
    return photographed(written(ink, page), rng)


def white_on_transparent(digits, rng):
    return on_transparent(digits, rng, 255)


def black_on_transparent(digits, rng):
    return on_transparent(digits, rng, 0)


def on_transparent(digits, rng, value):
    """As drawing programs save it: ink of a single colour, with its coverage as opacity."""
    alpha = np.uint8(np.rint(255 * coverage(digits, rng)))
    colour = np.full_like(alpha, value)
    return Image.fromarray(np.dstack([colour, colour, colour, alpha]))


def twelve_bits(digits, rng):
    """The twelve bits of a scanner in a 16-bit file."""
    ink = coverage(digits, rng)
    grey = written(ink, paper(ink.shape, rng)) + 0.01 * rng.standard_normal(ink.shape)
    return Image.fromarray(np.uint16(np.rint(4095 * np.clip(grey, 0, 1))))


def one_bit(digits, rng):
    ink = coverage(digits, rng)
    grey = written(ink, paper(ink.shape, rng, 0.03)) + 0.06 * rng.standard_normal(ink.shape)
    return as_picture(grey > 0.5).convert("1", dither=Image.Dither.NONE)


def dithered(digits, rng):
    ink = coverage(digits, rng)
    grey = written(ink, paper(ink.shape, rng) * rng.uniform(0.8, 1))
    return as_picture(grey).convert("1", dither=Image.Dither.FLOYDSTEINBERG)


def specks_and_hairs(digits, rng):
    ink = coverage(digits, rng)
    height, width = ink.shape
    dirt = np.zeros(ink.shape)
    for _ in range(rng.integers(5, 25)):
        row, column = rng.integers(0, height), rng.integers(0, width)
        dirt[row, column] = rng.uniform(4, 30)
    dirt = np.clip(ndimage.gaussian_filter(dirt, 1.2), 0, 1)
    for _ in range(rng.integers(1, 4)):
        dirt = np.maximum(dirt, hair(ink.shape, rng))
    return photographed(written(np.maximum(ink, 0.8 * dirt), paper(ink.shape, rng)), rng)


def hair(shape, rng):
    """A thin random curve."""
    steps = np.cumsum(rng.normal(0, 0.02, rng.integers(60, 250))) + rng.uniform(0, 2 * np.pi)
    rows = rng.uniform(0, shape[0]) + np.cumsum(np.sin(steps))
    columns = rng.uniform(0, shape[1]) + np.cumsum(np.cos(steps))
    on_page = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    curve = np.zeros(shape)
    curve[rows[on_page].astype(int), columns[on_page].astype(int)] = 1
    return np.clip(ndimage.gaussian_filter(curve, 0.7) * 2, 0, 1)


def dark_mode(digits, rng):
    """Light ink on a dark screen."""
    ink = coverage(digits, rng)
    dark, light = rng.uniform(0.02, 0.2), rng.uniform(0.75, 1)
    return through_jpeg(as_picture(dark + (light - dark) * ink), 80)


def blackboard(digits, rng):
    ink = coverage(digits, rng)
    rows, columns = coordinates(ink.shape)
    board = 0.2 + 0.06 * columns * rng.choice([-1, 1]) + 0.01 * rows
    board += 0.03 * ndimage.gaussian_filter(rng.standard_normal(ink.shape), 8) * 10
    chalk = np.clip(0.75 + 0.15 * ndimage.gaussian_filter(rng.standard_normal(ink.shape), 1), 0, 1)
    return photographed(board * (1 - ink) + chalk * ink, rng)


def coloured_ink(digits, rng):
    ink = coverage(digits, rng)[..., None]
    inks = [
        (200, 30, 30),
        (30, 60, 200),
        (0, 150, 60),
        (240, 140, 0),
        (200, 80, 200),
        (230, 210, 0),
    ]
    colour, page = np.array(inks[rng.integers(len(inks))]), np.array((250, 248, 240))
    mixed = page * (1 - ink) + colour * ink + rng.normal(0, 3, (*ink.shape[:2], 3))
    return through_jpeg(Image.fromarray(np.uint8(np.clip(mixed, 0, 255))), 85)


def thin_ballpoint(digits, rng):
    ink = coverage(digits, rng, pen=ballpoint)
    return photographed(written(ink, paper(ink.shape, rng), 0.25), rng)


def thick_felt_pen(digits, rng):
    ink = coverage(digits, rng, pen=felt_pen)
    return photographed(written(ink, paper(ink.shape, rng)), rng)


def pencil(digits, rng):
    """Low contrast, uneven along the stroke."""
    ink = coverage(digits, rng)
    grain = 0.8 + 0.25 * ndimage.gaussian_filter(rng.standard_normal(ink.shape), 2) * 6
    grey = written(ink * np.clip(grain, 0.3, 1), paper(ink.shape, rng), rng.uniform(0.5, 0.65))
    return photographed(grey, rng)


def noise_blur_jpeg(digits, rng):
    ink = coverage(digits, rng)
    blurred = ndimage.gaussian_filter(written(ink, paper(ink.shape, rng)), rng.uniform(1.5, 4))
    return through_jpeg(photographed(blurred, rng, rng.uniform(0.03, 0.08)), 20)


def turned(digits, rng):
    """Slightly turned, with a gradient of light."""
    ink = ndimage.rotate(coverage(digits, rng), rng.uniform(-10, 10), reshape=False, order=1)
    light = 0.8 + 0.15 * coordinates(ink.shape)[1]
    return photographed(written(ink, paper(ink.shape, rng)) * light, rng)


def small_on_large_page(digits, rng):
    ink = coverage(digits, rng, share=(0.12, 0.2), height=900)
    return photographed(written(ink, paper(ink.shape, rng)), rng)


KINDS: dict[str, Callable[[list[NDArray], np.random.Generator], Image.Image]] = {
    "clean scan": clean_scan,
    "page texture": page_texture,
    "gradient": gradient,
    "half shadow": half_shadow,
    "vignette": vignette,
    "ruled paper": ruled_paper,
    "squared paper": squared_paper,
    "dark table": dark_table,
    "form box": form_box,
    "white on transparent": white_on_transparent,
    "black on transparent": black_on_transparent,
    "twelve bits": twelve_bits,
    "one bit": one_bit,
    "dithered": dithered,
    "specks and hairs": specks_and_hairs,
    "dark mode": dark_mode,
    "blackboard": blackboard,
    "coloured ink": coloured_ink,
    "thin ballpoint": thin_ballpoint,
    "thick felt pen": thick_felt_pen,
    "pencil": pencil,
    "noise, blur, JPEG": noise_blur_jpeg,
    "turned": turned,
    "small on a large page": small_on_large_page,
}
