"""Downloads data sets by name, with mirrors and hash checks, and caches them where Keras does.

    found = download.fetch("mnist")
    found.listing.entries                # the files in memory, as `formats.read_entries` takes them

A file is used only if it is complete and has the expected hash. A mirror that does not answer, is
too slow, or sends something else is given up, and the next one is tried.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import pathlib
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from support import files
from support.datasets.entries import Listing, in_memory
from support.errors import UserError
from support.text import printable

if TYPE_CHECKING:
    from rich import progress

# How long to wait for the first answers of all mirrors together; and the period in which at least
# LEAST_BYTES of a file must arrive.
SECONDS = 15
# 2 kB per second.
LEAST_BYTES = 30_000
MOST_BYTES = 100_000_000
PIECE_BYTES = 1 << 16
IDX = ("train-images", "train-labels", "t10k-images", "t10k-labels")
HINT = (
    "to use files that you already have, give --data_dir PATH (mnist.npz, the four IDX files, or "
    "another format)"
)


class Mirror(NamedTuple):
    """A server that has the files of a data set.

    Attributes:
        url: the folder on the server.
        folder: the folder in the cache, below `datasets`.
        hashes: name of a file -> its SHA-256 or MD5, hexadecimal.
    """

    url: str
    folder: str
    hashes: dict[str, str]


class Download(NamedTuple):
    """The files of a data set in memory, and notices if they could not be cached."""

    listing: Listing
    notices: tuple[str, ...]


def _idx(url: str, folder: str, *md5s: str) -> Mirror:
    """Returns a `Mirror` of the four IDX files, whose MD5 sums are in torchvision's source."""
    names = [f"{name}-idx{1 if 'labels' in name else 3}-ubyte.gz" for name in IDX]
    return Mirror(url, folder, dict(zip(names, md5s, strict=True)))


_KERAS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_MNIST_NPZ = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
_MNIST = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
_FASHION = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
_KMNIST = (
    "bdb82020997e1d708af4cf47b453dcf7",
    "e144d726b3acfaa3e44228e80efcd344",
    "5c965bf0a639b31b8f53240b1b52f4d7",
    "7320c461ea6c1c855c0b718fb2a4b134",
)
_ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
MIRRORS = {
    "mnist": (
        Mirror(_KERAS, "", {"mnist.npz": _MNIST_NPZ}),
        _idx("https://ossci-datasets.s3.amazonaws.com/mnist/", "mnist", *_MNIST),
    ),
    "fashion_mnist": (
        _idx(_KERAS, "fashion-mnist", *_FASHION),
        _idx(_ZALANDO, "fashion-mnist", *_FASHION),
    ),
    "kmnist": (_idx("http://codh.rois.ac.jp/kmnist/dataset/kmnist/", "kmnist", *_KMNIST),),
}


def fetch(dataset: str) -> Download:
    """Returns the files of a data set, from the cache or downloaded.

    Args:
        dataset: a name in `MIRRORS`.

    Raises:
        UserError: no mirror could provide it.
    """
    mirrors = MIRRORS[dataset]
    for mirror in mirrors:
        contents = {name: _cached(mirror, name) for name in mirror.hashes}
        if all(content is not None for content in contents.values()):
            return _in_memory(contents, [])
    reasons = []
    for mirror in mirrors:
        try:
            return _from_mirror(mirror, SECONDS / len(mirrors))
        except (OSError, ValueError, http.client.HTTPException) as error:
            host = mirror.url.split("/")[2]
            reasons.append(f"{host}: {_reason(error)}")
    raise UserError(f"the download of {dataset} failed ({'; '.join(reasons)}): {HINT}")


def _from_mirror(mirror: Mirror, seconds: float) -> Download:
    """Returns the files of one mirror, from the cache or downloaded."""
    contents: dict[str, bytes | None] = {}
    notices: list[str] = []
    for name, digest in mirror.hashes.items():
        content = _cached(mirror, name)
        if content is None:
            content = _download(mirror.url + name, seconds)
            if not _has_hash(content, digest):
                raise ValueError(f"{name} has the wrong hash ({len(content):,} bytes)")
            notice = _keep(mirror, name, content)
            if notice and not notices:
                notices.append(notice)
        contents[name] = content
    return _in_memory(contents, notices)


def _in_memory(contents: dict[str, bytes | None], notices: list[str]) -> Download:
    found = [in_memory(name, content) for name, content in contents.items() if content is not None]
    return Download(Listing(found, []), tuple(notices))


def _reason(error: BaseException) -> str:
    """Returns in a few words why a download failed."""
    reason = getattr(error, "reason", None) or error
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return printable(text)


def _cache_path(mirror: Mirror, name: str) -> str | None:
    """Returns where a file is cached; None if there is no home folder."""
    home = os.path.expanduser("~")
    keras = os.environ.get("KERAS_HOME")
    if not keras:
        if not os.path.isabs(home):
            return None
        keras = os.path.join(home, ".keras")
    return os.path.join(os.path.abspath(os.path.expanduser(keras)), "datasets", mirror.folder, name)


