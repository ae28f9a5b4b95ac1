"""The folder of PNG files: what is in it, and which folders it replaces."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from support.display import png_folder
from support.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 784), np.uint8)
NAMES = ("zero", "one")
ABOUT = {"source": "a test"}


def write(path, count=5, names=NAMES):
    with png_folder.replaced(str(path), count, names, ABOUT) as folder:
        folder.write(IMAGES[:2], np.array([1, 0]))
        folder.write(IMAGES[2:count], None)


def test_each_image_has_a_file_with_its_number_and_label(tmp_path):
    write(tmp_path / "png")
    names = ["000000_one", "000001_zero", "000002", "000003", "000004"]
    assert sorted(os.listdir(tmp_path / "png")) == [
        *(f"{name}.png" for name in names),
        "about.json",
    ]
    for name, expected in zip(names, IMAGES, strict=True):
        with Image.open(tmp_path / "png" / f"{name}.png") as found:
            assert found.mode == "L"
            # Bright on dark, as the data is.
            np.testing.assert_array_equal(np.asarray(found).ravel(), expected)
    assert json.loads((tmp_path / "png" / "about.json").read_text()) == ABOUT
    assert png_folder.about(str(tmp_path / "png")) == ABOUT
    assert png_folder.about(str(tmp_path)) == {}


def test_numbers_sort_in_order_however_many_there_are(tmp_path):
    with png_folder.replaced(str(tmp_path / "png"), 10**6 + 1, (), {}) as folder:
        folder.write(IMAGES[:2], np.array([1, 0]))
    assert sorted(os.listdir(tmp_path / "png")) == ["0000000.png", "0000001.png", "about.json"]


def test_an_earlier_folder_is_replaced_as_a_whole(tmp_path):
    write(tmp_path / "png")
    (tmp_path / "png" / ".DS_Store").touch()
    write(tmp_path / "png", count=3, names=())
    found = sorted(os.listdir(tmp_path / "png"))
    assert found == ["000000.png", "000001.png", "000002.png", "about.json"]
    assert os.listdir(tmp_path) == ["png"]


@pytest.mark.parametrize("ours", [True, False])
def test_a_folder_with_other_files_is_refused_and_unchanged(tmp_path, ours):
    folder = tmp_path / "png"
    if ours:
        write(folder)
        mine = "holiday.png"
    else:
        # Named like ours, but nothing says that it is.
        folder.mkdir()
        mine = "000000.png"
    (folder / mine).write_text("mine")
    before = sorted(os.listdir(folder))
    with pytest.raises(UserError, match=rf"did not write \({mine}\) .*move them elsewhere"):
        write(folder)
    assert sorted(os.listdir(folder)) == before and (folder / mine).read_text() == "mine"


def test_a_file_that_was_added_while_images_were_written_is_kept(tmp_path):
    write(tmp_path / "png")
    with (
        pytest.raises(UserError, match=r"late\.txt"),
        png_folder.replaced(str(tmp_path / "png"), 5, (), ABOUT) as folder,
    ):
        (tmp_path / "png" / "late.txt").write_text("mine")
        folder.write(IMAGES, None)
    assert (tmp_path / "png" / "late.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["png"]


def test_an_empty_folder_is_used_and_a_file_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert len(os.listdir(tmp_path / "empty")) == 6
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is not a folder"):
        png_folder.require_ours(str(tmp_path / "file"))


def test_class_names_become_parts_of_file_names():
    for_files = png_folder.names_for_files
    assert for_files((), 3) == ["0", "1", "2"]
    assert for_files(("letter A", "T-shirt/top", "été"), 4) == [
        "letter-A",
        "T-shirt-top",
        "été",
        "3",
    ]
    # Equal on a disk that ignores case, and nothing left of a name.
    assert for_files(("a b", "A/B"), 2) == ["0-a-b", "1-A-B"]
    assert for_files(("../x", "?"), 2) == ["0-x", "1"]
    for name in for_files(("x" * 300, "a\x00\n:b", "CON", "..", "a.png"), 5):
        assert png_folder.OUR_NAMES.fullmatch(f"000000_{name}.png") and len(name) < 50
        assert not set(name) & set('/\\:*?"<>|.\x00\n ')
