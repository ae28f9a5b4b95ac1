"""support/storage/validation.py: what is refused in damaged or hostile files, and the messages."""

import io
import json
import os
import zipfile

import h5py
import numpy as np
import pytest

from support.errors import UserError
from support.storage import validation, weights, weights_file


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, members, method=zipfile.ZIP_STORED):
    """Writes a sound zip with other members, given as (name, content) pairs, also repeated ones."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)


def with_run(path, **changes):
    members = members_of(path)
    run = json.loads(members[weights_file.RUN]) | changes
    rewrite(path, (members | {weights_file.RUN: json.dumps(run)}).items())


def without_key(key):
    def change(path):
        members = members_of(path)
        run = json.loads(members[weights_file.RUN])
        del run[key]
        rewrite(path, (members | {weights_file.RUN: json.dumps(run)}).items())

    return change


def with_h5(path, change):
    """Applies `change(file, dataset path)` to the HDF5 member; the zip stays sound."""
    members = members_of(path)
    content = io.BytesIO(members[weights_file.WEIGHTS])
    with h5py.File(content, "r+") as file:
        change(file, "layers/functional_1/layers/dense/vars/0")
    rewrite(path, (members | {weights_file.WEIGHTS: content.getvalue()}).items())


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


def dataset_for_group(file, path):
    """Puts an array where there should be a group of arrays."""
    group = path.rpartition("/")[0]
    del file[group]
    file[group] = np.zeros(3, np.float32)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def without(name):
    return lambda p: rewrite(p, ((n, c) for n, c in members_of(p).items() if n != name))


def huge(file, path):
    """Puts 3.6 GB of zeros into a small file."""
    del file[path]
    file.create_dataset(path, (30_000, 30_000), "<f4", chunks=(1000, 1000), compression="gzip")


def one_more(name, content=b""):
    return lambda path: rewrite(path, [*members_of(path).items(), (name, content)])


def one_more_that_is_listed(path):
    members = members_of(path)
    run = json.loads(members[weights_file.RUN])
    run["members"].append("x")
    rewrite(path, (members | {weights_file.RUN: json.dumps(run), "x": b""}).items())


def with_prior_of_another_z(path):
    members = members_of(path)
    content = io.BytesIO(members[weights_file.PRIOR])
    arrays = dict(np.load(content))
    arrays["active"] = arrays["active"] + 4
    changed = io.BytesIO()
    np.savez(changed, **arrays)
    rewrite(path, (members | {weights_file.PRIOR: changed.getvalue()}).items())


def with_large(name):
    """A member that is large, and a hole on disk: read whole, it would take its memory."""

    def change(path):
        members = members_of(path)
        members[name] = bytes(120_000_000)
        rewrite(path, members.items())

    return change


WIDE = {"hidden_units": [8192] * 16, "latent_dim": 8192, "activation": "silu"}
DAMAGE = {
    "bit": (flip, "damaged"),
    "truncated": (lambda p: os.truncate(p, 5000), "damaged"),
    "a byte more": (lambda p: p.write_bytes(p.read_bytes() + b"x"), "bytes behind its end"),
    "empty": (lambda p: os.truncate(p, 0), "damaged"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "not a regular file"),
    "a pipe": (lambda p: (p.unlink(), os.mkfifo(p)), "not a regular file"),
    "a loop": (lambda p: (p.unlink(), p.symlink_to(p)), "holds no weights"),
    "no run.json": (without(weights_file.RUN), "was saved by Keras, without the run.json"),
    "neither": (lambda p: rewrite(p, [("x", b"")]), "run.json"),
    "no weights": (without(weights_file.WEIGHTS), "it holds"),
    "one more": (one_more("x"), "it holds"),
    "one more that is listed": (one_more_that_is_listed, "it holds"),
    "twice": (one_more(weights_file.WEIGHTS), "it holds"),
    "a prior too many": (one_more(weights_file.TRAINING), "it holds"),
    "compressed": (lambda p: rewrite(p, members_of(p).items(), zipfile.ZIP_LZMA), "compressed"),
    "format": (lambda p: with_run(p, format=2), "has format 2, and this version reads format 1"),
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
    "no object": (
        lambda p: rewrite(p, (members_of(p) | {weights_file.RUN: b"[]"}).items()),
        "object",
    ),
    "nested": (
        lambda p: rewrite(p, (members_of(p) | {weights_file.RUN: b"[" * 10**5}).items()),
        "run.json is damaged",
    ),
    "no list of members": (without_key("members"), "damaged"),
    "no format": (without_key("format"), "damaged"),
    "members that are no list": (lambda p: with_run(p, members=5), "damaged"),
    "an empty posterior": (lambda p: with_run(p, posterior={}), "damaged"),
    "no reason for no prior": (lambda p: with_run(p, prior=5), "damaged"),
    "a reason that rings": (lambda p: with_run(p, prior={"why": "\a"}), "unexpected prior"),
    "posterior": (
        lambda p: with_run(p, posterior={"mu_mean": [1e300], "mu_std": [0], "KLD": [0]}),
        "unexpected posterior",
    ),
    "step": (lambda p: with_run(p, step=10**12), "unexpected step"),
    "other shape": (replaced(data=lambda v: v[1:]), "expected the shape (4, 16)"),
    "transposed": (replaced(data=lambda v: v.T.copy()), "expected the shape (4, 16)"),
    "whole numbers": (replaced(data=lambda v: v.astype(np.int8)), "expected little-endian float32"),
    "other bytes": (replaced(data=lambda v: v.astype(">f4")), "expected little-endian float32"),
    "gzipped": (replaced(compression="gzip"), "not stored contiguously"),
    "not finite": (replaced(data=lambda v: v * np.nan), "not finite"),
    "infinite": (replaced(data=lambda v: v + np.inf), "not finite"),
    "a prior beyond all need": (with_large(weights_file.PRIOR), "prior.npz has 120,000,000 bytes"),
    "a large configuration": (with_large("config.json"), "config.json has 120,000,000 bytes"),
    "soft link": (lambda p: with_h5(p, soft_link), "vars/0 is missing"),
    "virtual": (lambda p: with_h5(p, virtual), "not stored contiguously"),
    "external": (lambda p: with_h5(p, external), "are not an array of shape (4, 16)"),
    "an array for a group": (lambda p: with_h5(p, dataset_for_group), "vars/0 is missing"),
    "huge": (lambda p: with_h5(p, huge), "(30000, 30000)"),
}


@pytest.mark.parametrize("damage, says", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_refused_with_its_name(copy, damage, says):
    """Also if only a part of it is read: the damaged array is in the decoder."""
    damage(copy / weights_file.FINISHED)
    for parts in (("encoder", "decoder"), ("decoder",)):
        with pytest.raises(UserError) as error:
            weights.read(str(copy), parts)
        assert says in str(error.value) and str(copy) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_fitted_prior_of_another_z_is_refused(copy):
    with_prior_of_another_z(copy / weights_file.FINISHED)
    with pytest.raises(UserError, match=r"prior.npz is damaged .*out of order or range"):
        weights.read(str(copy))
    # To read only the record, the prior is not needed.
    assert weights.read_record(str(copy)).finished


@pytest.mark.parametrize("place", ["encoder", "decoder"])
def test_only_the_parts_that_are_asked_for_are_read(trained, place):
    path = str(trained / weights_file.FINISHED)
    found = validation.read(path, parts=(place,))
    assert [getattr(found, part) is not None for part in weights_file.PARTS] == [
        part == place for part in weights_file.PARTS
    ]
    assert found.prior is not None and found.training is None
    record = validation.read_record(path)
    assert record == found.record and record.finished


def test_a_save_holds_exactly_the_arrays_that_continue_a_run(trained):
    with pytest.raises(UserError, match=r"training\.npz"):
        weights.read(str(trained), training_like={"step": np.int64(0)})


@pytest.mark.parametrize(
    "like",
    [
        {"a": np.zeros(3)},
        {"a": np.zeros(2, np.float32), "b": np.int64(0)},
        {"a": np.zeros(2), "b": np.zeros(1, np.int64)},
        {"a": np.zeros(2), "b": np.int64(0), "c": np.zeros(1)},
    ],
)
def test_arrays_of_another_shape_type_or_name_continue_no_run(copy, like):
    path = copy / weights_file.FINISHED
    with_training(path, {"a": np.array([0.5, 1.5]), "b": np.int64(7)})
    good = {"a": np.zeros(2), "b": np.int64(0)}
    found = validation.read(str(path), training_like=good).training
    assert found["a"].tolist() == [0.5, 1.5] and int(found["b"]) == 7
    with pytest.raises(UserError, match=r"training\.npz"):
        validation.read(str(path), training_like=like)


def test_numbers_that_are_not_finite_continue_no_run(copy):
    path = copy / weights_file.FINISHED
    with_training(path, {"a": np.array([0.5, np.nan])})
    with pytest.raises(UserError, match="a holds numbers that are not finite"):
        validation.read(str(path), training_like={"a": np.zeros(2)})


def with_training(path, arrays):
    """Adds training arrays to a finished file, as in a save."""
    members = members_of(path)
    content = io.BytesIO()
    np.savez(content, **arrays)
    run = json.loads(members[weights_file.RUN])
    run["members"].append(weights_file.TRAINING)
    changes = {weights_file.RUN: json.dumps(run), weights_file.TRAINING: content.getvalue()}
    rewrite(path, (members | changes).items())