def _cached(mirror: Mirror, name: str) -> bytes | None:
    """Returns a file from the cache if it has the expected hash; else None."""
    path = _cache_path(mirror, name)
    if path is None:
        return None
    try:
        with files.open_regular(path) as file:
            content = file.read(MOST_BYTES)
    except (OSError, UserError):
        return None
    if _has_hash(content, mirror.hashes[name]):
        return content
    return None


def _keep(mirror: Mirror, name: str, content: bytes) -> str:
    """Writes a file to the cache.

    Returns:
        Why it cannot be cached; empty if it was.
    """
    path = _cache_path(mirror, name)
    if path is None:
        return (
            "the download was used but not kept: there is no home folder to cache it in; set "
            "KERAS_HOME to use another folder"
        )
    try:
        files.make_folder(os.path.dirname(path))
        files.write_whole(path, lambda written: pathlib.Path(written).write_bytes(content))
    except (OSError, UserError) as error:
        folder = printable(os.path.dirname(path))
        reason = getattr(error, "strerror", None) or printable(str(error))
        return (
            f"the download was used but not kept: {folder} cannot be written ({reason}); "
            "set KERAS_HOME to use another folder"
        )
    return ""


def _has_hash(content: bytes, digest: str) -> bool:
    """Whether a file's content has this SHA-256 or MD5."""
    kind = "md5" if len(digest) == 32 else "sha256"
    return hashlib.new(kind, content, usedforsecurity=False).hexdigest() == digest


class _Transfer:
    """A download in a thread that can be abandoned, since a DNS lookup cannot be interrupted."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received = 0
        self.length: int | None = None
        self.answered = threading.Event()
        self.finished = threading.Event()
        self.content = b""
        self.error: BaseException | None = None
        self.abandoned = False

    def run(self) -> None:
        try:
            # `_wait_for` gives up after half this time, with a better message.
            timeout, context = 2 * SECONDS, _context()
            with urllib.request.urlopen(self.url, timeout=timeout, context=context) as response:
                self.length = response.length
                self.answered.set()
                self.content = self._all_of(response.read1)
        except Exception as error:
            self.error = error
        finally:
            self.answered.set()
            self.finished.set()

    def _all_of(self, read: Callable[[int], bytes]) -> bytes:
        content = bytearray()
        while not self.abandoned:
            piece = read(PIECE_BYTES)
            content += piece
            self.received = len(content)
            if not piece:
                break
            if len(content) > MOST_BYTES:
                raise ValueError(f"it sent more than {MOST_BYTES:,} bytes")
        return bytes(content)


def _download(url: str, seconds: float) -> bytes:
    """Downloads one file into memory.

    Args:
        url: the address of the file.
        seconds: how long to wait for the first answer.

    Raises:
        OSError: the server cannot be reached, does not answer, or is too slow.
        ValueError, http.client.HTTPException: the answer is not a file.
    """
    transfer = _Transfer(url)
    threading.Thread(target=transfer.run, daemon=True).start()
    try:
        if not transfer.answered.wait(seconds):
            raise TimeoutError(f"no answer within {seconds:g} seconds")
        if transfer.error is None:
            print(f"Downloading {url}", file=sys.stderr)
            _wait_for(transfer)
    finally:
        transfer.abandoned = True
    if transfer.error is not None:
        raise transfer.error
    return transfer.content


def _wait_for(transfer: _Transfer) -> None:
    """Waits until a transfer has ended.

    Raises:
        TimeoutError: fewer than `LEAST_BYTES` arrived within `SECONDS`.
    """
    since, before = time.monotonic(), 0
    with _Bar(transfer) as bar:
        while not transfer.finished.wait(0.1):
            bar.update()
            if transfer.received >= before + LEAST_BYTES:
                since, before = time.monotonic(), transfer.received
            elif time.monotonic() - since > SECONDS:
                came = transfer.received - before
                raise TimeoutError(f"too slow, {came:,} bytes in {SECONDS:g} seconds")


class _Bar:
    """A progress bar for a transfer, shown only on a terminal."""

    def __init__(self, transfer: _Transfer) -> None:
        self.transfer = transfer
        self.bar: progress.Progress | None = None

    def __enter__(self) -> _Bar:
        if self.transfer.length and sys.stderr.isatty():
            from rich import console, progress

            columns = (progress.BarColumn(), progress.DownloadColumn())
            screen = console.Console(stderr=True)
            self.bar = progress.Progress(*columns, console=screen, transient=True)
            self.bar.start()
            self.task = self.bar.add_task("", total=self.transfer.length)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=self.transfer.received)


def _context() -> ssl.SSLContext:
    """Returns settings with Python's own certificates, or with certifi's if Python has none.

    On macOS, Python has none until the last step of its installer has been run.
    """
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath or context.cert_store_stats()["x509_ca"]:
        return context
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context
