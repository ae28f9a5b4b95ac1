"""Formats that are recognized but not read, and how to convert them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from support.datasets import archives
from support.datasets.entries import Entry
from support.datasets.formats import csv_tables
from support.text import printable

SAVE = "np.savez('mine.npz', x_train=x, y_train=y)"
EITHER = "convert it with Python: import numpy as np"


class NotRead(NamedTuple):
    """A format that is only recognized.

    Attributes:
        name: what a file of this format is, for people.
        recognizes: a function that says whether a file has this format.
        advice: how to convert it; FILE stands for its name, and OPEN for the function that opens
            it, and FOUND for what a table holds.
    """

    name: str
    recognizes: Callable[[Entry], bool]
    advice: str

    def advice_for(self, entry: Entry) -> str:
        """Returns what to do with this file."""
        name = printable(entry.name.rsplit("/", 1)[-1])
        opens = "gzip.open" if entry.gzipped else "open"
        advice = self.advice.replace("FILE", repr(name)).replace("OPEN", opens)
        if "FOUND" in advice:
            advice = advice.replace("FOUND", csv_tables.why_no_layout(entry))
        return advice


def _begins(*beginnings: bytes) -> Callable[[Entry], bool]:
    return lambda entry: entry.head.startswith(beginnings)


def _is_pickle(entry: Entry) -> bool:
    head = entry.head
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return True
    # Protocol 0, text: a list, tuple or dict, or a global of one of these modules.
    return head.startswith((b"(lp", b"(dp", b"(c", b"cnumpy", b"ccopy_reg", b"c__builtin__"))


def _is_hdf5(entry: Entry) -> bool:
    return entry.head.startswith(b"\x89HDF\r\n") and not _is_matlab(entry)


def _is_matlab(entry: Entry) -> bool:
    return entry.head.startswith(b"MATLAB ")


def _is_arff(entry: Entry) -> bool:
    lines = entry.head.splitlines()
    written = [line for line in lines if line.strip() and not line.lstrip().startswith(b"%")]
    return bool(written) and written[0].lstrip().lower().startswith(b"@relation")


def _is_tfrecord(entry: Entry) -> bool:
    """Whether the first record's length is followed by its checksum (tensorflow, record_writer)."""
    if len(entry.head) < 16:
        return False
    length, checksum = struct.unpack_from("<QI", entry.head)
    crc = _crc32c(entry.head[:8])
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    return length < 2**32 and checksum == masked


