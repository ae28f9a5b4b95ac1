"""data.py: names, splits, batches, fallbacks, and what is refused whatever the format."""

import numpy as np
import pytest

import data
from support.datasets import download
from support.datasets.entries import Listing, in_memory
from support.errors import UserError
from tests.datasets.samples import IDX_FILES, arrays, idx, write_idx


def flat(images):
    return images.reshape(-1, 784)


def npz(path, **content):
    np.savez(path, **content)
    return str(path)


def test_the_last_eleventh_of_custom_images_validates(tmp_path):
    content = arrays()
    loaded = data.load("auto", npz(tmp_path / "a.npz", **content))
    assert loaded.name == "custom" and loaded.fallback_reason == "" and loaded.class_names == ()
    assert [len(split.images) for split in loaded[2:5]] == [110, 11, 12]
    np.testing.assert_array_equal(loaded.train.images, flat(content["x_train"])[:110])
    np.testing.assert_array_equal(loaded.train.labels, content["y_train"][:110])
    np.testing.assert_array_equal(loaded.validation.images, flat(content["x_train"])[110:])
    np.testing.assert_array_equal(loaded.validation.labels, content["y_train"][110:])
    np.testing.assert_array_equal(loaded.test.images, flat(content["x_test"]))
    np.testing.assert_array_equal(loaded.test.labels, content["y_test"])


def test_the_hash_is_that_of_all_arrays_with_their_shapes(tmp_path):
    """It is the hash from older versions: runs recognize their data by it."""
    loaded = data.load("auto", npz(tmp_path / "a.npz", **arrays()))
    assert loaded.sha256.startswith("617324af2c27f360429bf62c9ecc258a")
    limited = data.load("auto", str(tmp_path / "a.npz"), limit=7)
    assert limited.sha256 == loaded.sha256
    assert len(limited.train.images) == len(limited.train.labels) == 7
    assert len(limited.validation.images) == 11
    other = arrays()
    other["y_test"] = other["y_test"] + 1
    assert data.load("auto", npz(tmp_path / "b.npz", **other)).sha256 != loaded.sha256


def test_some_classes_are_kept_for_training_and_validation(tmp_path):
    content = arrays()
    path = npz(tmp_path / "a.npz", **content)
    every, some = data.load("auto", path), data.load("auto", path, classes=["3", "0", "3"])
    assert some.classes == (0, 3) and every.classes == () and some.sha256 == every.sha256
    for part in ("train", "validation"):
        whole, kept = getattr(every, part), getattr(some, part)
        rows = [row for row, label in enumerate(whole.labels) if label in (0, 3)]
        assert 0 < len(rows) < len(whole.labels)
        np.testing.assert_array_equal(kept.images, whole.images[rows])
        np.testing.assert_array_equal(kept.labels, whole.labels[rows])
    np.testing.assert_array_equal(some.test.images, every.test.images)
    # The limit counts images of these classes.
    limited = data.load("auto", path, limit=5, classes=["0", "3"])
    np.testing.assert_array_equal(limited.train.images, some.train.images[:5])
    # All classes by name are the same data set as without names.
    everything = data.load("auto", path, classes=[str(label) for label in range(10)])
    assert everything.classes == () and len(everything.train.images) == 110


def test_classes_that_do_not_exist_are_refused(tmp_path):
    content = arrays()
    path = npz(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=r"no training images of class 12, .*: choose from 0 1 2"):
        data.load("auto", path, classes=["1", "12"])
    with pytest.raises(UserError, match=r"the data has no class 'x': choose from whole numbers"):
        data.load("auto", path, classes=["x"])
    names = np.array(["cat", "dog"])
    named = {key: names[value % 2] if key[0] == "y" else value for key, value in content.items()}
    path = npz(tmp_path / "b.npz", **named)
    assert data.load("auto", path, classes=["Dog"]).classes == (1,)
    with pytest.raises(UserError, match=r"the data has no class '1': choose from cat dog"):
        data.load("auto", path, classes=["1"])
    unlabelled = {key: value for key, value in content.items() if key[0] == "x"}
    with pytest.raises(UserError, match="have no labels, which --digits needs: leave out"):
        data.load("auto", npz(tmp_path / "c.npz", **unlabelled), classes=["1"])
    few = {key: value[:33] for key, value in content.items()}
    few["y_train"] = np.array([0] * 8 + [1] * 25, np.uint8)
    with pytest.raises(UserError, match="8 training and"):
        data.load("auto", npz(tmp_path / "d.npz", **few), classes=["0"])


