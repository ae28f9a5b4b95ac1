"""support/weights.py: the one file; what of a damaged or hostile one is refused, and by which line;
and the same file loaded by Keras alone, elsewhere, on two backends."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

import eval as eval_script
import eval_genresult
from support import UserError, weights
from tests.helpers import ROOT, arrays_of, last_line


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, members, method=zipfile.ZIP_STORED):
    """Writes a sound zip of other members: (name, content) pairs, as often as they come."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)


def with_run(path, **changes):
    members = members_of(path)
    run = json.loads(members[weights.RUN]) | changes
    rewrite(path, (members | {weights.RUN: json.dumps(run)}).items())


def with_h5(path, change):
    """Applies `change(file, dataset path)` to the HDF5 member; the zip stays sound."""
    members = members_of(path)
    content = io.BytesIO(members[weights.WEIGHTS])
    with h5py.File(content, "r+") as file:
        change(file, "layers/functional_1/layers/dense/vars/0")
    rewrite(path, (members | {weights.WEIGHTS: content.getvalue()}).items())


def replaced(**how):
    def change(file, path):
        values = file[path][...]
        del file[path]
        settings = {"data": how.pop("data", lambda v: v)(values)} | how
        file.create_dataset(path, **settings)

    return lambda path: with_h5(path, change)


def soft_link(file, path):
    file.move(path, "elsewhere")
    file[path] = h5py.SoftLink("/elsewhere")


