"""support/storage/hdf5.py: Keras's files as h5py reads them, and hostile bytes in bounded time."""

import io
import struct
import tracemalloc

import h5py
import numpy as np
import pytest

from support.storage import hdf5

PATH = "layers/functional_1/layers/dense/vars/0"


@pytest.fixture(scope="module")
def arrays():
    random = np.random.default_rng(0)
    found = {}
    for model in ("functional", "functional_1"):
        for layer in ("dense", "dense_1", "dense_2", "input_layer"):
            folder = f"layers/{model}/layers/{layer}/vars"
            if layer != "input_layer":
                found[f"{folder}/0"] = random.normal(size=(7, 5)).astype(np.float32)
                found[f"{folder}/1"] = random.normal(size=5).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def content(arrays):
    """What h5py writes, with an attribute on a group, as Keras's variables have one."""
    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        for path, array in arrays.items():
            file[path] = array
            file[path].parent.attrs["name"] = "some name " * 9
    return written.getvalue()


def test_every_array_is_the_one_that_h5py_wrote(arrays, content):
    file = hdf5.Hdf5File(content)
    for path, array in arrays.items():
        np.testing.assert_array_equal(file.read(path, array.shape), array)


def test_a_group_of_many_members_is_read():
    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        for number in range(100):
            file[f"layers/dense_{number}"] = np.full(3, number, np.float32)
    file = hdf5.Hdf5File(written.getvalue())
    for number in range(100):
        np.testing.assert_array_equal(file.read(f"layers/dense_{number}", (3,)), number)


@pytest.mark.parametrize(
    "path, shape, says",
    [
        (PATH.replace("dense", "dense_9"), (7, 5), "is missing"),
        (PATH + "/0", (7, 5), "is missing"),
        ("layers", (7, 5), "is missing"),
        (PATH, (5, 7), r"the shape \(7, 5\), expected the shape \(5, 7\)"),
        (PATH, (35,), "2 dimensions, expected"),
    ],
)
def test_what_is_not_there_is_refused(content, path, shape, says):
    with pytest.raises(ValueError, match=says):
        hdf5.Hdf5File(content).read(path, shape)


@pytest.mark.parametrize("settings", [{"libver": "latest"}, {"userblock_size": 512}])
def test_files_of_another_form_are_refused(settings):
    written = io.BytesIO()
    with h5py.File(written, "w", **settings) as file:
        file["a"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="another version than Keras writes"):
        hdf5.Hdf5File(written.getvalue())


def test_a_truncated_file_is_refused(content):
    with pytest.raises(ValueError, match="says that it ends at"):
        hdf5.Hdf5File(content[:-1])
    for length in (0, 5, 60):
        with pytest.raises((ValueError, struct.error)):
            hdf5.Hdf5File(content[:length])


def test_a_list_of_free_blocks_that_returns_to_itself_is_refused(content):
    """The HDF5 library follows such a list until memory ends."""
    heap = content.index(b"HEAP")
    free, names = struct.unpack_from("<Q Q", content, heap + 16)
    hostile = bytearray(content)
    struct.pack_into("<Q", hostile, names + free, free)
    with pytest.raises(ValueError, match="does not end"):
        hdf5.Hdf5File(bytes(hostile)).read(PATH, (7, 5))


def test_any_changed_bytes_cost_little_time_and_memory(arrays, content):
    """Each mutant is read, or refused with a ValueError."""
    random = np.random.default_rng(0)
    outcomes = []
    tracemalloc.start()
    for _ in range(300):
        mutant = bytearray(content)
        for _ in range(random.integers(1, 4)):
            place = random.integers(0, len(content))
            if random.random() < 0.5:
                mutant[place] ^= 1 << random.integers(0, 8)
            else:
                mutant[place : place + 8] = random.bytes(8)
        del mutant[len(content) :]
        try:
            file = hdf5.Hdf5File(bytes(mutant))
            for path, array in arrays.items():
                file.read(path, array.shape)
            outcomes.append("read")
        except ValueError:
            outcomes.append("refused")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(content)
    assert outcomes.count("read") > 20 and outcomes.count("refused") > 20