def test_an_own_validation_part_is_kept(tmp_path):
    content = arrays()
    more = arrays(train=30, seed=1)
    path = npz(tmp_path / "a.npz", **content, x_val=more["x_train"], y_val=more["y_train"])
    loaded = data.load("auto", path)
    assert [len(split.images) for split in loaded[2:5]] == [121, 30, 12]
    np.testing.assert_array_equal(loaded.validation.images, flat(more["x_train"]))
    np.testing.assert_array_equal(loaded.validation.labels, more["y_train"])
    assert loaded.sha256 != data.load("auto", npz(tmp_path / "b.npz", **content)).sha256


def test_without_test_images_a_seventh_of_each_class_is_set_aside(tmp_path):
    content = arrays(train=700)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 70)
    path = npz(tmp_path / "a.npz", x_train=content["x_train"], y_train=labels)
    loaded = data.load("auto", path)
    assert np.bincount(loaded.test.labels).tolist() == [10] * 10
    assert any("no test images" in line for line in loaded.notices)
    again = data.load("auto", path)
    np.testing.assert_array_equal(again.test.images, loaded.test.images)
    together = np.concatenate([split.images for split in loaded[2:5]])
    assert len(np.unique(together, axis=0)) == 700
    by_image = {
        image.tobytes(): label for image, label in zip(content["x_train"], labels, strict=True)
    }
    for split in loaded[2:5]:
        for image, label in zip(split.images, split.labels, strict=True):
            assert by_image[image.tobytes()] == label


def test_images_that_are_sorted_by_class_do_not_validate_on_the_last_class_alone(tmp_path):
    content = arrays(train=550)
    content["y_train"] = np.repeat(np.arange(10, dtype=np.uint8), 55)
    loaded = data.load("auto", npz(tmp_path / "a.npz", **content))
    assert np.bincount(loaded.validation.labels).tolist() == [5] * 10
    assert len(set(loaded.train.labels[:100].tolist())) == 10, "--limit takes the first images"
    assert any("sorted by class" in line for line in loaded.notices)


def test_without_labels_no_part_has_any(tmp_path):
    content = arrays()
    images = content["x_train"]
    loaded = data.load("auto", npz(tmp_path / "a.npz", images=images))
    assert all(split.labels is None for split in loaded[2:5])
    assert sum(len(split.images) for split in loaded[2:5]) == 121
    assert data.load("auto", str(tmp_path / "a.npz"), limit=5).train.labels is None
    # If only one part has labels, none of them are used.
    del content["y_train"]
    part = data.load("auto", npz(tmp_path / "b.npz", **content))
    assert all(split.labels is None for split in part[2:5])
    assert any("no labels are used" in line for line in part.notices)


def test_test_images_without_labels_are_left_out(tmp_path):
    """As in Kaggle's test.csv: if the training images have labels, the test images need them."""
    content = arrays(train=210)
    unlabelled = content.pop("x_test")
    del content["y_test"]
    loaded = data.load("auto", npz(tmp_path / "a.npz", **content, x_test=unlabelled))
    assert loaded.test.labels is not None
    shown = {image.tobytes() for image in loaded.test.images}
    assert not shown & {image.tobytes() for image in unlabelled}
    assert any("12 test images have no labels" in line for line in loaded.notices)


