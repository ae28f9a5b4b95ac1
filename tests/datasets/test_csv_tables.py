"""CSV in its many forms: headers, separators, labels first, last or absent, other numbers."""

import gzip

import numpy as np
import pytest

import data
from support.errors import UserError
from tests.datasets.samples import arrays, strokes, table, write_csv
from tests.datasets.test_idx import same

IMAGES, LABELS = arrays(train=140)["x_train"], arrays(train=140)["y_train"]
# Corners that are always black, as in MNIST, tell pixels from labels.
IMAGES[:, 0, 0] = IMAGES[:, -1, -1] = 0
ROWS = table(IMAGES, LABELS)
PIXELS = [f"pixel{index}" for index in range(784)]
COMMA = ",".join(["label", *PIXELS]) + "\n"


def pairs(loaded):
    """The images and labels of all parts in a fixed order, since the split shuffles them."""
    parts = loaded[2:5]
    images = np.concatenate([part.images for part in parts])
    order = np.lexsort(images.T)
    labels = None
    if parts[0].labels is not None:
        labels = np.concatenate([part.labels for part in parts])[order].tolist()
    return images[order], labels


def check(path, labels=LABELS):
    images, found = pairs(data.load("auto", str(path)))
    flat = IMAGES.reshape(-1, 784)
    order = np.lexsort(flat.T)
    np.testing.assert_array_equal(images, flat[order])
    assert found == (None if labels is None else labels[order].tolist())


SPELLINGS = {
    "bare": (ROWS, {}),
    "header": (ROWS, {"header": COMMA}),
    "quoted header": (
        ROWS,
        {"header": ",".join(f'"{name}"' for name in ["label", *PIXELS]) + "\n"},
    ),
    "quoted": (ROWS, {"header": COMMA, "spell": lambda value: f'"{value}"'}),
    "byte order mark": (ROWS, {"header": "\ufeff" + COMMA}),
    "mark, no header": (ROWS, {"header": "\ufeff"}),
    "CRLF": (ROWS, {"header": COMMA.replace("\n", "\r\n"), "end": "\r\n"}),
    "CR": (ROWS, {"end": "\r"}),
    "semicolons": (ROWS, {"separator": ";", "header": COMMA.replace(",", ";")}),
    "tabs": (ROWS, {"separator": "\t"}),
    "spaces after commas": (ROWS, {"separator": ", "}),
    "separator at the end": (ROWS, {"end": ",\n"}),
    "blank lines": (ROWS, {"end": "\n\n"}),
    "label last": (table(IMAGES, LABELS, last=True), {}),
    "class last": (
        table(IMAGES, LABELS, last=True),
        {"header": ",".join([*PIXELS, "class"]) + "\n"},
    ),
    "numbered columns": (ROWS, {"header": ",".join(map(str, range(785))) + "\n"}),
    "index of pandas": (
        np.column_stack([np.arange(140), ROWS]),
        {"header": "," + COMMA},
    ),
    "index without header": (np.column_stack([np.arange(140) + 1000, ROWS]), {}),
    "as floats": (ROWS.astype(float), {}),
    "fractions": (np.column_stack([LABELS, IMAGES.reshape(-1, 784) / 255]), {}),
    "decimal commas": (
        np.column_stack([LABELS, IMAGES.reshape(-1, 784) / 255]),
        {"separator": ";", "spell": lambda value: str(value).replace(".", ",")},
    ),
}


