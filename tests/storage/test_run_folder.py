"""support/storage/run_folder.py: which run a folder holds, and who may write to it."""

import dataclasses
import os

import numpy as np
import pytest

import model
from support.display import summaries
from support.errors import OtherRunError, UserError
from support.records import Architecture, DatasetRecord, Source
from support.storage import weights, weights_file
from support.storage.run_folder import Identity, RunFolder, identity_of, require_same
from tests.helpers import files_in
from tests.storage.examples import FINISHED, RECORD, new_vae

WANTED = identity_of(RECORD)
TRAINING = {"sums": np.zeros(2)}


@pytest.fixture
def places(tmp_path):
    return str(tmp_path / "weights"), str(tmp_path / "log")


def opened(places, identity=WANTED, **settings):
    return RunFolder(*places, identity, **settings)


def begun(places, step=10):
    """Leaves an unfinished run in the folders."""
    record = dataclasses.replace(RECORD, step=step)
    with opened(places) as folder:
        summaries.claim(places[1], RECORD.run_id)
        folder.saves.write(new_vae(), record, TRAINING)


def finished(places):
    posterior, prior = FINISHED
    record = dataclasses.replace(RECORD, posterior=posterior, prior=prior)
    with opened(places) as folder:
        summaries.claim(places[1], RECORD.run_id)
        folder.saves.write_finished(new_vae(), record, None)


def changed(part, **changes):
    if part == "training":
        return WANTED._replace(training=dict(WANTED.training) | changes)
    if part == "architecture":
        return WANTED._replace(architecture=dict(WANTED.architecture) | changes)
    return WANTED._replace(dataset=WANTED.dataset._replace(**changes))


def test_the_same_settings_are_the_same_run():
    require_same(RECORD, WANTED, "w")
    # The names of the classes do not matter: the hash of the arrays is compared.
    require_same(RECORD, changed("dataset", class_names=("cat",)), "w")


@pytest.mark.parametrize(
    "wanted, says",
    [
        (changed("dataset", name="mnist"), "dataset is digits, but this run has mnist"),
        (changed("architecture", latent_dim=3), "latent_dim is 2, but this run has 3"),
        (changed("architecture", hidden_units=(6,)), "hidden_units is 6 5 5, but this run has 6"),
        (changed("training", seed=4), "seed is 3, but this run has 4"),
        (changed("training", limit=0), "limit is None, but this run has 0"),
        # Python holds these equal.
        (changed("training", seed=3.0), "seed is 3, but this run has 3.0"),
    ],
)
def test_another_setting_is_refused_by_its_name_and_both_values(wanted, says):
    with pytest.raises(OtherRunError, match=f"^w holds another run: its {says}$"):
        require_same(RECORD, wanted, "w")


def test_other_data_is_said_in_words():
    says = (
        r"^w holds another run: it was trained on other digits data \(sha256 beef..., here 1...\)$"
    )
    with pytest.raises(OtherRunError, match=says):
        require_same(RECORD, changed("dataset", sha256="1"), "w")


def test_a_run_of_an_earlier_version_had_adamw_and_random_initial_weights():
    same = {"optimizer": "adamw", "initial_weights": "random"}
    require_same(RECORD, changed("training", **same), "w")
    with pytest.raises(OtherRunError, match="its optimizer is adamw, but this run has nadamw"):
        require_same(RECORD, changed("training", **same | {"optimizer": "nadamw"}), "w")


def test_a_setting_that_an_older_version_did_not_have_is_named():
    with pytest.raises(UserError, match="older version, which had no setting elastic"):
        require_same(RECORD, changed("training", elastic=0.8), "w")


def test_a_network_that_given_weights_bring_is_compared_where_it_was_typed():
    require_same(RECORD, WANTED._replace(architecture={}), "w")
    with pytest.raises(UserError, match="latent_dim is 2, but this run has 3"):
        require_same(RECORD, WANTED._replace(architecture={"latent_dim": 3}), "w")


def test_empty_folders_start_a_run_and_are_not_created_before(places, tmp_path):
    folder = opened(places)
    assert folder.record is None and not folder.finished and folder.action == "Starting"
    assert not list(tmp_path.iterdir())
    with folder:
        assert {entry.name for entry in tmp_path.iterdir()} == {"weights", "log"}


