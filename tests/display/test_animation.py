"""Animations: every image of every frame, read back from the GIF."""

import numpy as np
import pytest
from PIL import Image

from support.display import animation, plots

RANDOM = np.random.default_rng(0)
# Half a step between two shades.
ROUNDING = 255 / (animation.SHADES - 1) / 2 + 1
STEP = plots.SCALE * 28 + animation.EDGE


def frames_of(path):
    with Image.open(path) as film:
        assert film.info["loop"] == 0
        pages = []
        for number in range(film.n_frames):
            film.seek(number)
            assert film.info["duration"] == animation.MILLISECONDS
            pages.append(np.asarray(film.convert("L")).astype(float))
    return pages


def test_every_image_is_in_its_frame_dark_on_white(tmp_path):
    frames = RANDOM.integers(0, 256, (4, 3, 784), np.uint8)
    path = str(tmp_path / "it.gif")
    animation.write(path, frames, comment="run 1")
    pages = frames_of(path)
    assert len(pages) == 4 and plots.source_of(path) == "run 1"
    for page, images in zip(pages, frames, strict=True):
        assert page.shape == (animation.EDGE + STEP, animation.EDGE + 3 * STEP)
        for column, image in enumerate(images.reshape(3, 28, 28)):
            left = animation.EDGE + STEP * column
            found = page[animation.EDGE :, left:][:56:2, :56:2]
            np.testing.assert_allclose(found, 255.0 - image, atol=ROUNDING)
        assert (page[: animation.EDGE] == 255).all() and (page[-animation.EDGE :] == 255).all()


def test_captions_and_the_slider_are_below(tmp_path):
    frames = np.zeros((3, 2, 784), np.uint8)
    slider = animation.Slider([0, 0.5, 1], "low", "high")
    path = str(tmp_path / "it.gif")
    animation.write(path, frames, captions=["first", ""], slider=slider)
    pages = frames_of(path)
    top = animation.EDGE + STEP
    for page in pages:
        captions = page[top : top + animation.LINE]
        assert captions[:, :STEP].min() < 50 and captions[:, STEP + animation.EDGE :].min() == 255
    # The dot is as high as it is wide; the texts at both ends do not move.
    lines = [page[top + animation.LINE :] for page in pages]
    # Only the dot is dark and high, besides the texts, which are in every frame.
    tall = [np.flatnonzero((line < 60).sum(axis=0) >= 7) for line in lines]
    texts = set.intersection(*map(set, tall))
    dots = [np.median([x for x in columns if x not in texts]) for columns in tall]
    assert dots[0] < dots[1] < dots[2]
    assert dots[1] == pytest.approx((dots[0] + dots[2]) / 2, abs=1)
