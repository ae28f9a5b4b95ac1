"""Images that are not MNIST's, for bench/anomaly.py: changed digits, simple shapes, letters.

Every function returns images as the model takes them: uint8 (n, 784), bright ink on dark.
"""

from __future__ import annotations

import math
import os
import string
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from support.datasets import preprocessing
from support.datasets.types import PIXELS, SIDE

Images = NDArray[np.uint8]
# Letters that look like digits are left out.
LETTERS = "".join(letter for letter in string.ascii_letters if letter not in "OoIlSsZzBbDgq")
FONT_PIXELS, PAGE = 60, 120
# Silhouettes are drawn this many times as large, for smooth edges.
SCALE = 8


def rotated(images: Images, quarter_turns: int) -> Images:
    """Returns images turned counter-clockwise by a number of quarter turns."""
    turned = np.rot90(images.reshape(-1, SIDE, SIDE), quarter_turns, axes=(1, 2))
    return np.ascontiguousarray(turned).reshape(-1, PIXELS)


def noisy(images: Images, sigma: float, seed: int) -> Images:
    """Returns images with Gaussian noise of standard deviation `sigma`, clipped to [0, 1]."""
    noise = np.random.default_rng([seed, round(1000 * sigma)]).normal(0, sigma, images.shape)
    return np.rint(255 * np.clip(images / 255 + noise, 0, 1)).astype(np.uint8)


def upper_halves(images: Images) -> Images:
    """Returns images whose lower half is erased: incomplete, hence simple."""
    halves = images.reshape(-1, SIDE, SIDE).copy()
    halves[:, SIDE // 2 :] = 0
    return halves.reshape(-1, PIXELS)


def constant(values: Sequence[int]) -> Images:
    """Returns an image for each value, all of whose pixels have it."""
    return np.repeat(np.array(values, np.uint8)[:, None], PIXELS, axis=1)


def printed(characters: str) -> Images:
    """Returns each character in each of the 12 DejaVu fonts of Matplotlib, preprocessed."""
    return np.stack([_character(path, char) for path in _fonts() for char in characters])


def _fonts() -> list[str]:
    import matplotlib

    folder = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
    names = [name for name in os.listdir(folder) if name.startswith("DejaVu")]
    # The two display fonts hold few characters.
    return [os.path.join(folder, name) for name in sorted(names) if "Display" not in name]


def _character(font_path: str, character: str) -> NDArray[np.uint8]:
    page = Image.new("L", (PAGE, PAGE))
    font = ImageFont.truetype(font_path, FONT_PIXELS)
    place = (PAGE // 2, PAGE // 2)
    ImageDraw.Draw(page).text(place, character, fill=255, font=font, anchor="mm")
    return preprocessing.from_ink(np.asarray(page) / 255).reshape(PIXELS)


def clothing(count: int, seed: int) -> Images:
    """Returns silhouettes of clothes, each in an even grey: simple images like Fashion-MNIST's.

    Five kinds in turn: T-shirt, trousers, dress, bag, boot; of random proportions.
    """
    random = np.random.default_rng(seed)
    kinds = (_shirt, _trousers, _dress, _bag, _boot)
    return np.stack([_silhouette(kinds[n % len(kinds)](random), random) for n in range(count)])


Polygon = list[tuple[float, float]]


def _silhouette(polygons: list[Polygon], random: np.random.Generator) -> NDArray[np.uint8]:
    """Fills polygons in [0, 1] x [0, 1] with an even grey; without texture, which is noise."""
    page = Image.new("L", (SCALE * SIDE, SCALE * SIDE))
    for polygon in polygons:
        points = [(SCALE * SIDE * x, SCALE * SIDE * y) for x, y in polygon]
        ImageDraw.Draw(page).polygon(points, fill=255)
    inside = np.asarray(page.resize((SIDE, SIDE), Image.Resampling.BOX)) / 255
    return np.rint(255 * random.uniform(0.3, 0.95) * inside).astype(np.uint8).reshape(PIXELS)


def _mirrored(half: Polygon) -> Polygon:
    """Returns a polygon that is symmetric about x = 0.5 from its left half."""
    return half + [(1 - x, y) for x, y in reversed(half)]


def _shirt(random: np.random.Generator) -> list[Polygon]:
    body, sleeve, length = random.uniform((0.25, 0.02, 0.3), (0.32, 0.12, 0.6))
    left: Polygon = [(0.42, 0.08), (0.3, 0.1), (sleeve, length), (sleeve + 0.12, length + 0.05)]
    return [_mirrored([*left, (body, 0.35), (body, 0.95)])]


def _trousers(random: np.random.Generator) -> list[Polygon]:
    waist, hem, crotch = random.uniform((0.3, 0.2, 0.2), (0.38, 0.32, 0.4))
    left = [(0.5, 0.05), (waist, 0.05), (hem, 0.95), (hem + 0.13, 0.95), (0.49, crotch)]
    return [left, [(1 - x, y) for x, y in left]]


def _dress(random: np.random.Generator) -> list[Polygon]:
    waist, hem = random.uniform((0.38, 0.15), (0.44, 0.3))
    return [_mirrored([(0.42, 0.04), (0.36, 0.06), (waist, 0.4), (hem, 0.96)])]


def _bag(random: np.random.Generator) -> list[Polygon]:
    top, side, handle = random.uniform((0.35, 0.05, 0.1), (0.5, 0.15, 0.25))
    arc = [
        (0.5 + 0.25 * math.cos(angle), top - (top - handle) * math.sin(angle))
        for angle in np.linspace(0, math.pi, 12)
    ]
    inner = [(0.5 + 0.8 * (x - 0.5), y + 0.06) for x, y in reversed(arc)]
    return [_mirrored([(side + 0.04, top), (side, 0.9)]), arc + inner]


def _boot(random: np.random.Generator) -> list[Polygon]:
    shaft, toe, sole = random.uniform((0.3, 0.85, 0.82), (0.45, 0.97, 0.88))
    left = random.uniform(0.08, 0.2)
    points = [(left, 0.1), (left + shaft, 0.1), (left + shaft, 0.55), (toe, 0.7), (toe, sole)]
    return [[*points, (left, sole)]]
