"""The description of the user's files, and which notices appear when."""

import numpy as np

import data
from tests.datasets.samples import arrays, strokes


def load(path, **content):
    np.savez(path, **content)
    return data.load("auto", str(path))


def says(loaded, text):
    return any(text in line for line in (*loaded.notices, *loaded.training_notices))


def test_the_block(tmp_path):
    content = arrays()
    content["y_train"] = np.array(["cat", "ape"])[content["y_train"] % 2]
    content["y_test"] = np.array(["cat", "ape"])[content["y_test"] % 2]
    loaded = load(tmp_path / "mine.npz", **content)
    counts = {name: 0 for name in ("ape", "cat")}
    for name in (*content["y_train"], *content["y_test"]):
        counts[name] += 1
    assert loaded.description[:4] == (
        "files   NumPy arrays: mine.npz",
        "values  uint8, shape (28, 28), from 0 to 255",
        "images  110 train, 11 validation, 12 test",
        f"classes 2: ape ({counts['ape']}), cat ({counts['cat']})",
    )
    assert loaded.description[4].startswith("ink     mean pixel value 0.")


def test_ordinary_data_gets_no_notice(tmp_path):
    content = arrays(train=6_000, test=50)
    content["x_train"] //= 2
    content["x_train"][:, 0, 0] = 255
    loaded = load(tmp_path / "mine.npz", **content)
    assert loaded.notices == loaded.training_notices == ()


def test_notices(tmp_path):
    content = arrays(train=500)
    ordinary = load(tmp_path / "a.npz", **content | {"x_train": content["x_train"] // 3})
    for text in ("mostly bright", "all labels are the same", "also training", "wider than tall"):
        assert not says(ordinary, text)
    assert says(ordinary, "the largest pixel value is 85")
    # Of no use to who only evaluates.
    assert "455 training images are few" in ordinary.training_notices[0]
    bright = 255 - strokes(500, 28)
    assert says(load(tmp_path / "a.npz", x=bright, y=content["y_train"]), "mostly bright")
    equal = load(tmp_path / "a.npz", x=content["x_train"], y=np.full(500, 3))
    assert says(equal, "all labels are the same (3)") and not says(equal, "fewer than")
    few = content["y_train"].copy() % 9
    few[:4] = 9
    found = load(tmp_path / "a.npz", **content | {"y_train": few, "y_test": few[:12]})
    assert says(found, "1 class has fewer than 10 training images (9)")
    repeated = load(tmp_path / "a.npz", **content | {"x_test": content["x_train"][:12]})
    assert says(repeated, "12 of the 12 test images are also training images")
    assert says(load(tmp_path / "a.npz", x=np.zeros((99, 784))), "all images are black")


def test_images_on_their_sides_are_suspected(tmp_path):
    tall = np.zeros((99, 28, 28), np.uint8)
    tall[:, 4:24, 10:18] = 255
    assert not says(load(tmp_path / "a.npz", x=tall), "--transpose")
    wide = tall.transpose(0, 2, 1)
    assert says(load(tmp_path / "a.npz", x=wide), "--transpose")
    turned = data.load("auto", str(tmp_path / "a.npz"), transpose=True)
    assert not says(turned, "--transpose")
    assert (turned.train.images == tall[0].reshape(-1)).all()
