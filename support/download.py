"""Data sets by name from the network: cached, hash-checked, given up on in time.

    path = download.fetch("mnist")       # of a file in Keras's cache

Keras's own `get_file` downloads and caches; what it lacks is here: a look whether the network
answers at all, since name lookup has no timeout of its own.
"""

import hashlib
import os
import socket
import sys
import threading
import urllib.request
from typing import NamedTuple

from support import UserError, cli

SECONDS = 15


class Source(NamedTuple):
    """Where a file is, under which name it is cached, and the SHA-256 of its bytes."""

    url: str
    name: str
    sha256: str


SOURCES = {
    "mnist": Source(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        "mnist.npz",
        "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    )
}


def fetch(dataset):
    """Returns the path of the cached file of a data set, fetched if need be.

    Raises:
        UserError: it cannot be had.
    """
    source = SOURCES[dataset]
    home = os.environ.get("KERAS_HOME", os.path.join(os.path.expanduser("~"), ".keras"))
    cached = os.path.join(home, "datasets", source.name)
    if os.path.isfile(cached):
        with open(cached, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == source.sha256:
                return cached
    # On a thread that can be left behind.
    answer = {}
    attempt = threading.Thread(target=_probe, args=(source.url, answer), daemon=True)
    attempt.start()
    attempt.join(SECONDS)
    if "reached" not in answer:
        reason = answer.get("error", f"no answer within {SECONDS} seconds")
        raise UserError(f"the download of {source.name} failed ({reason})")
    # Without a look at the devices, which a strategy has to be the first to take.
    cli.quiet_tensorflow(lambda: None)
    import keras

    print(f"Downloading {source.name} ...", file=sys.stderr)
    default_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS)
    try:
        return keras.utils.get_file(source.name, source.url, file_hash=source.sha256)
    except Exception as error:  # get_file raises a bare Exception for every HTTP and URL error
        raise UserError(f"the download of {source.name} failed ({error})") from error
    finally:
        socket.setdefaulttimeout(default_timeout)


def _probe(url, answer):
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            response.read(1)
        answer["reached"] = True
    except (OSError, ValueError) as error:
        answer["error"] = getattr(error, "reason", error)
