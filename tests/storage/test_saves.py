"""support/storage/saves.py: which files exist after each save, and in which order they change."""

import dataclasses
import os

import numpy as np
import pytest

from support import files
from support.errors import UserError
from support.storage import weights, weights_file
from support.storage.locks import FolderLocks
from support.storage.saves import Saves
from tests.storage.examples import FINISHED, PRIOR, RECORD, new_vae

TRAINING = {"step": np.int64(1)}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "weights"


@pytest.fixture
def saves(folder):
    locks = FolderLocks()
    locks.acquire(str(folder), ".lock")
    yield Saves(str(folder), locks)
    locks.release()


def save(saves, step):
    saves.write(new_vae(), dataclasses.replace(RECORD, step=step), TRAINING)


def finish(saves):
    posterior, prior = FINISHED
    record = dataclasses.replace(RECORD, posterior=posterior, prior=prior)
    saves.write_finished(new_vae(), record, PRIOR)


def steps(folder):
    return weights_file.saved_steps(str(folder))


def test_the_newest_two_saves_are_kept(saves, folder):
    kept = []
    for step in (0, 10, 20, 30):
        save(saves, step)
        kept.append(steps(folder))
    assert kept == [[0], [0, 10], [10, 20], [20, 30]]
    assert weights.read_record(str(folder)).step == 30


def test_saves_past_the_new_one_are_removed(saves, folder):
    """They were damaged, so the run continued from the save before them."""
    for step in (10, 20, 30):
        save(saves, step)
    (folder / "checkpoint" / "step-000000030.keras").write_text("damaged")
    save(saves, 25)
    assert steps(folder) == [20, 25]
    save(saves, 25)
    assert steps(folder) == [20, 25]


def test_a_finished_run_has_one_file(saves, folder):
    for step in (10, 20):
        save(saves, step)
    finish(saves)
    assert {entry.name for entry in folder.iterdir()} == {"vae.keras", ".lock"}
    assert weights.read_record(str(folder)).finished
    saves.remove_all()
    assert (folder / "vae.keras").exists()


def test_foreign_files_among_the_saves_stay(saves, folder):
    save(saves, 10)
    (folder / "checkpoint" / "notes.txt").write_text("mine")
    finish(saves)
    assert (folder / "checkpoint" / "notes.txt").read_text() == "mine"
    save(saves, 10)
    saves.remove_earlier_run()
    assert steps(folder) == [] and not (folder / "vae.keras").exists()
    assert (folder / "checkpoint" / "notes.txt").read_text() == "mine"


def test_older_saves_are_removed_after_the_new_one_is_there(saves, folder, monkeypatch):
    for step in (10, 20):
        save(saves, step)
    remove, seen = os.remove, []

    def removed(path):
        seen.append((os.path.basename(path), steps(folder)))
        remove(path)

    monkeypatch.setattr(os, "remove", removed)
    save(saves, 30)
    assert seen == [("step-000000010.keras", [10, 20, 30])]
    seen.clear()
    finish(saves)
    assert [name for name, _ in seen] == ["step-000000020.keras", "step-000000030.keras"]


def test_what_makes_a_run_finished_is_removed_first_then_its_saves_the_newest_first(
    saves, folder, monkeypatch
):
    """A kill in between leaves an unfinished run or none, never an older state as the newest."""
    finish(saves)
    for step in (10, 20):
        save(saves, step)
    remove, seen = os.remove, []
    monkeypatch.setattr(
        os, "remove", lambda path: (seen.append(os.path.basename(path)), remove(path))
    )
    saves.remove_earlier_run()
    assert seen == ["vae.keras", "step-000000020.keras", "step-000000010.keras"]
    saves.remove_earlier_run()  # when nothing is left of it


def test_the_first_save_of_a_new_run_outlives_the_earlier_run(saves, folder):
    finish(saves)
    for step in (10, 20):
        save(saves, step)
    saves.remove_earlier_run(kept_step=10)
    assert steps(folder) == [10] and not (folder / "vae.keras").exists()


def test_what_another_process_has_open_is_left_to_the_next_save(saves, folder, monkeypatch):
    save(saves, 10)
    save(saves, 20)
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0)
    remove = os.remove

    def held(path):
        raise PermissionError

    monkeypatch.setattr(os, "remove", held)
    save(saves, 30)
    assert steps(folder) == [10, 20, 30]
    monkeypatch.setattr(os, "remove", remove)
    save(saves, 40)
    assert steps(folder) == [30, 40]


def test_nothing_is_written_into_a_folder_that_was_replaced(saves, folder):
    save(saves, 10)
    folder.rename(folder.parent / "moved")
    for write in (lambda: save(saves, 20), lambda: finish(saves)):
        folder.mkdir(exist_ok=True)
        with pytest.raises(UserError, match="was removed or replaced"):
            write()
        assert list(folder.iterdir()) == []


def test_a_save_that_cannot_be_written_keeps_those_of_before(saves, folder, monkeypatch):
    save(saves, 10)

    def full(*_, **__):
        raise UserError("cannot be written")

    monkeypatch.setattr(weights_file, "write", full)
    with pytest.raises(UserError):
        save(saves, 20)
    assert steps(folder) == [10]
