"""Zip and tar archives of every format, and hostile ones."""

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest

import data
from support.datasets import archives
from support.errors import UserError
from tests.datasets.samples import IDX_FILES, arrays, idx, table, write_csv, write_pictures
from tests.datasets.test_idx import same

CONTENT = arrays()


def fill(kind, folder):
    folder.mkdir()
    if kind == "idx":
        for key, name in IDX_FILES.items():
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(CONTENT[key])))
    elif kind == "npz":
        np.savez(folder / "mine.npz", **CONTENT)
    elif kind == "csv":
        for part in ("train", "test"):
            rows = table(CONTENT[f"x_{part}"], CONTENT[f"y_{part}"])
            write_csv(
                folder / f"{part}.csv", rows, ",".join(["label", *map(str, range(784))]) + "\n"
            )
    else:
        write_pictures(folder / "training", CONTENT["x_train"], CONTENT["y_train"])
        write_pictures(folder / "testing", CONTENT["x_test"], CONTENT["y_test"])


def packed(folder, how):
    path = folder.parent / "archive"  # without an extension: the content decides
    if how == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in folder.rglob("*"):
                archive.write(file, f"above/{file.relative_to(folder)}")
            archive.writestr("__MACOSX/above/._stray.png", b"a stray")
    else:
        if how == "bz2":
            path = path.with_name("archive.tar.bz2")
        with tarfile.open(path, f"w:{how}") as archive:
            archive.add(folder, "above")
    return path


@pytest.mark.parametrize("kind", ["idx", "npz", "csv", "pictures"])
@pytest.mark.parametrize("how", ["zip", "", "gz", "bz2"])
def test_archives_of_every_format(tmp_path, kind, how):
    fill(kind, tmp_path / "inside")
    path = packed(tmp_path / "inside", how)
    same(data.load("auto", str(path)), CONTENT)
    # As the only file in a folder, like a download.
    folder = tmp_path / "downloads"
    folder.mkdir()
    path.rename(folder / path.name)
    same(data.load("auto", str(folder)), CONTENT)


def test_nothing_is_unpacked_to_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for key, name in IDX_FILES.items():
            archive.writestr(f"../../{name}" if "x_" in key else f"/{name}", idx(CONTENT[key]))
    before = sorted(tmp_path.rglob("*"))
    same(data.load("auto", str(tmp_path / "a.zip")), CONTENT)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_in_an_archive_is_named(tmp_path):
    fill("idx", tmp_path / "inside")
    inner = packed(tmp_path / "inside", "zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("inner.zip", inner)
    with pytest.raises(UserError, match=r"inner\.zip is an archive in an archive: unpack"):
        data.load("auto", str(tmp_path / "outer.zip"))


def test_several_archives_are_ambiguous(tmp_path):
    fill("idx", tmp_path / "inside")
    content = packed(tmp_path / "inside", "zip").read_bytes()
    (tmp_path / "both").mkdir()
    for name in ("a.zip", "b.zip"):
        (tmp_path / "both" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"2 archives \(a\.zip, b\.zip\): give the path of one"):
        data.load("auto", str(tmp_path / "both"))


def test_a_flipped_bit_is_damage(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for key, name in IDX_FILES.items():
            archive.writestr(name, idx(CONTENT[key]))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[5000] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte is damaged .*CRC"):
        data.load("auto", str(tmp_path / "a.zip"))


def zipped(path, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("train.csv", "1,2,3\n" * 1000)
    return path.read_bytes()


def test_encrypted_and_unusual_members(tmp_path):
    content = bytearray(zipped(tmp_path / "a.zip"))
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"train\.csv is encrypted: unpack"):
        data.load("auto", str(tmp_path / "a.zip"))
    zipped(tmp_path / "b.zip", compression=zipfile.ZIP_LZMA)
    with pytest.raises(UserError, match=r"compressed by an unsupported method \(number 14\)"):
        data.load("auto", str(tmp_path / "b.zip"))


def tar_header(size, kind=tarfile.REGTYPE):
    member = tarfile.TarInfo("train.csv")
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def test_hostile_archives(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES_UNPACKED", 20_000_000)
    monkeypatch.setattr(archives, "MOST_BYTES_AT_ONCE", 1_000_000)
    zeros = gzip.compress(bytes(1_000_000))
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 3_000_000, 4, 0)
    hostile = {
        "a member of a terabyte": (tar_header(10**12), "more than 4 GB"),
        "a bomb": (gzip.compress(tar_header(10**12)) + zeros * 30, "unpacks to more than"),
        "a long header": (
            gzip.compress(tar_header(10**9, tarfile.XHDTYPE)) + zeros * 10,
            "list of members is too long",
        ),
        "a long directory": (b"PK\x03\x04" + bytes(3_000_000) + end, "list of members is too long"),
        "no directory": (zipped(tmp_path / "a.zip")[:-30], "is damaged"),
        "a tar that ends": (tar_header(5_000) + b"1,2,3\n", "is damaged|unknown format|truncated"),
    }
    for name, (content, message) in hostile.items():
        (tmp_path / "hostile").write_bytes(content)
        with pytest.raises(UserError, match=message):
            data.load("auto", str(tmp_path / "hostile"))
            pytest.fail(name)


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for index in range(30):
            archive.writestr(f"{index}.txt", b"")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for index in range(30):
            archive.addfile(tarfile.TarInfo(f"{index}.txt"), io.BytesIO())
    for name in ("a.zip", "a.tar"):
        with pytest.raises(UserError, match="unpack it and give the path of the folder"):
            data.load("auto", str(tmp_path / name))


def test_names_with_control_characters_are_made_visible(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a\nb\x1b[31mred", b"hello")
        archive.writestr("x" * 5000, b"hello")
    with pytest.raises(UserError) as error:
        data.load("auto", str(tmp_path / "a.zip"))
    message = str(error.value)
    assert message.isprintable() and len(message) < 1000
    assert r"a\nb\x1b[31mred" in message