@pytest.mark.parametrize("rows, options", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_spellings(tmp_path, rows, options):
    check(write_csv(tmp_path / "mine.csv", rows, **options))


def test_without_labels(tmp_path):
    pixels = table(IMAGES)
    check(write_csv(tmp_path / "a.csv", pixels), labels=None)
    check(write_csv(tmp_path / "b.csv", pixels, ",".join(PIXELS) + "\n"), labels=None)


def test_labels_that_are_names(tmp_path):
    names = np.array(list("qwertyuiop"))[LABELS]
    lines = [
        f"{name}," + ",".join(map(str, row)) for name, row in zip(names, table(IMAGES), strict=True)
    ]
    (tmp_path / "first.csv").write_text("\n".join(lines))
    lines = [
        ",".join(map(str, row)) + f",{name}" for name, row in zip(names, table(IMAGES), strict=True)
    ]
    (tmp_path / "last.csv").write_text("\n".join(lines) + "\n")
    expected = np.array(["eiopqrtuwy".index(name) for name in names])
    for name in ("first.csv", "last.csv"):
        check(tmp_path / name, expected)
        assert data.load("auto", str(tmp_path / name)).class_names == tuple("eiopqrtuwy")


def test_train_and_test_in_files_of_their_own(tmp_path):
    content = arrays()
    for part in ("train", "test"):
        rows = table(content[f"x_{part}"], content[f"y_{part}"])
        write_csv(tmp_path / f"mnist_{part}.csv", rows, COMMA)
        plain = (tmp_path / f"mnist_{part}.csv").read_bytes()
        (tmp_path / "gz").mkdir(exist_ok=True)
        (tmp_path / "gz" / f"{part}.csv.gz").write_bytes(gzip.compress(plain))
    same(data.load("auto", str(tmp_path / "gz")), content)
    same(data.load("auto", str(tmp_path / "mnist_train.csv")), content)


def test_the_test_file_of_kaggle_has_no_labels(tmp_path):
    """Its folder may hold another data set, too: the one in two files is used, the other listed."""
    write_csv(tmp_path / "train.csv", ROWS, COMMA)
    write_csv(tmp_path / "test.csv", table(arrays()["x_test"]), ",".join(PIXELS) + "\n")
    write_csv(tmp_path / "mnist_train.csv", ROWS[:30])
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n2,0\n")
    check(tmp_path)
    notices = data.load("auto", str(tmp_path)).notices
    assert any("mnist_train.csv; to use it, give the path" in line for line in notices)
    assert any("12 test images have no labels" in line for line in notices)
    assert any("sample_submission.csv" in line for line in notices)


def test_images_of_other_sizes(tmp_path):
    images = strokes(60, 8, 16)
    loaded = data.load(
        "auto", str(write_csv(tmp_path / "a.tra", table(images, np.arange(60) % 9, last=True)))
    )
    assert loaded.train.images.max() == 255
    assert np.bincount(loaded.train.labels).size == 9


def test_pieces_join(tmp_path, monkeypatch):
    """Lines may begin in one piece that is read and end in the next, whatever the line endings."""
    from support.datasets.formats import csv_tables

    for size in (1000, 1777, 4096):
        monkeypatch.setattr(csv_tables, "PIECE_BYTES", size)
        check(write_csv(tmp_path / "a.csv", ROWS, COMMA.replace("\n", "\r\n"), end="\r\n"))


def test_emnist_is_turned_upright(tmp_path):
    sideways = IMAGES.transpose(0, 2, 1)
    check(write_csv(tmp_path / "emnist-letters.csv", table(sideways, LABELS)))


def changed(line, column, value):
    rows = [list(map(str, row)) for row in ROWS.tolist()]
    rows[line - 1][column:] = value
    return "\n".join(",".join(row) for row in rows)


def test_a_column_of_labels_that_is_taken_for_pixels_is_noticed(tmp_path):
    """A pixel is missing and there is no header, so that the label makes up the 784 columns."""
    corner = np.zeros((120, 28, 28), np.uint8)
    corner[:, 4:24, 4:24] = strokes(120, 20)
    pixels, labels = corner.reshape(120, 784), np.arange(120)[:, None] % 10
    for number, rows in enumerate([[labels, pixels[:, 1:]], [pixels[:, :-1], labels]]):
        path = write_csv(tmp_path / f"{number}.csv", np.hstack(rows))
        notices = data.load("auto", str(path)).notices
        assert any("looks like labels" in line for line in notices), notices
    for rows in ([pixels], [labels, pixels]):
        notices = data.load("auto", str(write_csv(tmp_path / "c.csv", np.hstack(rows)))).notices
        assert not any("looks like labels" in line for line in notices)


REFUSED = {
    "short line": (changed(90, 700, ["1"]), "line 90 has 701 values: expected 785"),
    "long line": (changed(90, 785, ["1", "2"]), "line 90 has 786 values: expected 785"),
    "word": (changed(90, 784, ["abc"]), "line 90, value 785 is b'abc': expected a number"),
    "empty": (changed(90, 784, [""]), "line 90, value 785 is b'': expected a number"),
    "not a number": (changed(90, 784, ["nan"]), "pixels that are NaN or infinite"),
    "too large": (changed(90, 784, ["256"]), "pixel values from 0 to 256"),
    "fraction as label": (changed(90, 0, ["1.5", *["0"] * 784]), "the label 1.5"),
    "text": ("a,b\n1,2\n", "a table whose lines are not images and cannot be read: found 2 values"),
    "columns": ("\n".join([",".join(["1"] * 700)] * 20), "found 700 values per line, expected 784"),
    "header only": (COMMA, "a table whose lines are not images"),
}


@pytest.mark.parametrize("content, message", REFUSED.values(), ids=REFUSED.keys())
def test_wrong_tables_are_refused(tmp_path, content, message):
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        data.load("auto", str(tmp_path / "mine.csv"))
