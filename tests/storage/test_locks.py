"""support/storage/locks.py: one process per folder, and the same folder until the end."""

import errno
import shutil
import threading

import filelock
import pytest

from support.errors import UserError
from support.storage.locks import FolderLocks, output_folder

NAME = ".test.lock"


@pytest.fixture
def locks():
    held = FolderLocks()
    yield held
    held.release()


def test_a_locked_folder_is_refused_to_another_run_until_it_is_released(tmp_path, locks):
    folder, other = str(tmp_path / "new" / "deep"), FolderLocks()
    locks.acquire(folder, NAME)
    with pytest.raises(UserError, match=f"^{folder} is in use by another run: wait until it ends"):
        other.acquire(folder, NAME)
    other.acquire(str(tmp_path / "another"), NAME)
    locks.release()
    other.acquire(folder, NAME)
    other.release()
    # The lock file stays: if it were removed, two processes could hold two files of one name.
    assert (tmp_path / "new" / "deep" / NAME).exists()


def test_two_processes_write_results_to_a_folder_one_after_the_other(tmp_path, capsys):
    entered, order = threading.Event(), []

    def second():
        entered.wait()
        with output_folder(str(tmp_path)):
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with output_folder(str(tmp_path)):
        entered.set()
        other.join(0.5)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    said = capsys.readouterr().err
    assert said == f"Waiting for another process that writes to {tmp_path} ...\n"


def test_a_folder_that_cannot_be_written_is_refused_before_it_is_locked(tmp_path, locks):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        locks.acquire(str(tmp_path / "file" / "x"), NAME)
    locks.require_held()


def test_a_link_in_place_of_the_lock_file_is_not_followed(tmp_path, locks):
    (tmp_path / "target").write_text("mine")
    (tmp_path / NAME).symlink_to(tmp_path / "target")
    with pytest.raises(UserError, match=f"{NAME} is a symbolic link, expected a lock file"):
        locks.acquire(str(tmp_path), NAME)
    assert (tmp_path / "target").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_costs_one_notice(tmp_path, locks, monkeypatch, capsys, number):
    def refused(*_, **__):
        raise OSError(number, "no locks")

    monkeypatch.setattr(filelock, "FileLock", refused)
    locks.acquire(str(tmp_path), NAME)
    said = capsys.readouterr().err
    assert said.startswith("Notice: ") and said.count("\n") == 1
    locks.require_held()
    number = errno.EIO
    with pytest.raises(OSError, match="no locks"):
        locks.acquire(str(tmp_path), NAME)


def test_a_folder_that_stays_is_held(tmp_path, locks):
    locks.acquire(str(tmp_path / "a"), NAME)
    locks.acquire(str(tmp_path / "b"), NAME)
    locks.require_held()
    (tmp_path / "a" / "something").write_text("else")
    locks.require_held()


@pytest.mark.parametrize("made_again", [False, True])
def test_a_folder_that_was_removed_or_replaced_is_held_no_more(tmp_path, locks, made_again):
    folder = tmp_path / "a"
    locks.acquire(str(folder), NAME)
    locks.acquire(str(tmp_path / "b"), NAME)
    # It is kept elsewhere, so that the new file cannot get the inode number of the old one.
    shutil.move(folder, tmp_path / "moved")
    if made_again:
        folder.mkdir()
        (folder / NAME).touch()
    with pytest.raises(UserError, match=f"^{folder} was removed or replaced"):
        locks.require_held()
    locks.release()
    locks.require_held()
