"""Data sets by name from the network: cached where Keras caches them, hash-checked, with mirrors.

    path = download.fetch("mnist")       # a file or a folder, as data.py reads them

Every file comes whole or not at all; a mirror that does not answer, or that sends something else,
gives way to the next.
"""

import contextlib
import hashlib
import http.client
import os
import pathlib
import sys
import threading
import urllib.request
from typing import NamedTuple

from support import UserError, files

# Of waiting for all mirrors' first answers; and of silence in the middle of a file.
SECONDS = 15
MOST_BYTES = 100_000_000
IDX = ("train-images", "train-labels", "t10k-images", "t10k-labels")


class Mirror(NamedTuple):
    """Where the files of a data set are, in which folder of the cache they go, and their hashes: a
    dict of name -> hexadecimal SHA-256 or MD5."""

    url: str
    folder: str
    hashes: dict


def _idx(url, folder, *md5s):
    """A `Mirror` of the four IDX files, whose MD5 sums torchvision's source gives."""
    names = [f"{name}-idx{1 if 'labels' in name else 3}-ubyte.gz" for name in IDX]
    return Mirror(url, folder, dict(zip(names, md5s, strict=True)))


_KERAS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_MNIST_NPZ = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
_MNIST = ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432")
_MNIST += ("9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c")
_FASHION = ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe")
_FASHION += ("bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310")
_KMNIST = ("bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344")
_KMNIST += ("5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134")
_ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
MIRRORS = {
    "mnist": (
        Mirror(_KERAS, "", {"mnist.npz": _MNIST_NPZ}),
        _idx("https://ossci-datasets.s3.amazonaws.com/mnist/", "mnist", *_MNIST),
    ),
    "fashion_mnist": tuple(_idx(url, "fashion-mnist", *_FASHION) for url in (_KERAS, _ZALANDO)),
    "kmnist": (_idx("http://codh.rois.ac.jp/kmnist/dataset/kmnist/", "kmnist", *_KMNIST),),
}


def fetch(dataset):
    """Returns the path of the cached file or folder of a data set, fetched if need be.

    Args:
        dataset: a name in `MIRRORS`.

    Raises:
        UserError: it cannot be had.
    """
    mirrors, reasons = MIRRORS[dataset], []
    for mirror in mirrors:
        if all(_cached(mirror, name) for name in mirror.hashes):
            return _place(mirror)
    for mirror in mirrors:
        try:
            for name in mirror.hashes:
                if not _cached(mirror, name):
                    _download(mirror, name, SECONDS / len(mirrors))
            return _place(mirror)
        except (OSError, ValueError, http.client.HTTPException) as error:
            host = mirror.url.split("/")[2]
            reason = getattr(error, "reason", None) or error
            reasons.append(f"{host}: {getattr(reason, 'strerror', None) or reason}")
    raise UserError(f"the download of {dataset} failed ({'; '.join(reasons)})")


def _place(mirror, name=None):
    """Where a file is cached, or without its name what `fetch` returns."""
    home = os.environ.get("KERAS_HOME", os.path.join(os.path.expanduser("~"), ".keras"))
    if name is None and len(mirror.hashes) == 1:
        name = next(iter(mirror.hashes))
    return os.path.join(home, "datasets", mirror.folder, name or "")


def _cached(mirror, name):
    """Whether a file is in the cache, with its hash."""
    with contextlib.suppress(OSError):
        return _fits(pathlib.Path(_place(mirror, name)).read_bytes(), mirror.hashes[name])


def _fits(content, digest):
    """Whether bytes have this SHA-256 or MD5."""
    kind = "md5" if len(digest) == 32 else "sha256"
    return hashlib.new(kind, content).hexdigest() == digest


def _download(mirror, name, seconds):
    """Fetches one file into the cache.

    Raises:
        OSError: the network or the disk does not do it.
        ValueError: what comes has another hash.
    """
    with _answer(mirror.url + name, seconds) as response:
        print(f"Downloading {mirror.url}{name}", file=sys.stderr)
        with _with_bar(response) as content:
            found = content.read(MOST_BYTES)
    if not _fits(found, mirror.hashes[name]):
        raise ValueError(f"{name} came with another hash, {len(found):,} bytes")
    path = os.path.abspath(_place(mirror, name))
    files.make_folder(os.path.dirname(path))
    files.write_whole(path, lambda written: pathlib.Path(written).write_bytes(found))


def _answer(url, seconds):
    """Opens a URL on a thread that can be left behind: looking a name up has no end of its own."""
    answer = {}

    def ask():
        try:
            answer["response"] = urllib.request.urlopen(url, timeout=SECONDS)
        except (OSError, ValueError, http.client.HTTPException) as error:
            answer["error"] = error

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if "response" not in answer:
        raise answer.get("error") or TimeoutError(f"no answer within {seconds:g} seconds")
    return answer["response"]


def _with_bar(response):
    """The same response to read from, with a bar on a terminal."""
    length = response.length
    if not length or not sys.stderr.isatty():
        return contextlib.nullcontext(response)
    from rich import console, progress

    screen = console.Console(stderr=True)
    return progress.wrap_file(response, length, description="", console=screen, transient=True)
