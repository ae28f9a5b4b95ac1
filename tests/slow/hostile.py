"""Randomly (from a seed) damages every kind of file that is read, and checks how readers react.

    python -m tests.slow.hostile --mutants 500     # some minutes

Each mutant is cut, flipped, overwritten, swapped or made larger. A reader must either return the
exact content of the undamaged file or raise a `UserError`: it must never return other content,
raise another exception, take more than 20 seconds, or use more than 200 MB beyond the file's size.
For two kinds, damage cannot always be detected. Plain IDX files have no checksum, but the hash of
their data set must differ. `weights zip` and `save zip` are sound zips with one mutated member:
their numbers may differ, but must be finite and have the same shapes. Prints a line per kind; the
exit code is 1 if a mutant failed.
"""

import argparse
import gzip
import io
import pathlib
import random
import resource
import sys
import tempfile
import time
import traceback
import zipfile

import numpy as np

import data
from support.display import summaries
from support.errors import UserError
from support.storage import weights, weights_file
from tests.helpers import interrupted, train
from tests.slow.fuzz import IDX_FILES

SLOWEST_SECONDS = 20
MEMORY_LIMIT = 200 * 2**20
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
KINDS = ("weights", "save", "owner", "npz", "idx", "gz", "weights zip", "save zip", "directory zip")


def main(argv=None):
    """Tries every kind; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=500, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        failed = sum(tried(pathlib.Path(work), kind, args.mutants, args.seed) for kind in KINDS)
    return 1 if failed else 0


def tried(work, kind, mutants, seed):
    """Reads mutants of one kind; prints a line and returns how many failed."""
    path, read = originals(work / kind.replace(" ", "-"), kind)
    whole, expected = path.read_bytes(), read()
    draw = random.Random(f"{kind} {seed}")
    counts = {"as before": 0, "other, and valid": 0, "refused": 0, "failed": 0}
    for number in range(mutants):
        path.write_bytes(mutated(whole, kind, draw))
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            found = read()
            end = "as before" if same(found, expected) else "failed"
            if end == "failed" and honest(kind, found, expected):
                end = "other, and valid"
            complaint = "other contents"
        except UserError:
            end = "refused"
        except BaseException:
            end, complaint = "failed", traceback.format_exc()
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        if time.monotonic() - started > SLOWEST_SECONDS or grown > MEMORY_LIMIT:
            end, complaint = "failed", f"too slow, or {grown >> 20} MiB more"
        counts[end] += 1
        if end == "failed":
            print(f"{kind} mutant {number}: {complaint}")
    print(f"{kind}: {mutants} mutants, {counts}", flush=True)
    return counts["failed"]


def originals(folder, kind):
    """Writes an undamaged file of a kind below `folder`.

    Returns:
        Its path, and a function that reads it as the scripts do.
    """
    folder.mkdir(parents=True)
    if kind in ("npz", "idx", "gz"):
        return data_files(folder, kind)
    if kind == "owner":
        summaries.claim(str(folder), "0123abcd")
        path = folder / summaries.OWNER
        return path, lambda: summaries.require_free(str(folder), "0123abcd", False)
    if kind.startswith("save"):
        with interrupted(steps=12, steps_per_call=12):
            assert train(folder, "--epoch", "2") == 143
        path = pathlib.Path(weights_file.save_path(str(folder / "weights"), 12))
        with zipfile.ZipFile(path) as archive:
            like = dict(np.load(io.BytesIO(archive.read(weights_file.TRAINING))))
        return path, lambda: weights.read(str(path), training_like=like)
    assert train(folder, "--epoch", "1") == 0
    path = folder / "weights" / weights_file.FINISHED
    return path, lambda: weights.read(str(path))


def data_files(folder, kind):
    """As `originals`, for small data sets in MNIST's formats."""
    images = np.random.default_rng(0).integers(0, 256, (132, 28, 28)).astype(np.uint8)
    labels = np.arange(132, dtype=np.uint8) % 10
    arrays = images[:110], labels[:110], images[110:], labels[110:]
    if kind == "npz":
        path = folder / "mnist.npz"
        np.savez_compressed(path, **dict(zip(NPZ_KEYS, arrays, strict=True)))
    else:
        for name, array in zip(IDX_FILES, arrays, strict=True):
            content = np.array([2048 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()
            path = folder / (name + ".gz" * (kind == "gz"))
            path.write_bytes(gzip.compress(content) if kind == "gz" else content)
        path = folder / (IDX_FILES[0] + ".gz" * (kind == "gz"))
    return path, lambda: data.load("auto", str(folder))


def mutated(whole, kind, draw):
    """Returns damaged contents."""
    if kind == "directory zip":
        content = bytearray(whole)
        start = whole.rindex(b"PK\x01\x02", 0, whole.index(b"PK\x01\x02") + 4)
        for _ in range(draw.choice((1, 1, 2, 8))):
            content[draw.randrange(start, len(content))] ^= 1 << draw.randrange(8)
        return bytes(content)
    if kind.endswith(" zip"):
        return sound_zip(whole, draw)
    return damaged(whole, draw)


def damaged(content, draw):
    """Returns contents that were cut, flipped, overwritten, emptied or made larger."""
    content = bytearray(content)
    how = draw.choice(("cut", "flip", "flip", "flip", "overwrite", "empty", "larger"))
    if how == "cut":
        return bytes(content[: draw.randrange(len(content))])
    if how == "flip":
        for _ in range(draw.choice((1, 1, 1, 8))):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif how == "overwrite":
        at = draw.randrange(len(content))
        content[at : at + 64] = draw.randbytes(len(content[at : at + 64]))
    elif how == "empty":
        content = b""
    else:
        content += draw.randbytes(draw.choice((1, 1000, 3_000_000)))
    return bytes(content)


def sound_zip(whole, draw):
    """Returns a zip with correct CRCs in which one member is mutated, doubled or missing."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = draw.randrange(len(members))
    name, content = members[at]
    how = draw.choice(("damage", "damage", "damage", "gone", "double", "compress", "swap"))
    method = zipfile.ZIP_STORED
    if how == "damage":
        members[at] = (name, damaged(content, draw))
    elif how == "gone":
        del members[at]
    elif how == "double":
        members.append((name, damaged(content, draw)))
    elif how == "compress":
        method = draw.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    else:
        members[at] = (name, draw.choice(members)[1])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def same(found, expected):
    """Whether two results hold the same arrays and values."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in found)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, np.ndarray):
        return np.array_equal(found, expected)
    return found == expected


def honest(kind, found, expected):
    """Whether other content than before is allowed for a kind, as the module's docstring says."""
    if kind == "idx":
        return found.sha256 != expected.sha256
    if kind not in ("weights zip", "save zip"):
        return False
    arrays, before = ([*one.encoder, *one.decoder] for one in (found, expected))
    return all(
        one.shape == other.shape and np.isfinite(one).all()
        for one, other in zip(arrays, before, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
