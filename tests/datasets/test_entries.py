"""Folders on disk: links, devices, stray files, names, and limits."""

import os

import numpy as np
import pytest

import data
from support.datasets import entries, formats
from support.errors import UserError
from tests.datasets.samples import arrays, write_idx
from tests.datasets.test_idx import same


def names(folder, **options):
    return [entry.name for entry in entries.in_folder(str(folder), **options).entries]


def test_shallow_files_come_first_in_the_order_of_names(tmp_path):
    for name in ("b/a", "b/c/d", "z", "a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(tmp_path) == ["a", "z", "b/a", "b/c/d"]
    assert names(tmp_path, depth=1) == ["a", "z"]


def test_links_are_followed_once(tmp_path):
    write_idx(tmp_path / "real" / "raw", arrays())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MNIST").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to("..")
    (tmp_path / "real" / "self").symlink_to(".")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real" / "loop")
    (tmp_path / "real" / "nowhere").symlink_to(tmp_path / "nowhere")
    same(data.load("auto", str(tmp_path / "data")), arrays())


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "mnist.npz")
    (tmp_path / "train-images-idx3-ubyte").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="holds 2 files, none of a known format"):
        data.load("auto", str(tmp_path))
    with pytest.raises(UserError, match="neither a file nor a folder"):
        data.load("auto", str(tmp_path / "mnist.npz"))
    with pytest.raises(UserError, match="neither a file nor a folder"):
        data.load("auto", "/dev/zero")


def test_very_deep_folders_end(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 20)
    deep.mkdir(parents=True)
    (deep / "mnist.npz").write_text("x")
    with pytest.raises(UserError, match="is empty"):
        data.load("auto", str(tmp_path))


def test_many_tiny_files(tmp_path, monkeypatch):
    for index in range(300):
        (tmp_path / f"{index}\n").write_text("x")
    with monkeypatch.context() as patched:
        patched.setattr(formats, "MOST_UNKNOWN", 100)
        with pytest.raises(
            UserError, match=r"more than 100 files of unknown format, such as .*\\n"
        ):
            data.load("auto", str(tmp_path))
    monkeypatch.setattr(entries, "MOST_FILES", 200)
    with pytest.raises(UserError, match="more than 200 files: give the path of the folder that"):
        data.load("auto", str(tmp_path))


def test_the_message_is_one_printable_line(tmp_path):
    folder = tmp_path / "a\nb\x1b[2J\udcff"
    folder.mkdir()
    for path in (folder, folder / "mnist.npz"):
        with pytest.raises(UserError) as error:
            data.load("auto", str(path))
        assert str(error.value).isprintable()


def test_nothing_and_nowhere(tmp_path):
    with pytest.raises(UserError, match=r"is empty: expected mnist\.npz"):
        data.load("auto", str(tmp_path))
    with pytest.raises(UserError, match=r"nowhere does not exist: expected mnist\.npz"):
        data.load("auto", str(tmp_path / "nowhere"))


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    np.savez(tmp_path / "mnist.npz", **arrays())
    os.chmod(tmp_path / "mnist.npz", 0)
    with pytest.raises(UserError, match="cannot be read"):
        data.load("auto", str(tmp_path / "mnist.npz"))


def test_gzip_is_seen_whatever_the_name(tmp_path):
    entry = entries.in_memory("plain.txt", b"hello")
    assert not entry.gzipped and entry.head == b"hello"
    broken = entries.in_memory("a.gz", b"\x1f\x8b\x08no gzip")
    assert broken.gzipped and broken.head == b""
    (tmp_path / "a.gz").write_bytes(b"\x1f\x8b\x08\xffno gzip at all")
    with pytest.raises(UserError, match=r"is damaged .no valid gzip data"):
        data.load("auto", str(tmp_path / "a.gz"))
