"""support/display/summaries.py: tags, owners of folders, means between points, and event files."""

import dataclasses
import json
import os
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from support.display import summaries
from support.display.summaries import RunningMeans, Summaries
from support.errors import OtherRunError, UserError
from tests.helpers import TAGS, files_in, points
from tests.storage.examples import RECORD


def test_every_curve_and_picture_has_the_tag_that_users_know():
    assert {name: summaries.tag(name) for name in TAGS} == TAGS
    assert summaries.tag("reconstructions") == "others/reconstructions"
    assert summaries.tag("prior_samples") == "others/prior_samples"


def test_the_elbo_and_its_terms_come_first_in_this_order():
    """TensorBoard sorts by name: signs and capitals come before small letters."""
    expected = ["loss_total", "loss_bce", "loss_KLD"]
    assert sorted(TAGS, key=TAGS.get)[:3] == expected
    assert {TAGS[name].partition("/")[0] for name in expected} == {"-ELBO"}


def test_a_free_folder_is_claimed_by_one_run(tmp_path):
    log = str(tmp_path / "log")
    summaries.require_free(log, None, False)
    (tmp_path / "log").mkdir()
    summaries.claim(log, "1")
    assert json.loads((tmp_path / "log" / "owner.json").read_text()) == {"run_id": "1"}
    assert (tmp_path / "log" / "train").is_dir() and (tmp_path / "log" / "val").is_dir()
    summaries.require_free(log, "1", False)
    for run_id in ("2", None):
        with pytest.raises(OtherRunError, match=f"^{log} holds the event files of another run$"):
            summaries.require_free(log, run_id, False)
        summaries.require_free(log, run_id, True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("owner", [None, "pipe", "folder", "nested", "{}"])
def test_event_files_of_an_unknown_run_are_never_touched(tmp_path, owner, overwrite):
    path = tmp_path / "owner.json"
    (tmp_path / "train").mkdir()
    if owner is None:
        (tmp_path / "train" / "events.out.tfevents.1.x").write_text("mine")
    elif owner == "pipe":
        os.mkfifo(path)
    elif owner == "folder":
        path.mkdir()
    else:
        path.write_text("[" * 100_000 if owner == "nested" else owner)
    before = files_in(tmp_path)
    says = f"^{tmp_path} holds event files of an unknown run, which --overwrite does not remove: "
    with pytest.raises(UserError, match=says) as error:
        summaries.require_free(str(tmp_path), "1", overwrite)
    assert not isinstance(error.value, OtherRunError)
    assert files_in(tmp_path) == before


def test_other_files_do_not_make_a_folder_anyones(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    summaries.require_free(str(tmp_path), None, False)


def test_event_files_are_found_in_folders_of_any_name(tmp_path):
    log = tmp_path / "a[b]*"
    for part in ("train", "val", "other"):
        (log / part).mkdir(parents=True)
        (log / part / "events.out.tfevents.1.x").touch()
    (log / "train" / "notes").touch()
    found = summaries.event_files(str(log))
    assert sorted(found) == [
        str(log / part / "events.out.tfevents.1.x") for part in ("train", "val")
    ]


def test_clearing_removes_event_files_and_the_owner_last(tmp_path, monkeypatch):
    log = str(tmp_path)
    summaries.claim(log, "1")
    for part in ("train", "val"):
        (tmp_path / part / "events.out.tfevents.1.x").touch()
    (tmp_path / "train" / "mine.txt").write_text("mine")
    removed, remove = [], os.remove
    monkeypatch.setattr(os, "remove", lambda path: (removed.append(path), remove(path)))
    summaries.clear(log)
    assert len(removed) == 3 and removed[-1].endswith("owner.json")
    assert [path.name for path in files_in(tmp_path)] == ["mine.txt"]
    summaries.clear(log)


def terms(first, count):
    """The terms of some steps: a is the number of the step, and b is its square."""
    numbers = np.arange(first, first + count, dtype=float)
    return {"b": numbers**2, "a": numbers}


@pytest.mark.parametrize("calls", [[12], [1] * 12, [5, 1, 6], [4, 4, 4]])
def test_points_are_means_since_the_last_point_however_steps_come(calls):
    means, found, step = RunningMeans(("a", "b"), 5), [], 0
    for count in calls:
        found += means.add(step, terms(step + 1, count))
        step += count
    assert found == [
        (5, {"a": 3.0, "b": 11.0}),
        (10, {"a": 8.0, "b": pytest.approx((36 + 49 + 64 + 81 + 100) / 5)}),
    ]
    assert means.end_epoch(12) == {"a": 6.5, "b": pytest.approx(650 / 12)}
    means.add(12, terms(1, 4))
    assert means.end_epoch(4) == {"a": 2.5, "b": 7.5}


def test_means_continue_from_a_save():
    whole, part = RunningMeans(("a", "b"), 5), RunningMeans(("a", "b"), 5)
    whole.add(0, terms(1, 7))
    part.add(0, terms(1, 7))
    state = part.state()
    assert {name: array.dtype.kind for name, array in state.items()} == {
        "logged": "i",
        "log_sum": "f",
        "epoch_sum": "f",
    }
    later = RunningMeans(("a", "b"), 5)
    later.restore(state)
    part.add(7, terms(100, 3))  # does not change what was saved
    assert later.add(7, terms(8, 4)) == whole.add(7, terms(8, 4))
    assert later.end_epoch(11) == whole.end_epoch(11)


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    summaries.claim(str(tmp_path / "log"), RECORD.run_id)
    return tmp_path / "log"


def write(log, step, values, **start):
    """Writes points as a process does that starts or continues a run at a step."""
    with Summaries(str(log)) as writer:
        writer.start(step, RECORD)
        for number, value in values:
            writer.scalars("train", number, {"loss_total": value})
            writer.scalars("val", number, {"RMSE": 2 * value})


def test_scalars_are_read_by_tensorboard(log):
    write(log, 0, [(5, 1.5), (10, 0.25)])
    assert points(log / "train") == {"loss_total": [(5, 1.5), (10, 0.25)]}
    assert points(log / "val") == {"RMSE": [(5, 3.0), (10, 0.5)]}


def test_points_past_the_step_at_which_a_run_continues_are_replaced(log):
    write(log, 0, [(5, 1.0), (10, 2.0), (15, 3.0)])
    write(log, 10, [(15, 30.0), (20, 40.0)])
    assert points(log / "train")["loss_total"] == [(5, 1.0), (10, 2.0), (15, 30.0), (20, 40.0)]
    assert points(log / "val")["RMSE"] == [(5, 2.0), (10, 4.0), (15, 60.0), (20, 80.0)]


def test_each_file_begins_with_the_start_of_a_session(log):
    write(log, 0, [(5, 1.0)])
    write(log, 5, [(10, 1.0)])
    for part in ("train", "val"):
        paths = sorted((log / part).iterdir())
        for path, step in zip(paths, (1, 6), strict=True):
            version, start, *_ = EventFileLoader(str(path)).Load()
            assert version.file_version == "brain.Event:2"
            assert start.session_log.status == 1 and start.step == step


def test_a_clock_that_was_set_back_hides_no_points(log, monkeypatch):
    """Loaders read event files in the order of their names, which begin with the time."""
    write(log, 0, [(5, 1.0), (10, 2.0)])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 86_400)
    write(log, 5, [(10, 20.0)])
    write(log, 10, [(15, 30.0)])
    assert points(log / "train")["loss_total"] == [(5, 1.0), (10, 20.0), (15, 30.0)]
    assert len(list((log / "train").iterdir())) == 3


def test_a_new_run_shows_its_configuration_as_a_table(log):
    write(log, 0, [])
    write(log, 5, [])
    accumulator = EventAccumulator(str(log / "train"))
    accumulator.Reload()
    (event,) = accumulator.Tensors("configuration")
    lines = event.tensor_proto.string_val[0].decode().splitlines()
    assert "this curve may rise while the model improves" in lines[0]
    table = lines.index("| setting | value |")
    assert table == 4 and lines[5] == "| --- | --- |"
    for line in (
        '| name | "digits" |',
        "| latent_dim | 2 |",
        "| hidden_units | [6, 5, 5] |",
        "| learning_rate | 0.003 |",
        "| limit | null |",
        '| python | "3.12.1" |',
    ):
        assert line in lines


def metadata_in(folder):
    """The metadata that TensorBoard keeps of each tag: those of its first value."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {tag: accumulator.SummaryMetadata(tag) for tag in accumulator.summary_metadata}


def test_a_chart_says_what_its_values_are_once_in_each_file(log):
    with Summaries(str(log)) as writer:
        writer.start(0, RECORD)
        for step in (5, 10):
            writer.scalars("train", step, {"loss_total": 1.0, "learning_rate": 0.5})
            writer.scalars("val", step, {"loss_total": 1.0})
    train, val = metadata_in(log / "train"), metadata_in(log / "val")
    assert "may rise while the model improves" in train["-ELBO/loss_total"].summary_description
    assert "They are never distorted." in val["-ELBO/loss_total"].summary_description
    assert "proportional to it" in train["others/learning_rate"].summary_description
    (path,) = (log / "val").iterdir()
    assert path.read_bytes().count(b"They are never distorted.") == 1


def session(log):
    """What the HParams tab reads of a run: its settings, and whether it has ended."""
    from tensorboard.plugins.hparams import metadata

    found = metadata_in(log / "val")
    contents = {tag: value.plugin_data for tag, value in found.items() if "_hparams_" in tag}
    assert all(content.plugin_name == "hparams" for content in contents.values())
    start = metadata.parse_session_start_info_plugin_data(
        contents[metadata.SESSION_START_INFO_TAG].content
    )
    end = contents.get(metadata.SESSION_END_INFO_TAG)
    return start, end and metadata.parse_session_end_info_plugin_data(end.content)


def test_a_run_is_a_trial_with_its_settings_in_the_hparams_tab(log):
    record = dataclasses.replace(RECORD, training=dict(RECORD.training) | {"warm_start": True})
    with Summaries(str(log)) as writer:
        writer.start(0, record)
    start, end = session(log)
    assert end is None
    assert {name: value.WhichOneof("kind") for name, value in start.hparams.items()} == {
        "dataset": "string_value",
        "hidden_units": "string_value",
        "latent_dim": "number_value",
        "activation": "string_value",
        "residual": "bool_value",
        "seed": "number_value",
        "learning_rate": "number_value",
        "limit": "string_value",
        "binarize": "string_value",
        "warm_start": "bool_value",
    }
    assert start.hparams["hidden_units"].string_value == "6 5 5"
    assert start.hparams["learning_rate"].number_value == 0.003
    assert start.hparams["limit"].string_value == "none"
    assert start.hparams["warm_start"].bool_value is True


def test_a_run_that_ends_twice_has_one_result(log):
    """As if it was killed after its result was written and before its weights were."""
    write(log, 0, [(5, 1.0)])
    for value in (3.0, 3.5):
        with Summaries(str(log)) as writer:
            writer.start(5, RECORD)
            writer.result(5, {"loss_total": value, "active_units": 2})
    found = points(log / "val")
    assert found == {
        "RMSE": [(5, 2.0)],
        "result/loss_total": [(6, 3.5)],
        "result/active_units": [(6, 2.0)],
    }
    assert session(log)[1].status == 1  # success


def histogram(log, name):
    accumulator = EventAccumulator(str(log / "val"))
    accumulator.Reload()
    (event,) = accumulator.Histograms(f"others/{name}")
    return event.step, event.histogram_value


def test_a_histogram_counts_all_values(log):
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    with Summaries(str(log)) as writer:
        writer.start(0, RECORD)
        writer.histograms(7, {"mu": values, "log_var": np.zeros((2, 2))})
    step, found = histogram(log, "mu")
    assert step == 7 and found.num == sum(found.bucket) == 150
    assert found.min == pytest.approx(values.min()) and found.max == pytest.approx(values.max())
    edge = found.bucket_limit[9]
    assert sum(found.bucket[:10]) == np.sum(values < edge)
    assert histogram(log, "log_var")[1].num == 4


@pytest.mark.parametrize("dimensions", [2, 30, 128])
def test_the_kl_of_the_dimensions_is_shown_in_bars_of_their_rank(log, dimensions):
    kld = np.random.default_rng(1).uniform(1, 9, dimensions)
    with Summaries(str(log)) as writer:
        writer.start(0, RECORD)
        writer.kld_by_rank(7, kld)
    _, found = histogram(log, "KLD_by_rank")
    assert found.min == 0 and list(found.bucket_limit) == list(range(1, 31))
    expected = np.zeros(30)
    expected[: min(dimensions, 30)] = sorted(kld, reverse=True)[:30]
    np.testing.assert_allclose(found.bucket, expected, atol=1e-5)
    # An empty bar at an end would be dropped, and the others drawn wider.
    assert min(found.bucket) > 0


def test_pictures_are_dark_ink_on_white_in_rows(log):
    rows = np.zeros((2, 3, 784), np.uint8)
    rows[0, 2, 0] = 255  # the first pixel of the last image of the first row
    rows[1, 0, 783] = 100  # the last pixel of the first image of the second row
    with Summaries(str(log)) as writer:
        writer.start(0, RECORD)
        writer.pictures(7, {"reconstructions": rows})
    accumulator = EventAccumulator(str(log / "val"))
    accumulator.Reload()
    (event,) = accumulator.Images("others/reconstructions")
    image = tf.io.decode_png(event.encoded_image_string).numpy()
    assert event.step == 7 and image.shape[2] == 1
    assert (event.height, event.width) == image.shape[:2]
    step = image.shape[0] // 2
    assert step >= 28 and image.shape[1] == 3 * step
    assert image[0, 2 * step, 0] == 0 and image[step + 27, 27, 0] == 155
    assert np.sum(image != 255) == 2


@pytest.mark.usefixtures("folders_can_be_synced")
def test_events_survive_a_power_cut_once_they_are_flushed(log, monkeypatch):
    synced = []
    with Summaries(str(log)) as writer:
        writer.start(0, RECORD)
        writer.scalars("train", 5, {"loss_total": 1.0})
        fsync = os.fsync
        monkeypatch.setattr(
            os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
        )
        writer.flush()
        # It is read while it is still open for writing.
        assert points(log / "train")["loss_total"] == [(5, 1.0)]
    for part in ("train", "val"):
        (path,) = (log / part).iterdir()
        assert synced.index(str(path)) < synced.index(str(log / part))


def test_events_before_the_start_are_written_after_it(log):
    """A run that replaces another one does not own the folder before its first save."""
    with Summaries(str(log)) as writer:
        writer.scalars("train", 5, {"loss_total": 1.0})
        writer.scalars("val", 6, {"RMSE": 2.0})
        assert not list((log / "train").iterdir())
        writer.start(0, RECORD)
        writer.scalars("train", 10, {"loss_total": 3.0})
    assert points(log / "train")["loss_total"] == [(5, 1.0), (10, 3.0)]
    assert points(log / "val")["RMSE"] == [(6, 2.0)]


def test_a_worker_that_is_not_the_chief_writes_nothing(tmp_path):
    with Summaries(None) as writer:
        writer.start(0, RECORD)
        writer.scalars("train", 5, {"loss_total": 1.0})
        writer.pictures(5, {"reconstructions": np.zeros((1, 1, 784), np.uint8)})
        writer.histograms(5, {"mu": np.zeros(3)})
        writer.kld_by_rank(5, np.zeros(3))
        writer.result(5, {"loss_total": 1.0})
        writer.flush()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(log):
    (log / "train").rmdir()
    with pytest.raises(UserError, match="log cannot be written"), Summaries(str(log)) as writer:
        writer.start(0, RECORD)
    (log / "val" / "x").touch()
    with pytest.raises(UserError, match="cannot be written"):
        summaries.claim(str(log / "val" / "x"), "1")
