"""Folders of pictures: parts, classes, order, stray files, colours, sizes, and what is refused."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

import data
from support.datasets.formats import pictures
from support.datasets.labels import DIGIT_WORDS
from support.errors import UserError
from tests.datasets.samples import arrays, png_chunks, strokes, write_pictures
from tests.datasets.test_csv_tables import pairs
from tests.datasets.test_idx import same

CONTENT = arrays()


def write_parts(folder, content, train="training", test="testing", **options):
    write_pictures(folder / train, content["x_train"], content["y_train"], **options)
    write_pictures(folder / test, content["x_test"], content["y_test"], **options)
    return folder


@pytest.mark.parametrize("train, test", [("training", "testing"), ("Train", "TEST")])
@pytest.mark.parametrize("above", ["", "mnist_png", "a/b"])
def test_numbers_in_names_give_the_old_order(tmp_path, train, test, above):
    write_parts(tmp_path / above, CONTENT, train, test)
    loaded = data.load("auto", str(tmp_path))
    same(loaded, CONTENT)
    assert loaded.class_names == ()


@pytest.mark.parametrize(
    "name",
    [
        "{label}/img_{index}.PNG",
        "{label}/{index}.bmp",
        "{label}/{index}.tif",
        "{label}/digit-{index}.gif",
    ],
)
def test_other_names_and_formats(tmp_path, name):
    same(data.load("auto", str(write_parts(tmp_path, CONTENT, name=name))), CONTENT)


def test_the_ending_says_nothing(tmp_path):
    write_pictures(tmp_path, CONTENT["x_train"], CONTENT["y_train"])
    for path in list(tmp_path.rglob("*.png")):
        path.rename(path.with_suffix(""))
    assert len(data.load("auto", str(tmp_path)).train.images) > 80


def test_a_validation_folder(tmp_path):
    write_parts(tmp_path, CONTENT, "train", "test")
    more = arrays(train=30, seed=1)
    write_pictures(tmp_path / "val", more["x_train"], more["y_train"])
    loaded = data.load("auto", str(tmp_path))
    np.testing.assert_array_equal(loaded.train.images, CONTENT["x_train"].reshape(-1, 784))
    np.testing.assert_array_equal(loaded.validation.images, more["x_train"].reshape(-1, 784))
    np.testing.assert_array_equal(loaded.validation.labels, more["y_train"])


def labelled(loaded):
    """Image (as bytes) -> the name of its class."""
    names = loaded.class_names or tuple(map(str, range(256)))
    return {
        image.tobytes(): names[label]
        for part in loaded[2:5]
        for image, label in zip(part.images, part.labels, strict=True)
    }


def expected(names, content=CONTENT):
    return {
        image.tobytes(): names[label]
        for image, label in zip(content["x_train"], content["y_train"], strict=True)
    }


def test_names_of_classes(tmp_path):
    for folder, names in (
        ("letters", [f"class_{letter}" for letter in "jihgfedcba"]),
        ("words", DIGIT_WORDS),
    ):
        for index, (image, label) in enumerate(
            zip(CONTENT["x_train"], CONTENT["y_train"], strict=True)
        ):
            path = tmp_path / folder / names[label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        loaded = data.load("auto", str(tmp_path / folder))
        assert labelled(loaded) == expected(names)
        assert set(loaded.class_names) == set(names)
    np.testing.assert_array_equal(loaded.class_names, DIGIT_WORDS)


@pytest.mark.parametrize("name", ["writer{index}/{label}/a.png", "{label}/writer{index}/a.png"])
def test_folders_between(tmp_path, name):
    write_pictures(tmp_path, CONTENT["x_train"], CONTENT["y_train"], name=name)
    loaded = data.load("auto", str(tmp_path))
    assert labelled(loaded) == expected([str(label) for label in range(10)])


def test_without_folders_there_are_no_labels(tmp_path):
    write_pictures(tmp_path, CONTENT["x_train"], CONTENT["y_train"], name="{index}.png")
    loaded = data.load("auto", str(tmp_path))
    np.testing.assert_array_equal(
        pairs(loaded)[0],
        np.unique(CONTENT["x_train"].reshape(-1, 784), axis=0)[
            np.lexsort(np.unique(CONTENT["x_train"].reshape(-1, 784), axis=0).T)
        ],
    )
    assert loaded.train.labels is None
    assert any("one folder for each class" in line for line in loaded.notices)


def test_strays_are_skipped_and_counted(tmp_path):
    write_parts(tmp_path, CONTENT)
    for name in (".DS_Store", "Thumbs.db", "training/3/._0.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"\0\0\0\1Bud1 or another stray")
    (tmp_path / ".git").mkdir()
    write_pictures(tmp_path / ".git", CONTENT["x_train"], CONTENT["y_train"])
    loaded = data.load("auto", str(tmp_path))
    same(loaded, CONTENT)
    assert any(line.startswith("5 other files were skipped: ") for line in loaded.notices)


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    write_parts(tmp_path, CONTENT)
    bad = tmp_path / "training" / str(CONTENT["y_train"][7]) / "7.png"
    bad.write_bytes(bad.read_bytes()[:100])
    loaded = data.load("auto", str(tmp_path))
    kept = {
        key: np.delete(array, 7, 0) if "train" in key else array for key, array in CONTENT.items()
    }
    same(loaded, kept)
    unread = "pictures that could not be read: training/"
    assert any(line.startswith(unread) for line in loaded.notices)
    for path in list(tmp_path.rglob("*.png"))[:10]:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="6 of 133 pictures cannot be read, such as"):
        data.load("auto", str(tmp_path))


def saved(folder, picture, name="0.png", **options):
    """Saves twenty copies of a Pillow image to a folder, and returns the image that is read."""
    for index in range(20):
        path = folder / str(index % 2) / f"{index}{name[1:]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)
    return data.load("auto", str(folder)).train.images[0].reshape(28, 28)


GREY = CONTENT["x_train"][0]


def test_colours_and_depths(tmp_path):
    grey = Image.fromarray(GREY)
    np.testing.assert_array_equal(saved(tmp_path / "rgb", grey.convert("RGB")), GREY)
    np.testing.assert_array_equal(saved(tmp_path / "rgba", grey.convert("RGBA")), GREY)
    np.testing.assert_array_equal(saved(tmp_path / "palette", grey.convert("P")), GREY)
    wide = Image.fromarray(GREY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(saved(tmp_path / "16 bits", wide), GREY)
    bits = Image.fromarray(GREY > 127)
    np.testing.assert_array_equal(saved(tmp_path / "bits", bits), np.where(GREY > 127, 255, 0))
    found = saved(tmp_path / "jpeg", Image.fromarray(strokes(1, 28)[0]), "0.jpg", quality=95)
    assert np.abs(found.astype(int) - strokes(1, 28)[0]).max() < 40
    coloured = np.zeros((28, 28, 3), np.uint8)
    coloured[..., 0] = 200
    assert saved(tmp_path / "red", Image.fromarray(coloured)).max() == 60
    assert any(
        "converted to greyscale" in line
        for line in data.load("auto", str(tmp_path / "red")).notices
    )


def test_transparency(tmp_path):
    """Drawings in a single colour on a transparent page become bright on dark, in any colour."""
    for colour in (0, 255):
        pixels = np.full((28, 28, 4), colour, np.uint8)
        pixels[..., 3] = strokes(1, 28)[0]
        found = saved(tmp_path / str(colour), Image.fromarray(pixels))
        np.testing.assert_array_equal(found, strokes(1, 28)[0])


def test_other_sizes_are_preprocessed(tmp_path):
    large = Image.fromarray(255 - strokes(1, 100)[0])
    found = saved(tmp_path / "large", large)
    ink = np.argwhere(found > 127)
    assert np.ptp(ink, axis=0).max() == 19 and found[0].max() == 0, "dark ink became bright"
    np.testing.assert_allclose(ink.mean(axis=0), 13.5, atol=1)
    notices = data.load("auto", str(tmp_path / "large")).notices
    assert any(line.startswith("20 pictures are not 28x28") for line in notices)


def test_the_side_that_is_up(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path / "turned", Image.fromarray(GREY), exif=exif)
    np.testing.assert_array_equal(turned, np.rot90(GREY, -1))


def test_one_picture_is_no_data_set(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "7.png")
    with pytest.raises(UserError, match="holds one picture: expected one folder of pictures"):
        data.load("auto", str(tmp_path / "7.png"))


def bombs():
    text = b"a\0\0" + zlib.compress(bytes(50_000_000), 9)
    pixels = zlib.compress(bytes(29 * 28))
    yield "pixels", png_chunks(60_000, 60_000, (b"IDAT", zlib.compress(bytes(10_000))))
    yield "text", png_chunks(28, 28, (b"zTXt", text), (b"IDAT", pixels))
    yield "promise", png_chunks(9_000, 9_000, (b"IDAT", pixels))


@pytest.mark.parametrize(
    "content", [bomb for _, bomb in bombs()], ids=[name for name, _ in bombs()]
)
def test_bombs_are_not_read(tmp_path, content):
    for index in range(20):
        (tmp_path / f"{index}.png").write_bytes(content)
    with pytest.raises(UserError, match="6 of 20 pictures cannot be read"):
        data.load("auto", str(tmp_path))


def test_a_jpeg_of_hundreds_of_scans_is_passed_over(tmp_path):
    """Pillow would decode the whole picture once per scan."""
    write_pictures(tmp_path, CONTENT["x_train"], CONTENT["y_train"])
    file = io.BytesIO()
    Image.new("L", (64, 64), 99).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    bomb = next(tmp_path.rglob("*.png")).with_name("bomb.jpg")
    bomb.write_bytes(content[:-2] + 100 * last_scan + content[-2:])
    loaded = data.load("auto", str(tmp_path))
    assert any("bomb.jpg" in line and "scans" in line for line in loaded.notices)


def test_pixels_of_all_pictures_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS_IN_ALL", 10_000)
    write_pictures(tmp_path, CONTENT["x_train"], CONTENT["y_train"])
    with pytest.raises(UserError, match="more than 10,000 pixels in total"):
        data.load("auto", str(tmp_path))
