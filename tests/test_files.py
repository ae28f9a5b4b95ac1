"""support/files.py: writes that happen completely or not at all, reads that trust nothing."""

import errno
import io
import json
import os
import pathlib
import shutil
import time
import warnings
import zipfile

import numpy as np
import pytest

from support import files
from support.errors import UserError


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    moments = []

    def write(written):
        assert os.path.basename(written) == "a.txt" and os.path.dirname(written) != str(tmp_path)
        moments.append(path.read_text())
        with open(written, "w") as file:
            file.write("after")
        return 7

    def before_commit():
        moments.append(path.read_text())
        assert (next(tmp_path.glob(".writing-*")) / "a.txt").read_text() == "after"

    assert files.write_whole(str(path), write, before_commit) == 7
    assert moments == ["before", "before"] and path.read_text() == "after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("fails", ["write", "before_commit"])
def test_a_write_that_fails_leaves_everything_as_before(tmp_path, fails):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write(written):
        with open(written, "w") as file:
            file.write("after")
        if fails == "write":
            raise ZeroDivisionError

    def before_commit():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files.write_whole(str(path), write, before_commit)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_contents_are_on_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    order = []
    replace = os.replace
    for sync in ("sync_file", "sync_folder"):
        monkeypatch.setattr(files, sync, lambda path: order.append(os.path.basename(path)))
    monkeypatch.setattr(os, "replace", lambda *pair: (order.append("replace"), replace(*pair)))
    files.write_text(str(tmp_path / "a.txt"), "x")
    assert order == ["a.txt", "replace", tmp_path.name]


