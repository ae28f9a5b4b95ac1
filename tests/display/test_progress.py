"""support/display/progress.py: what the user sees of a run, on a terminal and in a file."""

import contextlib
import io
import re
import time

import numpy as np
import pytest

from support.datasets.types import Dataset, Split
from support.display import progress


def dataset(**changes):
    def split(count):
        return Split(np.zeros((count, 784), np.uint8), np.zeros(count, np.uint8))

    return Dataset("mnist", "0", split(1200), split(5), split(30))._replace(**changes)


def test_the_data_set_and_its_sizes_are_announced(capsys):
    progress.announce(dataset())
    assert capsys.readouterr().out == ""
    assert progress.sizes(dataset()) == (
        "Data set mnist: 1,200 train, 5 validation, 30 test images."
    )


def test_the_classes_that_are_trained_on_are_announced():
    said = progress.sizes(dataset(classes=(0, 3), class_names=("cat", "dog")))
    assert said.endswith(" Training and validation images are only those of cat 3 (--digits).")


def test_what_was_found_in_own_files_is_announced(capsys):
    about = {"notices": ("they tilt",), "training_notices": ("they are few",)}
    progress.announce(dataset(description=("Two files.",), **about))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["Two files.", "Notice: they tilt", "Notice: they are few"]


def test_a_fallback_cannot_be_missed(capsys):
    progress.announce(dataset(name="digits", fallback_reason="no network " * 20))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == 78 * "!"
    assert "cannot be compared with results on MNIST" in lines[2] and "100 epochs" in lines[3]
    assert lines[1].startswith("THIS IS NOT MNIST") and "MNIST is not available: no" in lines[4]
    assert max(map(len, lines)) <= 78


class Terminal(io.StringIO):
    """A stream that claims to be a terminal, and keeps what was written to it."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def terminal(monkeypatch):
    """A terminal with 100 columns; `progress_on` replaces the standard output with it."""
    import rich

    for name, value in (("TERM", "xterm"), ("COLUMNS", "100"), ("LINES", "30")):
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    # Other code may have made a console for another terminal.
    monkeypatch.setattr(rich, "_console", None)
    return Terminal()


@contextlib.contextmanager
def progress_on(screen, *args, **kwargs):
    """Shows the progress of a run on a terminal."""
    with (
        contextlib.redirect_stdout(screen),
        progress.Progress(*args, **kwargs) as bar,
    ):
        yield bar


def text_of(screen):
    """All that was written, as one line without control sequences."""
    return " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).split())


def cleared(screen):
    screen.seek(0)
    screen.truncate()


def test_a_terminal_shows_epoch_loss_and_what_is_left(terminal, clock):
    """Three epochs of 20 steps: ten took 5 seconds, so 5 are left in the epoch, 25 in the run."""
    with progress_on(terminal, 3, 20, 100, done=0, shown=True) as bar:
        clock[0] += 5
        bar.update(10, 123.456)
        text = text_of(terminal)
        assert "Epoch 1/3" in text and "loss_total 123.5" in text
        assert "left: epoch 0:00:05, run 0:00:25" in text
        # The bar has twelve cells, filled or not.
        filled = terminal.getvalue().split("Epoch 1/3")[-1]
        assert filled.count("━") + filled.count("╸") + filled.count("╺") == 12
        cleared(terminal)
        clock[0] += 15
        bar.update(40, 99.0)
        text = text_of(terminal)
        assert "Epoch 2/3" in text and "left: epoch 0:00:00, run 0:00:10" in text
        bar.update(41, 98.0)
        assert "Epoch 3/3" in text_of(terminal)


def test_the_bar_fills_as_the_epoch_does(terminal, clock):
    """Steps of earlier epochs do not count; the bar is full at the end of an epoch."""
    cells = {}
    with progress_on(terminal, 3, 20, 100, done=0, shown=True) as bar:
        for done in (5, 20, 30):
            cleared(terminal)
            clock[0] += 1
            bar.update(done, 1.0)
            # The part in green (colour code 32).
            parts = re.findall(r"\x1b\[32m([━╸╺]*)\x1b\[0m", terminal.getvalue())
            cells[done] = len(parts[-1]) if parts else 0
    assert cells[5] in (3, 4) and cells[20] == 12 and cells[30] in (6, 7)


def test_a_run_that_continues_reckons_with_its_own_steps(terminal, clock):
    with progress_on(terminal, 3, 20, 100, done=30, shown=True) as bar:
        clock[0] += 8
        bar.update(34, 1.0)
        # Two seconds per step: 6 steps left in the epoch, 26 in the run.
        assert "left: epoch 0:00:12, run 0:00:52" in text_of(terminal)


def test_the_line_of_an_epoch_takes_the_place_of_the_bar(terminal, clock):
    with progress_on(terminal, 2, 20, 100, done=0, shown=True) as bar:
        clock[0] += 4
        bar.update(20, 50.0)
        bar.end_epoch({"loss_total": 60.128}, {"loss_total": 55.5})
        after = terminal.getvalue()
        line = "Epoch 1/2: loss_total 60.13 train, 55.50 validation; 500 images/s\n"
        assert after.endswith(line)
        # The bar is erased (transient) before the line is printed.
        assert "\x1b[2K" in after.split("Epoch 1/2: ")[0].rpartition("Epoch 1/2")[2]
        clock[0] += 2
        bar.update(40, 50.0)
        bar.end_epoch({"loss_total": 1.0}, {"loss_total": 2.0})
        # The speed is that of this epoch alone.
        assert "Epoch 2/2: loss_total 1.00 train, 2.00 validation; 1,000 images/s" in (
            text_of(terminal)
        )


def test_a_file_gets_one_line_an_epoch_and_no_bar(capsys, clock):
    with progress.Progress(2, 20, 100, done=20, shown=True) as bar:
        clock[0] += 1
        bar.update(30, 50.0)
        bar.update(40, 50.0)
        assert capsys.readouterr().out == ""
        bar.end_epoch({"loss_total": 60.0}, {"loss_total": 55.0})
    assert capsys.readouterr().out == (
        "Epoch 2/2: loss_total 60.00 train, 55.00 validation; 2,000 images/s\n"
    )


def test_what_makes_the_loss_of_training_images_another_one_is_said(capsys, clock):
    with progress.Progress(1, 20, 100, done=0, shown=True) as bar:
        clock[0] += 1
        bar.update(20, 50.0)
        bar.end_epoch({"loss_total": 60.0}, {"loss_total": 55.0}, distorted=0.456)
    said = capsys.readouterr().out
    assert said.startswith("Epoch 1/1: loss_total 60.00 train (46 % distorted), 55.00 validation;")


def test_workers_that_are_not_the_chief_show_nothing(terminal, clock):
    with progress_on(terminal, 1, 20, 100, done=0, shown=False) as bar:
        clock[0] += 1
        bar.update(20, 50.0)
        bar.end_epoch({"loss_total": 60.0}, {"loss_total": 55.0})
    assert terminal.getvalue() == ""