def test_an_unfinished_run_continues(places):
    begun(places)
    folder = opened(places)
    assert folder.record.step == 10 and not folder.finished
    assert folder.action == "Continuing"
    again = opened(places, overwrite=True)
    assert again.record is None and again.action == "Starting again"
    with pytest.raises(UserError, match="seed is 3, but this run has 4"):
        opened(places, changed("training", seed=4))


def test_a_finished_run_is_found_whatever_became_of_its_log_folder(places, tmp_path):
    finished(places)
    (tmp_path / "log" / "owner.json").write_text('{"run_id": "another"}')
    assert opened(places).finished


def test_the_log_folder_of_another_run_is_refused(places, tmp_path):
    begun(places)
    (tmp_path / "log" / "owner.json").write_text('{"run_id": "another"}')
    before = files_in(tmp_path)
    with pytest.raises(UserError, match="log holds the event files of another run"):
        opened(places)
    assert files_in(tmp_path) == before
    opened(places, overwrite=True)
    # A worker that only reads leaves this check to the chief.
    opened(places, writes=False)


def test_a_file_in_place_of_a_folder_is_refused(places, tmp_path):
    (tmp_path / "weights").write_text("mine")
    with pytest.raises(
        UserError, match="weights is a file, expected a folder: choose another --save_weight_dir"
    ):
        opened(places)


def test_a_second_run_on_either_folder_is_refused_and_leaves_no_lock(places, tmp_path):
    other = str(tmp_path / "other")
    with opened(places):
        for pair in ((places[0], other), (other, places[1])):
            with pytest.raises(UserError, match="in use by another run"), opened(pair):
                pytest.fail("entered")
        with opened((other, other)):
            pass  # neither was kept locked


def test_a_run_that_came_between_the_look_and_the_lock_is_found(places):
    folder = opened(places)
    begun(places, step=20)
    with folder:
        assert folder.record.step == 20
    others = places[0] + "2", places[1] + "2"
    late = opened(others, changed("training", seed=4))
    begun(others)
    with pytest.raises(UserError, match="seed is 3, but"), late:
        pytest.fail("entered")
    with opened(others):
        pass  # the locks were released


def test_what_a_killed_run_left_half_written_is_swept(places, tmp_path):
    begun(places)
    for place in ("weights", "weights/checkpoint", "log"):
        (tmp_path / place / ".writing-x").mkdir()
        (tmp_path / place / ".writing-x" / "lock").touch()
        (tmp_path / place / ".writing-x" / "vae.keras").write_text("half")
    with opened(places):
        assert not list(tmp_path.rglob(".writing-*"))


def test_a_worker_that_is_not_the_chief_takes_no_locks_and_creates_nothing(places, tmp_path):
    with opened(places, writes=False) as folder, opened(places):
        assert not folder.writes
    with opened((places[0] + "x", places[1] + "x"), writes=False):
        assert not (tmp_path / "weightsx").exists()


def test_an_earlier_run_is_what_overwrite_is_to_replace(places):
    assert not opened(places, overwrite=True).holds_earlier_run
    begun(places)
    assert opened(places, overwrite=True).holds_earlier_run
    assert not opened(places).holds_earlier_run
    finished(places)
    assert opened(places, overwrite=True).holds_earlier_run


def test_a_finished_run_says_so_and_drops_what_a_kill_left(places, capsys):
    begun(places)
    save = weights_file.save_path(places[0], 10)
    with open(save, "rb") as file:
        content = file.read()
    finished(places)
    os.mkdir(os.path.dirname(save))
    with open(save, "wb") as file:
        file.write(content)
    opened(places).report_finished()
    said = capsys.readouterr().out
    assert "holds this run, which finished after 2 epochs" in said and "nothing to do" in said
    assert weights_file.saved_steps(places[0]) == []
    assert weights.read_record(places[0]).finished


def test_saves_of_a_run_that_began_meanwhile_stay(places):
    """Between the first look and the lock, somebody has removed the finished weights."""
    begun(places)
    save = weights_file.save_path(places[0], 10)
    with open(save, "rb") as file:
        content = file.read()
    finished(places)
    folder = opened(places)
    os.remove(weights_file.finished_path(places[0]))
    os.mkdir(os.path.dirname(save))
    with open(save, "wb") as file:
        file.write(content)
    with pytest.raises(UserError, match="was just changed by another process"):
        folder.report_finished()
    assert weights_file.saved_steps(places[0]) == [10]