def test_names_that_are_asked_for(tmp_path):
    path = npz(tmp_path / "a.npz", **arrays())
    for name in ("auto", "custom"):
        assert data.load(name, path).name == "custom"
    with pytest.raises(UserError, match=r"does not hold MNIST \(it has 121 training images\)"):
        data.load("mnist", path)
    kmnist = data.load("kmnist", path)
    assert kmnist.name == "custom", "a later eval.py --dataset kmnist would download the real one"
    assert any("60,000 training and 10,000 test images of km" in line for line in kmnist.notices)
    with pytest.raises(UserError, match="give the path of your files with --data_dir"):
        data.load("custom")
    with pytest.raises(UserError, match="digits does not use"):
        data.load("digits", path)


def test_sets_of_the_sizes_of_mnist_have_the_name_that_was_asked_for(tmp_path):
    x, y = np.zeros((60_000, 784), np.uint8), np.zeros(60_000, np.uint8)
    x_test, y_test = np.zeros((10_000, 784), np.uint8), np.zeros(10_000, np.uint8)
    path = npz(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    fashion = data.load("fashion_mnist", path)
    assert fashion.name == "fashion_mnist" and len(fashion.validation.images) == 5000
    assert len(data.load("auto", path).validation.images) == 60_000 // 11


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(UserError, match="10 training and 12 test images are too few"):
        data.load("auto", npz(tmp_path / "a.npz", **arrays(train=10)))
    with pytest.raises(UserError, match="1 test images are too few"):
        data.load("auto", npz(tmp_path / "b.npz", **arrays(test=1)))


def test_digits_are_the_same_as_ever():
    digits = data.load("digits")
    assert digits.sha256.startswith("f0769cfccc96b48b65fff47811cf2618")
    assert [len(split.images) for split in digits[2:5]] == [1297, 200, 300]
    assert digits.description == () and digits.notices == ()


def test_environment_variables_name_no_data(tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_DIR", str(write_idx(tmp_path / "idx", arrays())))
    monkeypatch.setattr(download, "fetch", no_network)
    assert data.load("auto").name == "digits"


def no_network(_name):
    raise UserError("the download of mnist failed (no connection): give --data_dir PATH")


def test_without_mnist_auto_falls_back_and_mnist_does_not(monkeypatch):
    monkeypatch.setattr(download, "fetch", no_network)
    fallen_back = data.load("auto", limit=3)
    assert fallen_back.name == "digits" and len(fallen_back.train.images) == 3
    assert "give --data_dir PATH" in fallen_back.fallback_reason
    for name in ("mnist", "fashion_mnist"):
        with pytest.raises(UserError, match="no connection"):
            data.load(name)


def test_a_download_is_read_from_memory(monkeypatch):
    content = arrays()
    files = [in_memory(name, idx(content[key])) for key, name in IDX_FILES.items()]
    found = download.Download(Listing(files, []), ("the download was not kept",))
    monkeypatch.setattr(download, "fetch", {"kmnist": found}.get)
    loaded = data.load("kmnist")
    np.testing.assert_array_equal(loaded.test.images, flat(content["x_test"]))
    assert loaded.notices == ("the download was not kept",) and loaded.description == ()


def test_the_first_test_images_of_mnist():
    some = data.mnist_test_100("no connection")
    assert some.name == "mnist" and some.sha256 == data.MNIST_SHA256
    assert some.fallback_reason == "no connection"
    assert some.test.images.shape == (100, 784) and len(some.train.images) == 0
    assert some.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_batches_are_a_permutation_of_the_epoch():
    order = data.batches(95, 10, 5, 0)
    assert order.shape == (9, 10) and order.dtype == np.int32
    assert len(set(order.ravel())) == 90 and set(order.ravel()) <= set(range(95))
    np.testing.assert_array_equal(order, data.batches(95, 10, 5, 0))
    assert (order != data.batches(95, 10, 5, 1)).any()
    assert (order != data.batches(95, 10, 5 + 1, 0)).any()
    # The order in runs that older versions began.
    assert data.batches(1000, 10, 3, 4)[0, :5].tolist() == [989, 289, 766, 601, 582]


def test_to_float_is_a_multiplication():
    images = np.arange(256, dtype=np.uint8)
    found = data.to_float(images).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images.astype(np.float32) * np.float32(1 / 255))


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    npz(tmp_path / "a.npz", **arrays())
    assert data.load("auto", "~/a.npz").name == "custom"
