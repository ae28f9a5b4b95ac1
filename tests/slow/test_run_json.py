"""Every key of run.json, missing, null, of another type or huge, as each script meets it."""

import collections
import contextlib
import copy
import functools
import io
import json
import os
import shutil
import zipfile

import pytest

import data
import eval as eval_script
import eval_genresult
from support.display import plots
from support.storage import weights_file
from tests.helpers import interrupted, last_line, train

REMOVED = object()
VALUES = {
    "missing": REMOVED,
    "null": None,
    "a number": 3,
    "a fraction": 0.5,
    "text": "text",
    "a list": [1, "two", None],
    "an object": {"key": "value"},
    "huge": 10**30,
    "long text": "x" * 100_000,
    "control characters": "\x1b[2J\n",
}


def places(content, path=()):
    """The paths of all keys below a JSON object; of lists, only that of the first item."""
    items = content.items() if isinstance(content, dict) else list(enumerate(content))[:1]
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(content, path, value):
    """A copy of `content` in which the key at `path` has another value, or is missing."""
    content = copy.deepcopy(content)
    part = content
    for key in path[:-1]:
        part = part[key]
    if value is REMOVED:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return content


def members(path):
    """The members of a weights file, with run.json as an object."""
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    return found | {weights_file.RUN: json.loads(found[weights_file.RUN])}


def write(path, content):
    """Writes a weights file from what `members` returned."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, json.dumps(data) if isinstance(data, dict) else data)


def run(script, *argv):
    """Runs a script in this process; returns its exit code and what it printed to each stream."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = script(list(map(str, argv)))
    return code, out.getvalue(), err.getvalue()


def complaint(code, out, err):
    """What is wrong with the end of a script; empty if nothing is."""
    if "\x1b" in out + err:
        return "control characters were printed"
    if code == 0:
        return ""
    if code != 2:
        return f"exit code {code}"
    line = last_line(err)
    return "" if ": error: " in line and len(line) < 1000 else f"last line {line!r}"


def variants(content, names=tuple(VALUES)):
    """(name, changed content) for each key and each value in VALUES, or some of them."""
    for path in places(content):
        for name in names:
            value = VALUES[name]
            yield f"{'.'.join(map(str, path))} {name}", changed(content, path, value)


@pytest.fixture
def quick(trained, tmp_path, monkeypatch):
    """Leaves out what takes time and does not see run.json: figures are those of a first run."""
    figures = []
    evaluate = eval_script.evaluate

    def once(*args):
        if not figures:
            figures.append(evaluate(*args))
        return figures[0]

    monkeypatch.setattr(data, "load", functools.cache(data.load))
    monkeypatch.setattr(eval_script, "evaluate", once)
    for name in ("draw_reconstructions", "draw_extremes"):
        monkeypatch.setattr(eval_script, name, lambda *_: None)
    monkeypatch.setattr(eval_genresult.Generator, "write_samples", lambda _: ["generated.npz"])
    monkeypatch.setattr(plots, "draw", lambda *_, **__: None)


def test_eval_and_generation_read_or_refuse_every_value(quick, trained, tmp_path):
    original = members(trained / "vae.keras")
    folder = tmp_path / "weights"
    folder.mkdir()
    failed, counts = [], collections.Counter()
    scripts = (
        (eval_script.main, ()),
        (eval_genresult.main, ("--num", "1", "--traverse", "--page", tmp_path / "page.html")),
    )
    accepted = set()
    for name, record in variants(original[weights_file.RUN]):
        write(folder / "vae.keras", original | {weights_file.RUN: record})
        for script, flags in scripts:
            # One value that a key may also have shows that it is used well.
            key = name.split()[0], script
            if key in accepted:
                continue
            flags = ("--load_weight_dir", folder, "--output_dir", tmp_path / "out", *flags)
            code, out, err = run(script, *flags)
            counts[code] += 1
            if code == 0:
                accepted.add(key)
            if complaint(code, out, err):
                failed.append((name, complaint(code, out, err)))
    assert not failed
    assert counts[2] > 300 and counts[0] > 10, counts


def test_a_run_continues_or_is_refused_for_every_value(tmp_path, monkeypatch):
    with interrupted(steps=15, steps_per_call=5), contextlib.redirect_stdout(io.StringIO()):
        assert train(tmp_path / "run", "--epoch", "2") == 143
    weights = tmp_path / "run" / "weights"
    newest = weights_file.save_path(str(weights), weights_file.saved_steps(str(weights))[-1])
    original = members(newest)
    for step in weights_file.saved_steps(str(weights))[:-1]:
        os.remove(weights_file.save_path(str(weights), step))
    monkeypatch.setattr(data, "load", functools.cache(data.load))
    shutil.copytree(tmp_path / "run", tmp_path / "kept")
    resumed = True
    failed, counts, accepted = [], collections.Counter(), set()
    names = ("missing", "null", "text", "a list", "huge")
    for name, record in variants(original[weights_file.RUN], names):
        key = name.split()[0]
        if key in accepted:
            continue
        if resumed:
            shutil.rmtree(tmp_path / "run")
            shutil.copytree(tmp_path / "kept", tmp_path / "run")
        write(newest, original | {weights_file.RUN: record})
        code, out, err = run(lambda argv: train(tmp_path / "run", *argv), "--epoch", "2")
        counts[code] += 1
        resumed = code != 2
        if code == 0:
            accepted.add(key)
        if complaint(code, out, err):
            failed.append((name, complaint(code, out, err)))
    assert not failed
    assert counts[2] > 100 and counts[0] > 3, counts