def test_a_save_in_the_place_of_finished_weights_is_refused(places):
    """So are finished weights in the place of a save: somebody has renamed a file."""
    begun(places)
    save, done = weights_file.save_path(places[0], 10), weights_file.finished_path(places[0])
    os.rename(save, done)
    with pytest.raises(
        UserError, match=f"^{done} is a save of an unfinished run: move .* to {save}"
    ):
        opened(places)
    os.rename(done, save)
    finished(places)
    save = weights_file.save_path(places[0], RECORD.step)
    os.makedirs(os.path.dirname(save))
    os.rename(done, save)
    with pytest.raises(UserError, match=f"holds finished weights: move the file to {done}"):
        opened(places)


def test_the_newest_save_is_read_with_what_continues_it(places):
    begun(places)
    folder = opened(places)
    assert folder.read(TRAINING).training["sums"].tolist() == [0, 0]
    begun(places, step=30)
    assert folder.read(TRAINING).record.step == 30


def test_given_weights_must_lie_elsewhere_and_be_of_the_wanted_network(places, tmp_path):
    source = str(tmp_path / "source"), str(tmp_path / "source_log")
    begun(source)
    folder = opened(places)
    assert folder.given is None and folder.architecture is None
    folder.start_from(source[0])
    assert folder.given.record.step == 10 and len(folder.given.encoder) == 8
    assert folder.architecture == RECORD.architecture
    other = Identity(DatasetRecord("mnist", "1"), {"latent_dim": 3}, {})
    with pytest.raises(
        UserError, match="its latent_dim is 2, but this run has 3: leave out --latent_dim"
    ):
        opened(places, other).start_from(source[0])
    other = Identity(DatasetRecord("mnist", "1"), {"residual": False}, {})
    with pytest.raises(UserError, match=r"residual is True, .* leave out --no-residual, or"):
        opened(places, other).start_from(source[0])
    # A run that continues does not need them any more.
    begun(places)
    continued = opened(places)
    continued.start_from(str(tmp_path / "nowhere"))
    assert continued.given is None and continued.architecture == RECORD.architecture
    inside = tmp_path / "link"
    inside.symlink_to(places[0])
    for where in (places[0], f"{places[0]}/checkpoint", str(inside)):
        with pytest.raises(
            UserError, match="the folder of the new run: choose another --save_weight_dir"
        ):
            opened(places).start_from(where)
    # A folder whose name only begins with the same text is another folder.
    assert opened((f"{source[0]}_2", places[1] + "2")).start_from(source[0]) is None


def test_a_run_does_not_continue_from_weights_of_another_run(places, tmp_path):
    source = str(tmp_path / "source"), str(tmp_path / "source_log")
    begun(source)
    record = dataclasses.replace(RECORD, source=Source(RECORD.run_id, 10))
    with opened(places) as folder:
        folder.saves.write(new_vae(), record, TRAINING)
    opened(places).start_from(source[0])
    begun(source, step=20)  # the same run, which has gone on since
    opened(places).start_from(source[0])
    record = dataclasses.replace(record, source=Source("beef" * 8, 10))
    with opened(places) as folder:
        folder.saves.write(new_vae(), dataclasses.replace(record, step=30), TRAINING)
    with pytest.raises(OtherRunError, match="started from other weights: choose another --save"):
        opened(places).start_from(source[0])
    (tmp_path / "source" / "checkpoint" / "step-000000020.keras").write_bytes(b"damaged")
    (tmp_path / "source" / "checkpoint" / "step-000000010.keras").write_bytes(b"damaged")
    opened(places).start_from(source[0])


@pytest.mark.parametrize("residual", [True, False])
def test_weights_without_equal_widths_fit_a_run_with_and_without_residual_layers(
    tmp_path, residual
):
    record = dataclasses.replace(RECORD, architecture=Architecture((6, 5), 2, "tanh"))
    weights_file.write(str(tmp_path / "vae.keras"), model.VAE(*record.architecture), record)
    wanted = Identity(DatasetRecord("mnist", "1"), {"residual": residual}, {})
    folder = opened((str(tmp_path / "w"), str(tmp_path / "l")), wanted)
    folder.start_from(str(tmp_path))
    assert folder.architecture == record.architecture
    # Nor is it another run once it has been saved.
    require_same(record, WANTED._replace(architecture=wanted.architecture), "w")
