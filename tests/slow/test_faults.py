"""What goes wrong around a run: full disks, permissions, deleted folders, kills, damaged inputs.

Real faults are injected while the scripts run. They are listed in tests/README.md.
"""

import codecs
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

import train as script
from support.storage import weights, weights_file
from tests.helpers import (
    ROOT,
    SMALL,
    STARTED,
    STEPS,
    files_in,
    folders,
    interrupted,
    last_line,
    points,
    start,
    train,
    wait_for,
)

LONG = [*SMALL, "--epoch", "4000", "--schedule", "constant", "--save_every", "0.2"]
NOBODY = 65534


def saved(folder):
    """The steps of the saves of a run in progress."""
    return weights_file.saved_steps(str(folder / "weights"))


def one_line(stderr, says):
    assert "Traceback" not in stderr, stderr
    line = last_line(stderr)
    assert line.startswith("train.py: ") and says in line, stderr


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 6 MiB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs can't be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_the_last_good_save(small_disk):
    """It fills up in the middle of a run; once there is space, the same command continues it."""
    process = start(small_disk, *LONG)
    wait_for(lambda: len(saved(small_disk)) > 1, process)
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2
    one_line(stderr, "cannot be written")
    step = weights.read_record(str(small_disk / "weights")).step
    assert step > 0
    filler.unlink()
    process = start(small_disk, *LONG)
    wait_for(lambda: saved(small_disk)[-1] > step, process)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 143 and f"Continuing at step {step}, after" in stdout
    one_line(stderr, "repeat the command to continue the run")


def test_a_signal_saves_a_run_whose_output_nobody_reads(tmp_path):
    """Its pipe is full, so it waits for ever in the middle of a line."""
    fcntl = pytest.importorskip("fcntl")
    reading, writing = os.pipe()
    # The smallest pipe: a few lines fill it.
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, os.path.join(ROOT, "train.py"), *LONG, *folders(tmp_path)]
    STARTED.append(subprocess.Popen(command, stdout=writing, stderr=writing))
    os.close(writing)
    process = STARTED[-1]
    wait_for(lambda: len(saved(tmp_path)) > 1, process)
    step, steps = None, saved(tmp_path)[-1]
    while step != steps:
        time.sleep(3)
        step, steps = steps, saved(tmp_path)[-1]
    process.terminate()
    assert process.wait(60) == 143
    os.close(reading)
    assert weights.read_record(str(tmp_path / "weights")).step >= step > 0


def test_folders_without_the_right_to_write(trained, capsys):
    """As a user who is not root, for every flag that takes an output folder."""
    if os.geteuid() != 0:
        pytest.skip("changes the user, which needs root")
    import eval_genresult

    with tempfile.TemporaryDirectory(dir="/tmp") as work:
        os.chmod(work, 0o755)
        arrays, locked = os.path.join(work, "mnist.npz"), os.path.join(work, "locked")
        shutil.copytree(trained, os.path.join(work, "weights"))
        images, labels = np.zeros((242, 28, 28), np.uint8), np.zeros(242, np.uint8)
        np.savez(arrays, x_train=images, y_train=labels, x_test=images, y_test=labels)
        os.mkdir(locked)
        os.chown(os.path.join(work, "weights"), NOBODY, NOBODY)
        before = files_in(pathlib.Path(work))
        # zipfile imports this codec late, perhaps from a place that the other user cannot read.
        codecs.lookup("cp437")
        training = ["--data_dir", arrays, "--log_dir", f"{work}/log", "--save_weight_dir"]
        for run, argv in (
            (script, [*training, locked]),
            (script, [*training, os.path.join(locked, "new")]),
            (eval_genresult, ["--load_weight_dir", f"{work}/weights", "--output_dir", locked]),
        ):
            os.seteuid(NOBODY)
            try:
                code = run.main(argv)
            finally:
                os.seteuid(0)
            line = last_line(capsys.readouterr().err)
            assert code == 2 and f"{argv[-1]} cannot be written (Permission" in line
        # The log folder is created with its lock file if that is possible.
        shutil.rmtree(os.path.join(work, "log"), ignore_errors=True)
        assert files_in(pathlib.Path(work)) == before


@pytest.mark.parametrize("deleted", ["weights", "log"])
def test_a_folder_deleted_under_the_run(tmp_path, deleted):
    process = start(tmp_path, *LONG)
    wait_for(lambda: len(saved(tmp_path)) > 1, process)
    os.rename(tmp_path / deleted, tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2
    one_line(stderr, str(tmp_path / deleted))
    assert not (tmp_path / deleted / "vae.keras").exists()


def test_a_folder_made_anew_under_the_run_is_not_written(tmp_path):
    """Its lock file is a new one, which another process may hold."""
    process = start(tmp_path, *LONG)
    wait_for(lambda: len(saved(tmp_path)) > 1, process)
    os.rename(tmp_path / "weights", tmp_path / "gone")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / ".weights.lock").touch()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2
    one_line(stderr, "was removed or replaced while this run used it")
    assert not saved(tmp_path)


def test_two_runs_on_one_folder_and_a_killed_ones_lock(tmp_path):
    """The second is refused while the first is alive; SIGKILL leaves no lock behind."""
    first = start(tmp_path, *LONG)
    wait_for(lambda: len(saved(tmp_path)) > 1, first)
    second = start(tmp_path, *LONG)
    _, stderr = second.communicate(timeout=300)
    assert second.returncode == 2
    one_line(stderr, "in use by another run")
    first.kill()
    first.communicate()
    third = start(tmp_path, *LONG)
    step = saved(tmp_path)[-1]
    wait_for(lambda: saved(tmp_path)[-1] > step, third)
    third.send_signal(signal.SIGINT)
    stdout, stderr = third.communicate(timeout=300)
    assert third.returncode == 130 and "Continuing" in stdout
    one_line(stderr, "repeat the command to continue the run")
    steps = [step for step, _ in points(tmp_path / "log" / "train")["loss_bce"]]
    assert steps == list(range(5, steps[-1] + 1, 5))


def test_every_save_damaged(tmp_path, capsys):
    with interrupted(steps=STEPS, steps_per_call=STEPS):
        assert train(tmp_path, "--epoch", "2", "--save_every", "0") == 143
    for save in (tmp_path / "weights" / "checkpoint").iterdir():
        os.truncate(save, 3000)
    before = files_in(tmp_path)
    assert train(tmp_path, "--epoch", "2") == 2
    line = last_line(capsys.readouterr().err)
    assert "is damaged" in line
    assert files_in(tmp_path) == before
