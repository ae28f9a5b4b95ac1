"""The table and the pictures of the user's own images; tests/test_eval.py checks their pixels."""

import numpy as np

from support.analysis.own_images import OwnImage
from support.datasets.photos import Digit
from support.display import own_images, plots
from tests import pixels

RANDOM = np.random.default_rng(0)


def image(name, **values):
    crop = np.full((112, 112), RANDOM.integers(256), np.uint8)
    seen = RANDOM.integers(0, 256, 784, np.uint8)
    digit = Digit(f"folder/{name}", name, crop, seen)
    figures = {
        "figures": None,
        "mu": np.zeros(2),
        "loss_total": 75.25,
        "RMSE_mean": 0.125,
        "share_higher": 0.5,
    }
    classified = {"is_none_of_these": False, "predicted_label": 3, "probability": 0.75}
    return OwnImage(digit, seen, **figures, **(classified | {"class_name": "3"} | values))


def test_a_line_of_the_table(capsys):
    own_images.print_table([image("a" * 40 + ".png"), image("it.png", probability=None)])
    header, long, short, *legend = capsys.readouterr().out.splitlines()
    assert header == f"{'your images':<28}  loss_total  RMSE_mean  higher  classified as"
    assert long == "..." + "a" * 21 + ".png       75.25     0.1250    50 %  3 (p = 0.75)"
    assert short == f"{'it.png':<28}       75.25     0.1250    50 %  -"
    assert len(legend) == 2
    own_images.print_table([image("it.png", is_none_of_these=True)])
    line, *legend = capsys.readouterr().out.splitlines()[1:]
    assert line.endswith("  none of these") and legend[-1].startswith("none of these: ")


def test_names_are_shortened_at_their_beginning():
    assert own_images.shorten("long.png", 8) == "long.png"
    assert own_images.shorten("long.png", 7) == "....png"
    assert own_images.shorten("long.png", 4) == "...g"


def test_digits_beyond_a_row_go_on_below(tmp_path):
    images = [image(f"{number}.png") for number in range(7)]
    reconstructions = RANDOM.integers(0, 256, (7, 784), np.uint8)
    path = tmp_path / "own.png"
    own_images.draw(str(path), images, reconstructions)
    picture = pixels.grey(path)
    step = own_images.SCALE * (28 + plots.GAP)
    first = pixels.place(picture, images[0].seen, own_images.SCALE)
    block = 3 * step + 3 * plots.LINE
    for number in (1, 4, 5, 6):
        place = first + np.array([block * (number // 5), step * (number % 5)])
        found = pixels.place(picture, images[number].seen, own_images.SCALE)
        np.testing.assert_allclose(found, place, atol=1)
        found = pixels.place(picture, reconstructions[number], own_images.SCALE)
        np.testing.assert_allclose(found, place + np.array([step, 0]), atol=1)
        top, left = place - np.array([step + plots.LINE, 0])
        crop = picture[top : top + 140, left : left + 140]
        np.testing.assert_allclose(crop, images[number].digit.crop[0, 0], atol=1)


def test_an_interpolation_has_a_row_for_each_two(tmp_path):
    images = [image(f"{number}.png") for number in range(3)]
    paths = RANDOM.integers(0, 256, (2, 11, 784), np.uint8)
    own_images.draw_interpolation(str(tmp_path / "it.png"), images, paths)
    picture = pixels.grey(tmp_path / "it.png")
    step = plots.SCALE * (28 + plots.GAP)
    origin = pixels.place(picture, images[0].seen)
    # The second image ends the first row and begins the second; its first place is found.
    shown = [(0, 1, paths[0, 0]), (0, 12, images[1].seen), (1, 11, paths[1, 10])]
    for row, column, expected in [*shown, (1, 12, images[2].seen)]:
        place = origin + step * np.array([row, column])
        np.testing.assert_allclose(pixels.place(picture, expected), place, atol=1)
