"""Plots: every digit is at its place in the picture, found by its pixels."""

import os

import matplotlib
import numpy as np
import pytest

from support.display import plots
from support.errors import UserError
from tests import pixels

RANDOM = np.random.default_rng(0)
DIGITS = RANDOM.integers(0, 256, (23, 784), np.uint8)
# The distance from one digit to the next in a picture, in pixels.
STEP = plots.SCALE * (28 + plots.GAP)


def test_a_mosaic_has_its_images_in_reading_order():
    page = plots.mosaic(DIGITS[:5], columns=3, gap=2)
    assert page.shape == (60, 90)
    for number, digit in enumerate(DIGITS[:5]):
        top, left = 30 * (number // 3), 30 * (number % 3)
        np.testing.assert_array_equal(page[top : top + 28, left : left + 28].ravel(), digit)
    assert not page[28:30].any() and not page[:, 28:30].any() and not page[30:, 60:].any()


def test_every_digit_of_a_picture_is_at_its_place(tmp_path):
    rows = plots.in_rows(DIGITS, 10, ["first", "second", "third"])
    assert [(row.name, len(row.images)) for row in rows] == [
        ("first", 10),
        ("second", 10),
        ("third", 3),
    ]
    plots.draw(str(tmp_path / "it.png"), "A title that is not as wide", rows)
    picture = pixels.grey(tmp_path / "it.png")
    origin = pixels.place(picture, DIGITS[0])
    for number, digit in enumerate(DIGITS):
        expected = origin + np.array([STEP * (number // 10), STEP * (number % 10)])
        np.testing.assert_allclose(pixels.place(picture, digit), expected, atol=1)
    # The ink is dark, not the background, and the places that were left free are empty.
    assert picture[0].min() == 255
    assert (picture[origin[0] + 2 * STEP + 2 :, origin[1] + 3 * STEP + 2 :] == 255).all()
    assert not pixels.is_shown(picture, 255 - DIGITS[0])


@pytest.mark.parametrize("label", ["label", "a label that is much wider than two digits"])
@pytest.mark.parametrize("title", ["short", "a title that is much wider than two digits " * 2])
def test_a_picture_has_its_texts_around_the_digits(tmp_path, title, label):
    """Each text is ink at a place that would be empty without it."""
    row = plots.Row("name", DIGITS[:2], captions=["one", "two"])
    texts = {"column_names": ["a", "b"], "column_label": label}
    plots.draw(str(tmp_path / "it.png"), title, [row], **texts)
    picture = pixels.grey(tmp_path / "it.png")
    top, left = pixels.place(picture, DIGITS[0])
    right, bottom = left + 2 * STEP, top + 56
    places = {
        "title": picture[: top - 4],
        "name": picture[top:bottom, : left - 4],
        "caption": picture[bottom + 2 : bottom + plots.LINE, left : left + 56],
        "second caption": picture[bottom + 2 : bottom + plots.LINE, left + STEP : right],
        "column names": picture[bottom + 6 + plots.LINE : bottom + 2 * plots.LINE, left:right],
        "label": picture[bottom + 8 + 2 * plots.LINE :],
    }
    for name, part in places.items():
        assert part.min() < 100, name
    # Nothing is cut off at the picture's edges.
    edges = picture[0], picture[-1], picture[:, 0], picture[:, -1]
    assert min(edge.min() for edge in edges) == 255


@pytest.mark.parametrize("column", [0, 2.5, 9])
def test_a_mark_stands_between_columns(tmp_path, column):
    mark = plots.Mark(column, "here")
    rows = [plots.Row("one", DIGITS[:10], mark=mark), plots.Row("two", DIGITS[10:20])]
    plots.draw(str(tmp_path / "it.png"), "marks", rows)
    picture = pixels.grey(tmp_path / "it.png")
    (top, left), below = pixels.place(picture, DIGITS[0]), pixels.place(picture, DIGITS[10])
    ((row, middle),) = pixels.triangles(tmp_path / "it.png")
    assert middle == pytest.approx(left + 28 + column * STEP, abs=2)
    assert top + 56 < row < below[0]
    # The text is below the triangle, and centred there.
    text = picture[int(row) + 8 : below[0] - 2] < 100
    columns = np.flatnonzero(text.any(axis=0))
    assert (columns[0] + columns[-1]) / 2 == pytest.approx(middle, abs=3)


def test_a_long_text_at_an_edge_stays_below_the_images(tmp_path):
    mark = plots.Mark(9, "start, at +12.3")
    plots.draw(str(tmp_path / "it.png"), "marks", [plots.Row("one", DIGITS[:10], mark=mark)])
    picture = pixels.grey(tmp_path / "it.png")
    _, left = pixels.place(picture, DIGITS[0])
    ((row, middle),) = pixels.triangles(tmp_path / "it.png")
    assert middle == pytest.approx(left + 28 + 9 * STEP, abs=2)
    columns = np.flatnonzero((picture[int(row) + 8 :] < 100).any(axis=0))
    assert columns[-1] <= left + 10 * STEP and columns[-1] - columns[0] > 60


def test_a_picture_keeps_its_source(tmp_path):
    rows = plots.in_rows(DIGITS, 10)
    plots.draw(str(tmp_path / "it.png"), "title", rows, source="run 1, seed é")
    plots.draw(str(tmp_path / "plain.png"), "title", rows)
    assert plots.source_of(str(tmp_path / "it.png")) == "run 1, seed é"
    assert plots.source_of(str(tmp_path / "plain.png")) == ""
    (tmp_path / "it.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert plots.source_of(str(tmp_path / "it.png")) == ""
    assert plots.source_of(str(tmp_path / "missing.png")) == ""


def test_images_of_other_sizes_are_shown_as_large(tmp_path):
    large = RANDOM.integers(0, 256, (2, 56, 56), np.uint8)
    rows = [plots.Row("", DIGITS[:2]), plots.Row("", large)]
    plots.draw(str(tmp_path / "it.png"), "sizes", rows, scale=4)
    picture = pixels.grey(tmp_path / "it.png")
    top, left = pixels.place(picture, DIGITS[0], scale=4)
    found = picture[top + 124 : top + 236 : 2, left + 124 : left + 236 : 2]
    np.testing.assert_allclose(found, 255.0 - large[1], atol=1)
    assert plots.resize(np.full((9, 9), 77, np.uint8), 28).tolist() == [[77] * 28] * 28


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "it.png"
    path.write_bytes(b"before")
    with pytest.raises(UserError), plots.figure(str(path), (2, 2)):
        raise UserError("no picture")
    assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


def test_settings_of_the_user_change_no_pixel(tmp_path, monkeypatch):
    """Those of a matplotlibrc, and the backend of a notebook."""
    image = np.random.default_rng(0).integers(0, 256, (4, 784)).astype(np.uint8)
    plots.draw(str(tmp_path / "plain.png"), "Four", plots.in_rows(image, 2))
    monkeypatch.setenv("MPLBACKEND", "module://nowhere")
    odd = {"image.origin": "lower", "savefig.bbox": "tight", "font.size": 30, "text.usetex": True}
    with matplotlib.rc_context(odd):
        plots.draw(str(tmp_path / "odd.png"), "Four", plots.in_rows(image, 2))
        assert matplotlib.rcParams["font.size"] == 30
    assert os.environ["MPLBACKEND"] == "module://nowhere"
    assert (tmp_path / "odd.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
