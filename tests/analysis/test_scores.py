"""The table of scores: percentiles, cells, and which files it may replace."""

import csv

import numpy as np
import pytest

from support.analysis import latents, scores
from support.errors import UserError
from tests.analysis.test_latents import own, table_of


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_percentile_is_the_share_of_validation_images_with_a_lower_elbo():
    validation = np.array([90.0, 70.0, 80.0, 80.0], np.float32)
    elbo = np.array([60, 70, 75, 80, 85, 90, 91], np.float32)
    assert scores.percentiles(elbo, validation).tolist() == [0, 0, 25, 25, 75, 75, 100]
    random = np.random.default_rng(0)
    validation, elbo = random.random(333, np.float32), random.random(50, np.float32)
    expected = [100 * np.mean(validation < value) for value in elbo]
    np.testing.assert_allclose(scores.percentiles(elbo, validation), expected)


def test_a_row_has_names_figures_and_a_percentile(tmp_path):
    table = latents.joined([table_of(count=2), latents.of_own_images([own("a/b.png", "b.png")])])
    table.predicted[:] = [1, 2, 0]
    table.labels[:2] = [1, 0]
    path = str(tmp_path / "it.csv")
    percentile = np.array([0.02, 100.0, 100 / 3])
    above = np.array([False, True, False])
    scores.write(path, table, percentile, ("cat", "dog"), above)
    rows = read(path)
    assert [row["split"] for row in rows] == ["test", "test", "images"]
    assert [row["index"] for row in rows] == ["0", "1", "0"]
    assert [row["file"] for row in rows] == ["", "", "a/b.png"]
    assert [row["label"] for row in rows] == ["dog", "cat", ""]
    # The third class has no name.
    assert [row["predicted"] for row in rows] == ["dog", "2", "cat"]
    assert [row["percentile"] for row in rows] == ["0.02", "100.0", "33.333333"]
    assert [row["above"] for row in rows] == ["0", "1", "0"]
    for number, row in enumerate(rows):
        # Written so that they are read back as the same float32.
        assert np.float32(row["probability"]) == table.probability[number]
        for name in scores.METRICS:
            assert np.float32(row[name]) == table.metrics[name][number]


def test_cells_of_what_there_is_not_are_empty(tmp_path):
    table = table_of(labels=False, classes=False, fitted=False)
    scores.write(str(tmp_path / "it.csv"), table, np.zeros(4))
    for row in read(tmp_path / "it.csv"):
        empty = ("file", "label", "predicted", "probability", "loss_total_fitted")
        assert [row[name] for name in empty] == [""] * 5
        assert float(row["loss_total"]) > 0 and "above" not in row


@pytest.mark.parametrize(
    "text, cell",
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' C'!A0", "'+cmd|' C'!A0"),
        ("-a.png", "'-a.png"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1+1", "' =1+1"),
        ("-1", "-1"),
        ("+2.5", "+2.5"),
        ("a=b.png", "a=b.png"),
        ("two\nlines\t.png", "two\\nlines\\t.png"),
        ("\t=1", "\\t=1"),
    ],
)
def test_no_cell_is_a_formula(tmp_path, text, cell):
    """Neither of a file's name nor of a class's; a plain number is none."""
    assert scores.harmless(text) == cell
    table = latents.of_own_images([own(text, text)])
    table.predicted[:] = 0
    table.labels[:] = 0
    scores.write(str(tmp_path / "it.csv"), table, np.zeros(1), (text,))
    (row,) = read(tmp_path / "it.csv")
    assert row["file"] == row["label"] == row["predicted"] == cell


def test_an_earlier_table_may_be_replaced_and_nothing_else(tmp_path):
    path = str(tmp_path / "it.csv")
    scores.require_replaceable(path)
    open(path, "w").close()
    scores.require_replaceable(path)
    scores.write(path, table_of(), np.zeros(4))
    scores.require_replaceable(path)
    (tmp_path / "mine.csv").write_text("label,split\n1,2\n")
    with pytest.raises(UserError, match="does not hold scores that"):
        scores.require_replaceable(str(tmp_path / "mine.csv"))
    with pytest.raises(UserError, match=r"ends in \.csv"):
        scores.require_replaceable(str(tmp_path / "it.npz"))
    with pytest.raises(UserError, match="is not a regular file"):
        (tmp_path / "folder.csv").mkdir()
        scores.require_replaceable(str(tmp_path / "folder.csv"))


def test_a_threshold_is_described_by_part_and_by_file():
    files = [own("a.png", "a.png"), own("b.png", "b.png"), own("c.png", "c.png")]
    table = latents.joined([table_of(count=4), latents.of_own_images(files)])
    above = np.array([True, False, False, False, False, True, True])
    assert scores.describe(table, above, 99.5) == [
        "loss_total above that of 99.5 % of the validation images:",
        "test        1 of 4 (25.00 %)",
        "images      2 of 3 (66.67 %): b.png, c.png",
    ]