@pytest.mark.usefixtures("folders_can_be_synced")
def test_sync_reaches_the_disk_for_files_and_folders(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    (tmp_path / "a").write_text("x")
    opened = len(os.listdir("/proc/self/fd"))
    files.sync_file(str(tmp_path / "a"))
    files.sync_folder(str(tmp_path))
    assert synced == [str(tmp_path / "a"), str(tmp_path)]
    assert len(os.listdir("/proc/self/fd")) == opened


@pytest.mark.usefixtures("folders_can_be_synced")
def test_a_file_system_that_cannot_sync_folders_costs_one_notice(tmp_path, monkeypatch, capsys):
    answers = [*files.CANNOT_SYNC, errno.EIO]

    def refused(descriptor):
        raise OSError(answers.pop(0), "no sync")

    files._say_once.cache_clear()
    monkeypatch.setattr(os, "fsync", refused)
    for _ in files.CANNOT_SYNC:
        files.sync_folder(str(tmp_path))
    assert capsys.readouterr().err.count("Notice: this file system cannot sync folders") == 1
    with pytest.raises(OSError, match="no sync"):
        files.sync_folder(str(tmp_path))
    files._say_once.cache_clear()


def test_what_another_process_has_open_is_waited_for(monkeypatch):
    """As on Windows, where a virus scanner may hold a file for a moment."""
    attempts, now = [], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def held_until(path):
        attempts.append(path)
        if now[0] < free_at:
            raise PermissionError

    free_at = 1.0
    files.patiently(held_until, "a")
    assert len(attempts) > 5 and set(attempts) == {"a"}
    now[0], free_at = 0.0, float("inf")
    with pytest.raises(PermissionError):
        files.patiently(held_until, "a")
    assert files.PATIENCE_SECONDS < now[0] < files.PATIENCE_SECONDS + 1


def test_a_sweep_removes_what_was_half_written_and_nothing_else(tmp_path):
    """The lock of a killed process is free. A folder without a lock file is not ours."""
    abandoned, empty, foreign = (tmp_path / f".writing-{name}" for name in "abc")
    for folder in (abandoned, empty, foreign, tmp_path / "mine"):
        folder.mkdir()
    (abandoned / "lock").touch()
    (abandoned / "vae.keras").write_text("half")
    (foreign / "notes").write_text("mine")
    (tmp_path / "writing-mine").write_text("mine")
    (tmp_path / ".writing-link").symlink_to(foreign)
    files.sweep(str(tmp_path))
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {"mine", "writing-mine", ".writing-c", ".writing-link"}
    assert (foreign / "notes").read_text() == "mine"
    files.sweep(str(tmp_path / "nowhere"))


def test_a_sweep_leaves_what_a_living_process_is_writing(tmp_path):
    def write(written):
        files.sweep(str(tmp_path))
        with open(written, "w") as file:
            file.write("after")

    files.write_whole(str(tmp_path / "a.txt"), write)
    assert (tmp_path / "a.txt").read_text() == "after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_is_followed_and_permissions_stay(tmp_path):
    target, link = tmp_path / "real" / "a.txt", tmp_path / "a.txt"
    target.parent.mkdir()
    target.write_text("before")
    target.chmod(0o640)
    link.symlink_to(target)
    files.write_text(str(link), "after")
    assert link.is_symlink() and target.read_text() == "after"
    assert target.stat().st_mode & 0o777 == 0o640


def test_only_a_regular_file_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(UserError, match=f"{name} is not a regular file: choose another file"):
            files.write_text(str(tmp_path / name), "x")
    assert len(list(tmp_path.iterdir())) == 2


def test_json_goes_to_a_file_and_back(tmp_path):
    path = str(tmp_path / "a.json")
    files.write_json(path, {"name": "ü", "values": [1.5, None]})
    with files.open_regular(path) as file:
        assert files.read_json(file, path) == {"name": "ü", "values": [1.5, None]}
    with open(path, encoding="utf-8") as file:
        assert file.read().count("\n") > 2  # a person can read it
    with pytest.raises(ValueError, match=r"not JSON compliant|Out of range"):
        files.write_json(path, {"value": float("nan")})
    with files.open_regular(path) as file:
        assert files.read_json(file, path)["name"] == "ü"


@pytest.mark.parametrize(
    "content, says",
    [
        (b"[]", "not a JSON object"),
        (b"{", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"\xff", "is damaged"),
        (b'{"a": "' + b"x" * 1_000_000 + b'"}', "more than 1,000,000 bytes"),
    ],
)
def test_what_is_no_json_object_is_one_line(content, says):
    with pytest.raises(
        UserError, match=f"^a.json is damaged or not what it should be .*{says}|{says}"
    ):
        files.read_json(io.BytesIO(content), "a.json")


def test_json_of_exactly_the_limit_is_read():
    content = b'{"a": "' + b"x" * (1_000_000 - 9) + b'"}'
    assert len(content) == 1_000_000
    assert len(files.read_json(io.BytesIO(content), "a")["a"]) == 1_000_000 - 9


def test_folders_are_made_with_all_above_them_and_synced(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "sync_folder", lambda path: synced.append(os.path.basename(path)))
    files.make_folder(str(tmp_path / "a" / "b"))
    files.make_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir() and synced == [tmp_path.name, "a"]


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    where = str(tmp_path / "file" / "out")
    with pytest.raises(UserError, match=f"^{where} cannot be written .*intact$"):
        files.writable_folder(where)
    files.writable_folder(str(tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == [] and (tmp_path / "file").read_text() == "mine"


def test_a_write_that_fails_says_why():
    says = r"^here cannot be written \(No space left on device\): "
    with pytest.raises(UserError, match=says), files.disk_errors("here"):
        raise OSError(28, "a paragraph of h5py's")
    also = files.disk_errors("here", also=(RuntimeError,))
    with pytest.raises(UserError, match=r"cannot be written \(can't write\)"), also:
        raise RuntimeError("can't write")
    with pytest.raises(RuntimeError), files.disk_errors("here"):
        raise RuntimeError


@pytest.mark.parametrize("error", files.DAMAGE)
def test_whatever_readers_raise_for_a_damaged_file_is_one_line(error):
    says = r"^a.npz is damaged or not what it should be \(.+\): restore"
    with pytest.raises(UserError, match=says), files.damage("a.npz"):
        raise error()
    with pytest.raises(UserError, match="of another kind"), files.damage("a.npz"):
        raise UserError("of another kind")
    with pytest.raises(ZeroDivisionError), files.damage("a.npz"):
        raise ZeroDivisionError


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device"])
def test_what_is_no_regular_file_is_one_line(tmp_path, kind):
    """Nothing waits for a pipe that nobody writes to."""
    path = tmp_path / "x"
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    opened = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UserError, match=r"not a regular file|cannot be read"):
        files.open_regular(str(path))
    assert len(os.listdir("/proc/self/fd")) == opened
    with pytest.raises(UserError, match="cannot be read"):
        files.open_regular("a\0b")


def test_a_file_that_is_not_there_is_told_apart(tmp_path):
    (tmp_path / "file").write_text("x")
    for missing in ("none", "file/none"):
        with pytest.raises(FileNotFoundError):
            files.open_regular(str(tmp_path / missing))
    with files.open_regular(str(tmp_path / "file")) as file:
        assert file.read() == b"x"


GOOD = {"x": np.arange(6, dtype="<f4").reshape(2, 3), "y": np.arange(3, dtype=np.uint8)}


def accepts_any(shape, dtype):
    return True


def npz(arrays=GOOD, save=np.savez):
    content = io.BytesIO()
    save(content, **arrays)
    content.seek(0)
    return content


def read(content, accepts=accepts_any, compressed=False, names=("x", "y")):
    return files.read_npz(content, "a.npz", dict.fromkeys(names, accepts), compressed)


@pytest.mark.parametrize("save, compressed", [(np.savez, False), (np.savez_compressed, True)])
def test_arrays_are_read_as_they_were_written(save, compressed):
    seen = []

    def accepts(shape, dtype):
        seen.append((shape, dtype.str))
        return True

    found = read(npz(save=save), accepts, compressed)
    assert seen == [((2, 3), "<f4"), ((3,), "|u1")]
    for name, array in GOOD.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_a_compressed_array_is_refused_where_it_should_be_stored():
    with pytest.raises(UserError, match=r"x.npy is compressed or encrypted"):
        read(npz(save=np.savez_compressed))


def test_a_compression_that_numpy_does_not_write_is_refused():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", b"")
    with pytest.raises(UserError, match=r"x.npy is compressed"):
        read(content, compressed=True, names=("x",))


def test_an_encrypted_member_is_refused():
    content = bytearray(npz({"x": GOOD["x"]}).getvalue())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    with pytest.raises(UserError, match="encrypted"):
        read(io.BytesIO(bytes(content)), names=("x",))


@pytest.mark.parametrize("names", [("x",), ("x", "y", "z"), ("x", "z")])
def test_arrays_that_are_missing_or_too_many_are_refused(names):
    with pytest.raises(UserError, match=r"^a.npz is damaged .*it holds .*, expected "):
        read(npz(), names=names)


def test_arrays_that_are_not_accepted_are_refused_before_they_are_read():
    with pytest.raises(
        UserError, match=r"^a.npz: the array x is damaged .*shape \(2, 3\).*float32"
    ):
        read(npz(), lambda shape, dtype: False)


def npy(array, version=(1, 0), allow_pickle=False):
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(content, array, version, allow_pickle=allow_pickle)
    return content.getvalue()


def promise(shape, content=b"", kind="<f4"):
    """An array whose header promises a shape, followed by any content."""
    file = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


@pytest.mark.parametrize(
    "content, says",
    [
        (npy(GOOD["x"], (2, 0)), "another version than 1.0"),
        (npy(np.asfortranarray(GOOD["x"])), "unexpected shape"),
        (npy(np.array([{}, []], object), allow_pickle=True), "unexpected shape"),
        (npy(GOOD["x"])[:-1], "truncated, 23 of 24 bytes"),
        (npy(GOOD["x"])[:-24], "truncated, 0 of 24 bytes"),
        (npy(GOOD["x"]) + b"x", "longer than its header says"),
        (promise((2**28, 3)), f"truncated, 0 of {2**28 * 12} bytes"),
        (promise((2**45, 3)), "damaged"),
        (promise((2**62, 2**62)), "damaged"),
        (promise((-1, 3), bytes(24)), "unexpected shape"),
        (promise((True, 6), bytes(24)), "unexpected shape"),
        (b"no array", "damaged"),
        (b"", "damaged"),
    ],
)
def test_a_wrong_array_is_one_line(content, says):
    with pytest.raises(UserError, match=says):
        files.read_array(io.BytesIO(content), "the array", accepts_any)


def test_an_array_larger_than_a_piece_is_read_whole(monkeypatch):
    monkeypatch.setattr(files, "PIECE", 7)
    array = np.arange(100, dtype="<i8")
    np.testing.assert_array_equal(
        files.read_array(io.BytesIO(npy(array)), "the array", accepts_any), array
    )


def test_members_are_listed_in_their_order():
    with zipfile.ZipFile(npz()) as archive:
        assert files.require_plain(archive) == ["x.npy", "y.npy"]
    assert json.loads(files.as_json({"a": 1})) == {"a": 1}


def filled(path, *names):
    path.mkdir()
    for name in names:
        (path / name).write_text(path.name)
    return path


def test_a_folder_takes_the_place_of_an_earlier_one_as_a_whole(tmp_path):
    target = tmp_path / "it"
    for names in (("a", "b"), ("c",)):
        with files.replaced_folder(str(target), lambda: None) as private:
            assert os.listdir(private) == []
            for name in names:
                pathlib.Path(private, name).touch()
        assert sorted(os.listdir(target)) == list(names)
    assert os.listdir(tmp_path) == ["it"]
    # A link keeps leading to the folder that is replaced.
    (tmp_path / "link").symlink_to(target)
    with files.replaced_folder(str(tmp_path / "link"), lambda: None) as private:
        pathlib.Path(private, "d").touch()
    assert (tmp_path / "link").is_symlink() and os.listdir(target) == ["d"]


def test_a_folder_that_is_not_replaced_stays_as_it_was(tmp_path, monkeypatch):
    target = filled(tmp_path / "it", "a")

    def refuse():
        raise UserError("not ours")

    with pytest.raises(UserError), files.replaced_folder(str(target), refuse):
        pass
    with pytest.raises(ZeroDivisionError), files.replaced_folder(str(target), lambda: None):
        raise ZeroDivisionError
    # The second of the two moves fails.
    move, moves = os.rename, []

    def rename(source, destination):
        moves.append(source)
        if len(moves) == 2:
            raise KeyboardInterrupt
        move(source, destination)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt), files.replaced_folder(str(target), lambda: None):
        pass
    assert len(moves) == 3
    assert os.listdir(tmp_path) == ["it"] and (target / "a").read_text() == "it"


def test_free_space_is_known_for_folders_that_do_not_exist_yet(tmp_path, monkeypatch):
    free = files.free_bytes(str(tmp_path / "a" / "b"))
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, abs=1e9)
    nothing = type(shutil.disk_usage("/"))(0, 0, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nothing)
    assert files.free_bytes(str(tmp_path)) is None