def virtual(file, path):
    values = file[path][...]
    file["hidden"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(file["hidden"])
    del file[path]
    file.create_virtual_dataset(path, layout)


def external(file, path):
    shape = file[path].shape
    del file[path]
    file.create_dataset(path, shape, "<f4", external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def without(name):
    return lambda p: rewrite(p, ((n, c) for n, c in members_of(p).items() if n != name))


def huge(file, path):
    """3.6 GB of zeros in a small file."""
    del file[path]
    file.create_dataset(path, (30_000, 30_000), "<f4", chunks=(1000, 1000), compression="gzip")


WIDE = {"hidden_units": [8192] * 16, "latent_dim": 8192, "activation": "silu"}
DAMAGE = {
    "bit": (flip, "damaged"),
    "truncated": (lambda p: os.truncate(p, 5000), "damaged"),
    "empty": (lambda p: os.truncate(p, 0), "damaged"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "not a regular file"),
    "a pipe": (lambda p: (p.unlink(), os.mkfifo(p)), "not a regular file"),
    "a loop": (lambda p: (p.unlink(), p.symlink_to(p)), "holds no weights"),
    "no run.json": (without(weights.RUN), "run.json"),
    "no weights": (without(weights.WEIGHTS), "it holds"),
    "one more": (lambda p: rewrite(p, [*members_of(p).items(), ("x", b"")]), "it holds"),
    "twice": (
        lambda p: rewrite(p, [*members_of(p).items(), (weights.WEIGHTS, b"")]),
        "it holds",
    ),
    "compressed": (lambda p: rewrite(p, members_of(p).items(), zipfile.ZIP_LZMA), "compressed"),
    "format": (lambda p: with_run(p, format=2), "has format 2, this version reads 1"),
    "wide": (
        lambda p: with_run(p, architecture=WIDE, posterior=None),
        "does not fit the architecture",
    ),
    "deep": (
        lambda p: with_run(p, architecture=WIDE | {"hidden_units": [1] * 99}),
        "unexpected architecture",
    ),
    "lambda": (
        lambda p: with_run(p, architecture=WIDE | {"activation": "x"}),
        "unexpected architecture",
    ),
    "no object": (lambda p: rewrite(p, (members_of(p) | {weights.RUN: b"[]"}).items()), "object"),
    "nested": (
        lambda p: rewrite(p, (members_of(p) | {weights.RUN: b"[" * 10**5}).items()),
        "run.json is damaged",
    ),
    "an empty posterior": (lambda p: with_run(p, posterior={}), "damaged"),
    "no reason for no prior": (lambda p: with_run(p, prior=5), "damaged"),
    "a reason that rings": (lambda p: with_run(p, prior={"why": "\a"}), "unexpected prior"),
    "posterior": (
        lambda p: with_run(p, posterior={"mu_mean": [1e300], "mu_std": [0], "KLD": [0]}),
        "unexpected posterior",
    ),
    "step": (lambda p: with_run(p, step=10**12), "unexpected step"),
    "other shape": (replaced(data=lambda v: v[1:]), "expected float32 of shape (4, 16)"),
    "whole numbers": (replaced(data=lambda v: v.astype(np.int8)), '"|i1"'),
    "gzipped": (replaced(compression="gzip"), "in one piece"),
    "not finite": (replaced(data=lambda v: v * np.nan), "not finite"),
    "soft link": (lambda p: with_h5(p, soft_link), "no plain link"),
    "virtual": (lambda p: with_h5(p, virtual), "in one piece"),
    "external": (lambda p: with_h5(p, external), "in one piece"),
    "huge": (lambda p: with_h5(p, huge), "(30000, 30000)"),
}


@pytest.mark.parametrize("damage, says", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_costs_one_line(copy, tmp_path, capsys, damage, says):
    damage(copy / weights.FINISHED)
    out = tmp_path / "out"
    argv = ["--load_weight_dir", str(copy), "--output_dir", str(out)]
    # The decoder alone is read by one script, all by the other.
    for script in (eval_script, eval_genresult):
        assert script.main(argv) == 2
        captured = capsys.readouterr()
        line = last_line(captured.err)
        assert line.startswith(script.parser().prog) and says in line and "Traceback" not in line
    assert not out.exists()


def test_a_folder_without_weights_costs_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    (tmp_path / "file.h5").write_text("x")
    for name, says in (
        ("nowhere", "does not exist"),
        ("empty", "holds no weights"),
        ("old", "of an older version"),
        ("file.h5", "neither a weights folder nor a .keras file"),
    ):
        assert eval_genresult.main(["--load_weight_dir", str(tmp_path / name)]) == 2
        assert says in last_line(capsys.readouterr().err)


def test_a_save_that_vanishes_while_it_is_looked_for_is_looked_for_again(
    copy, tmp_path, monkeypatch
):
    """The run finishes between the listing of its saves and the opening of one."""
    expected = arrays_of(copy)
    places = copy / weights.CHECKPOINTS
    places.mkdir()
    save = places / "step-000000012.keras"
    os.rename(copy / weights.FINISHED, save)
    opened = []
    open_regular = weights.files.open_regular

    def slow(path):
        if not opened:
            os.rename(save, copy / weights.FINISHED)
        opened.append(path)
        return open_regular(path)

    monkeypatch.setattr(weights.files, "open_regular", slow)
    for value, other in zip(arrays_of(copy), expected, strict=True):
        np.testing.assert_array_equal(value, other)
    assert len(opened) == 2


def test_saves_to_be_resumed_hold_exactly_their_arrays(trained):
    with pytest.raises(UserError, match=r"training\.npz"):
        weights.read(str(trained), training_like={"step": np.int64(0)})


KERAS_ALONE = """
import sys
import keras, numpy as np
vae = keras.saving.load_model("vae.keras")
images = np.load("images.npy")
q = vae(images)
decoder = vae.get_layer("decoder")
logits = decoder(np.load("z.npy"))
found = {name: keras.ops.convert_to_numpy(value) for name, value in q.items()}
np.savez("found.npz", drawn=keras.ops.convert_to_numpy(logits), **found)
assert ("tensorflow" in sys.modules) == (keras.backend.backend() == "tensorflow")
assert not {"model", "support", "data"} & set(sys.modules)
"""


@pytest.mark.parametrize("backend", [pytest.param("tensorflow", marks=pytest.mark.slow), "numpy"])
def test_keras_loads_the_file_elsewhere(trained, tmp_path, backend):
    """In an empty folder, without this repository: the numbers of the repository's own code."""
    shutil.copy(trained / weights.FINISHED, tmp_path)
    random = np.random.default_rng(0)
    images = random.random((7, 784), np.float32)
    z = random.normal(size=(7, 4)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "z.npy", z)
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    environment["KERAS_BACKEND"] = backend
    elsewhere(KERAS_ALONE, tmp_path, environment)
    vae, _ = weights.load(str(trained))
    mu, log_var = vae.encode(images)
    expected = {"mu": mu, "log_var": log_var, "logits": vae.decode(mu), "drawn": vae.decode(z)}
    with np.load(tmp_path / "found.npz") as found:
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


def elsewhere(code, folder, environment):
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("backend", ["tensorflow", "numpy"])
def test_the_readmes_lines_that_take_the_weights_run(tmp_path, backend):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        code = re.search(r"## Take the weights.*?```python\n(.*?)```", file.read(), re.DOTALL)[1]
    os.mkdir(tmp_path / "better_weight")
    shutil.copy(os.path.join(ROOT, "better_weight", weights.FINISHED), tmp_path / "better_weight")
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    environment["KERAS_BACKEND"] = backend
    printed = elsewhere(code, tmp_path, environment)
    assert "(10, 128)" in printed and "(10, 784)" in printed