def _crc32c(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _is_text_with_spaces(entry: Entry) -> bool:
    """Whether lines are numbers separated by spaces, as in .amat and MATLAB's ASCII files."""
    lines = entry.head.split(b"\n")
    fields = lines[0].split()
    try:
        numbers = [float(field) for field in fields[:-1]]
    except ValueError:
        return False
    return len(numbers) >= 60


def _is_table(entry: Entry) -> bool:
    return csv_tables.looks_like_text(entry.head)


def _zip_holds(ending: str) -> Callable[[Entry], bool]:
    def holds(entry: Entry) -> bool:
        if not archives.is_zip(entry):
            return False
        return any(name.endswith(ending) for name in archives.zip_names(entry))

    return holds


def format_of(entry: Entry) -> NotRead | None:
    """Returns the format of a file that is not read; None if it is unknown."""
    for not_read in NOT_READ:
        if not_read.recognizes(entry):
            return not_read
    return None


PICKLE_ADVICE = (
    "a pickle is code, so load it only if you trust its source: import pickle, gzip, numpy as np; "
    "(x, y), _, (xt, yt) = pickle.load(OPEN(FILE, 'rb'), encoding='latin1'); "
    "np.savez('mine.npz', x_train=x, y_train=y, x_test=xt, y_test=yt)"
)

NOT_READ = (
    NotRead("a pickle", _is_pickle, PICKLE_ADVICE),
    NotRead(
        "a MATLAB file",
        _is_matlab,
        f"{EITHER}, scipy.io; m = scipy.io.loadmat(FILE); np.savez('mine.npz', "
        "x_train=m['data'].T, y_train=m['label'].ravel()) (h5py reads version 7.3)",
    ),
    NotRead(
        "a Parquet file",
        _begins(b"PAR1"),
        f"{EITHER}, pandas, io; from PIL import Image; t = pandas.read_parquet(FILE); "
        "np.savez('mine.npz', y_train=t['label'], x_train=[np.array(Image.open(io.BytesIO("
        "i['bytes'])).convert('L')) for i in t['image']])",
    ),
    NotRead(
        "an ARFF file",
        _is_arff,
        f"{EITHER}, scipy.io.arff as a, pandas; t = pandas.DataFrame(a.loadarff(FILE)[0]); "
        "np.savez('mine.npz', x_train=t.iloc[:, :-1].to_numpy('uint8'), "
        "y_train=t.iloc[:, -1].astype(int))",
    ),
    NotRead(
        "a TFRecord file",
        _is_tfrecord,
        f"{EITHER}, tensorflow_datasets as tfds; d = list(tfds.as_numpy(tfds.load('mnist', "
        "split='train'))); np.savez('mine.npz', x_train=[e['image'] for e in d], "
        "y_train=[e['label'] for e in d])",
    ),
    NotRead(
        "an HDF5 file",
        _is_hdf5,
        f"{EITHER}, h5py; f = h5py.File(FILE); print(list(f)); "
        "np.savez('mine.npz', x_train=f['images'][:], y_train=f['labels'][:])",
    ),
    NotRead(
        "text with spaces between the numbers (such as .amat)",
        _is_text_with_spaces,
        f"{EITHER}; x = np.loadtxt(FILE)[:, :784]; np.savez('mine.npz', x_train=x)",
    ),
    NotRead(
        "a PyTorch file (a pickle in a zip)",
        _zip_holds("data.pkl"),
        f"{EITHER}, torch; x, y = torch.load(FILE, weights_only=True)[:2]; {SAVE}",
    ),
    NotRead(
        "an Excel workbook",
        _zip_holds("xl/workbook.xml"),
        "save the sheet as CSV in Excel, or: import pandas; "
        "pandas.read_excel(FILE).to_csv('mine.csv', index=False)",
    ),
    NotRead(
        "a model that Keras saved",
        _zip_holds("model.weights.h5"),
        "it holds weights, not images; to evaluate weights, use eval.py --load_weight_dir",
    ),
    NotRead(
        "an Arrow or Feather file",
        _begins(b"ARROW1", b"FEA1"),
        "save it as CSV: import pandas; pandas.read_feather(FILE).to_csv('mine.csv', index=False)",
    ),
    NotRead("a 7z archive", _begins(b"7z\xbc\xaf"), "unpack it and give the path of the folder"),
    NotRead("a RAR archive", _begins(b"Rar!"), "unpack it and give the path of the folder"),
    NotRead(
        "an xz archive",
        _begins(b"\xfd7zXZ"),
        "unpack it (xz -d, tar xf) and give the path of the result",
    ),
    NotRead(
        "a zstd archive", _begins(b"\x28\xb5\x2f\xfd"), "unpack it and give the path of the folder"
    ),
    NotRead("a bzip2 file", _begins(b"BZh"), "unpack it (bunzip2) and give the path of the result"),
    NotRead(
        "an old Office file",
        _begins(b"\xd0\xcf\x11\xe0"),
        "save it as CSV, one image per line",
    ),
    NotRead("a PDF", _begins(b"%PDF"), "save its images as PNG, one folder for each class"),
    NotRead("an SQLite file", _begins(b"SQLite format 3"), "export the table of pixels as CSV"),
    NotRead(
        "a web page instead of the file",
        lambda entry: entry.head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")),
        "the download failed; download it again",
    ),
    NotRead(
        "a Git LFS pointer instead of the file",
        _begins(b"version https://git-lfs"),
        "fetch the file with git lfs pull",
    ),
    NotRead(
        "text in UTF-16",
        _begins(b"\xff\xfe", b"\xfe\xff"),
        "save it as CSV in UTF-8",
    ),
    NotRead(
        "a table whose lines are not images",
        _is_table,
        "found FOUND, expected 784 pixels (28 x 28, or another square) and at most one label, "
        "before or after them",
    ),
)
