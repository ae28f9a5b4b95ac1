"""What goes wrong around a run: full disks, rights, deleted folders, kills, damaged inputs.

Faults are injected for real, through the scripts. tests/README.md is the table of them.
"""

import codecs
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import fuzz
import numpy as np
import pytest
from conftest import ROOT, SMALL, files_in, last_line, points, run_script

import weights

LONG = [*SMALL, "--epoch", "4000", "--schedule", "constant", "--save_every", "0.2"]
NOBODY = 65534


def start(folder, *argv, **kwargs):
    """Starts train.py as a process on `folder`."""
    command = [sys.executable, os.path.join(ROOT, "train.py"), *argv]
    command += ["--save_weight_dir", str(folder / "weights"), "--log_dir", str(folder / "log")]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def wait_for(condition, process, seconds=120):
    """Waits until `condition()` holds while the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def checkpoints(folder):
    path = folder / "weights" / "checkpoint"
    return sorted(path.glob("step-*")) if path.exists() else []


def one_line(stderr, says):
    assert "Traceback" not in stderr, stderr
    line = last_line(stderr)
    assert line.startswith("train.py: error: ") and says in line, stderr


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 3 MiB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs can't be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_the_last_good_checkpoint(small_disk):
    """It fills up in the middle of a run; once there is room, the same command goes on."""
    argv = ["--keep", "1"]
    process = start(small_disk, *LONG, *argv)
    wait_for(lambda: checkpoints(small_disk), process)
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2
    one_line(stderr, "can't be written")
    folder = weights.TrainingFolder(str(small_disk / "weights"))
    prefix, state = folder.newest_checkpoint(folder.config()["run_id"])
    folder.close()
    assert prefix and state["step"] > 0
    filler.unlink()
    process = start(small_disk, *LONG, *argv)
    wait_for(lambda: any(int(c.name[5:]) > state["step"] for c in checkpoints(small_disk)), process)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 143 and "Continuing" in stdout
    one_line(stderr, "the same command continues the run")


def test_folders_without_the_right_to_write(trained, capsys):
    """As a user who is not root, for every flag that names a folder to write."""
    if os.geteuid() != 0:
        pytest.skip("changes the user, which needs root")
    import eval_genresult
    import train as script

    with tempfile.TemporaryDirectory(dir="/tmp") as work:
        os.chmod(work, 0o755)
        arrays, locked = os.path.join(work, "mnist.npz"), os.path.join(work, "locked")
        shutil.copytree(trained, os.path.join(work, "weights"))
        images, labels = np.zeros((242, 28, 28), np.uint8), np.zeros(242, np.uint8)
        np.savez(arrays, x_train=images, y_train=labels, x_test=images, y_test=labels)
        os.mkdir(locked)
        os.chown(os.path.join(work, "weights"), NOBODY, NOBODY)
        before = files_in(pathlib.Path(work))
        # Whatever is imported late may lie where the other user can't read: this codec by zipfile.
        codecs.lookup("cp437")
        training = ["--data_dir", arrays, "--save_weight_dir"]
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
            assert code == 2 and f"{argv[-2]} {argv[-1]} can't be written (Permission" in line
        assert files_in(pathlib.Path(work)) == before


@pytest.mark.parametrize("flag, deleted", [("--save_weight_dir", "weights"), ("--log_dir", "log")])
def test_a_folder_deleted_under_the_run(tmp_path, flag, deleted):
    process = start(tmp_path, *LONG)
    wait_for(lambda: checkpoints(tmp_path), process)
    os.rename(tmp_path / deleted, tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2
    one_line(stderr, f"{flag} {tmp_path / deleted} can't be written (No such file")


def test_two_runs_on_one_folder_and_a_killed_ones_lock(tmp_path):
    """The second is refused while the first lives; SIGKILL leaves no lock behind."""
    first = start(tmp_path, *LONG)
    wait_for(lambda: checkpoints(tmp_path), first)
    second = start(tmp_path, *LONG)
    _, stderr = second.communicate(timeout=120)
    assert second.returncode == 2
    one_line(stderr, "in use by another run")
    first.kill()
    first.communicate()
    third = start(tmp_path, *LONG)
    _, state = newest(tmp_path)
    wait_for(lambda: int(checkpoints(tmp_path)[-1].name[5:]) > state["step"], third)
    third.send_signal(signal.SIGINT)
    stdout, stderr = third.communicate(timeout=60)
    assert third.returncode == 130 and "Continuing" in stdout
    one_line(stderr, "the same command continues the run")
    steps = [step for step, _ in points(tmp_path / "log" / "train")["loss_bce"]]
    assert steps == list(range(5, steps[-1] + 1, 5))


def newest(folder):
    path = checkpoints(folder)[-1]
    return path, json.loads((path / "state.json").read_text())


def test_a_second_signal_gives_up_saving():
    import console
    from flags import UserError

    with console.StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM
        with pytest.raises(UserError, match="without saving") as raised:
            os.kill(os.getpid(), signal.SIGTERM)
        assert raised.value.code == 143


def test_a_loss_that_is_not_finite_as_a_process(tmp_path):
    """The last good checkpoint stays as it was, and is named."""
    argv = [*SMALL, "--epoch", "3", "--warmup_epochs", "0", "--schedule", "constant"]
    process = start(tmp_path, *argv, "--learning_rate", "1e18")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 3
    one_line(stderr, "no longer finite at step")
    assert "learning rate 1e+18" in stderr and not checkpoints(tmp_path)


def test_every_checkpoint_damaged(copy, capsys):
    for data in copy.glob("checkpoint/*/state.json"):
        data.write_text("{}")
    import train as script

    argv = [*SMALL, "--save_weight_dir", str(copy), "--log_dir", str(copy.parent / "log")]
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"epochs_done": 2', '"epochs_done": 1'))
    before = files_in(copy)
    assert script.main([*argv, "--epoch", "2"]) == 2
    line = last_line(capsys.readouterr().err)
    assert "every checkpoint is damaged" in line and "--overwrite" in line
    assert files_in(copy) == before


def test_a_few_kills_change_nothing(tmp_path):
    """bench/soak.py in small: 2 SIGKILLs, the same weights, curves and files."""
    argv = ["--kills", "2", "--epoch", "40", "--dataset", "digits"]
    run = run_script("bench/soak.py", *argv, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "weights, curves and files are all equal" in run.stdout


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_few_mutants_of_every_input(kind, tmp_path):
    """tests/fuzz.py in small."""
    mutants = 2 if kind == "checkpoint" else 6
    for run, count in ((fuzz.as_process, 1), (fuzz.in_process, mutants)):
        counts = fuzz.fuzz(kind, count, run, 1, str(tmp_path / run.__name__))
        assert not counts["failed"]
        assert counts["result"] + counts["refused"] == count
