"""Folders that hold several formats, and the table of formats."""

import os
import subprocess
import sys

import numpy as np

import data
from support.datasets import formats
from tests.datasets.samples import arrays, table, write_csv, write_idx, write_pictures
from tests.datasets.test_idx import same


def test_one_format_is_read_and_the_others_are_named(tmp_path):
    """The formats are tried in the order of the table."""
    content, other = arrays(), arrays(seed=1)
    write_pictures(tmp_path / "pictures", content["x_train"], content["y_train"])
    assert len(data.load("auto", str(tmp_path)).notices) >= 1
    rows = table(other["x_train"], other["y_train"])
    write_csv(tmp_path / "mine.csv", rows)
    loaded = data.load("auto", str(tmp_path))
    assert any(line.startswith("files that were not used (pictures): ") for line in loaded.notices)
    write_idx(tmp_path, content)
    loaded = data.load("auto", str(tmp_path))
    same(loaded, content)
    assert any("files that were not used (CSV): mine.csv" in line for line in loaded.notices)
    np.savez(tmp_path / "mine.npz", **other)
    loaded = data.load("auto", str(tmp_path))
    same(loaded, other)
    assert any(line.startswith("files that were not used (IDX files): ") for line in loaded.notices)


def test_a_damaged_file_among_good_ones_is_named(tmp_path):
    write_idx(tmp_path, arrays())
    (tmp_path / "mnist.npz").write_bytes(b"PK\x03\x04 and no more")
    loaded = data.load("auto", str(tmp_path))
    same(loaded, arrays())
    assert any("skipped: mnist.npz" in line for line in loaded.notices)


def test_names_in_the_table_are_unique():
    names = [data_format.name for data_format in formats.FORMATS]
    assert len(names) == len(set(names))


def test_the_import_is_light():
    """--help must stay instant."""
    heavy = "tensorflow", "keras", "sklearn", "scipy", "PIL", "rich", "pandas"
    code = f"import sys, data; print([name for name in {heavy} if name in sys.modules])"
    root = os.path.dirname(os.path.abspath(data.__file__))
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
