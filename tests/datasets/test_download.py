"""Downloads: mirrors that fail, the cache, certificates, and messages."""

import contextlib
import errno
import hashlib
import http.server
import os
import socket
import ssl
import threading
import time

import pytest

import data
from support import files
from support.datasets import download
from support.errors import UserError

CONTENT = b"what the data set is"
FAULTS = {
    "404": "Not Found",
    "503": "Service Unavailable",
    "truncated": "has the wrong hash",
    "other": "has the wrong hash",
    "garbage": "no protocol",
    "silent": "no answer within 1 seconds",
    "stalls": "too slow, 5 bytes in 2 seconds",
    "drips": "too slow",
}


@pytest.fixture
def mirrors(tmp_path, monkeypatch):  # noqa: C901, a server in few lines
    """A function that makes folders of a local server, given by name, the mirrors of MNIST.

    Each folder fails in the way of `FAULTS` that it is named after; the folder `good` does not.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            fault = self.path.removeprefix("http://mirror.invalid").split("/")[1]
            if fault == "silent":
                return asked.wait(5)
            if fault == "garbage":
                return self.wfile.write(b"no protocol\r\n")
            if fault in ("404", "503"):
                return self.send_error(int(fault))
            self.send_response(200)
            self.send_header("Content-Length", len(CONTENT))
            self.end_headers()
            sent = {"other": CONTENT[::-1], "truncated": CONTENT[:5], "stalls": CONTENT[:5]}
            if fault == "drips":
                while not asked.wait(0.2):
                    self.wfile.write(b"x")
                return None
            self.wfile.write(sent.get(fault, CONTENT))
            if fault == "stalls":
                asked.wait(5)

        def log_message(self, *_):
            pass

        def handle(self):
            with contextlib.suppress(OSError):  # the client is gone
                super().handle()

    def set_to(*names):
        url = f"http://127.0.0.1:{server.server_port}"
        hashes = {"set.npz": hashlib.sha256(CONTENT).hexdigest()}
        found = tuple(download.Mirror(f"{url}/{name}/", "", hashes) for name in names)
        monkeypatch.setitem(download.MIRRORS, "mnist", found)
        return requests

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    # A longer wait, since machines that run tests are busy.
    monkeypatch.setattr(download, "SECONDS", 20)
    requests = []
    asked = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield set_to
        asked.set()
        server.shutdown()


def content_of(found):
    entry = found.listing.entries[0]
    assert entry.name == "set.npz"
    with entry.open() as file:
        return file.read()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mirror_that_fails_gives_way_to_the_next(mirrors, tmp_path, monkeypatch, fault):
    if fault in ("silent", "stalls", "drips"):
        monkeypatch.setattr(download, "SECONDS", 2)
    mirrors(fault, "good")
    assert content_of(download.fetch("mnist")) == CONTENT
    path = tmp_path / "keras" / "datasets" / "set.npz"
    assert path.read_bytes() == CONTENT
    requests = mirrors(fault, fault)
    before = len(requests)
    assert content_of(download.fetch("mnist")) == CONTENT
    assert len(requests) == before, "from the cache"
    path.unlink()
    with pytest.raises(UserError) as error:
        download.fetch("mnist")
    assert str(error.value).count(FAULTS[fault]) == 2
    assert "give --data_dir PATH" in str(error.value)
    assert not os.listdir(path.parent)


def test_an_unanswering_network_is_given_up_on(mirrors, monkeypatch):
    """`auto` falls back to digits, and `mnist` gives a one-line error."""
    monkeypatch.setattr(download, "SECONDS", 1)
    mirrors("silent", "silent")
    started = time.monotonic()
    with pytest.raises(UserError):
        download.fetch("mnist")
    assert time.monotonic() - started < 3
    fallen_back = data.load("auto")
    assert fallen_back.name == "digits" and "no answer within" in fallen_back.fallback_reason
    with pytest.raises(UserError, match="use files that you already have, give --data_dir PATH"):
        data.load("mnist")


def test_a_name_that_is_not_found_in_time(monkeypatch):
    """A DNS lookup has no time limit of its own."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within"):
        download._download("http://nowhere.invalid/", 0.3)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_cannot_be_kept_is_used(mirrors, monkeypatch, number):
    mirrors("good")

    def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "write_whole", fails)
    found = download.fetch("mnist")
    assert content_of(found) == CONTENT
    assert len(found.notices) == 1
    assert "used but not kept" in found.notices[0] and os.strerror(number) in found.notices[0]


def test_a_cache_below_a_file(mirrors, tmp_path):
    mirrors("good")
    (tmp_path / "keras").write_text("a file where the folder would be")
    found = download.fetch("mnist")
    assert content_of(found) == CONTENT and "not kept" in found.notices[0]


def test_without_a_home(mirrors, monkeypatch, tmp_path):
    mirrors("good")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    found = download.fetch("mnist")
    assert content_of(found) == CONTENT and "no home folder" in found.notices[0]
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "folder", "other content"])
def test_what_stands_in_the_cache_instead(mirrors, tmp_path, kind):
    mirrors("good")
    path = tmp_path / "keras" / "datasets" / "set.npz"
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        with open(path, "wb") as file:
            file.truncate(10**12)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"something else")
    started = time.monotonic()
    assert content_of(download.fetch("mnist")) == CONTENT
    assert time.monotonic() - started < 10


def test_more_than_a_data_set(mirrors, monkeypatch):
    mirrors("good")
    monkeypatch.setattr(download, "MOST_BYTES", 10)
    with pytest.raises(UserError, match="it sent more than 10 bytes"):
        download.fetch("mnist")


def test_certificates_of_certifi_where_python_has_none(monkeypatch):
    certifi = pytest.importorskip("certifi")
    loaded = []
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda self, *args, **kwargs: loaded.append(args)
    )
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
    paths = ssl.get_default_verify_paths()
    monkeypatch.setattr(
        ssl, "get_default_verify_paths", lambda: paths._replace(cafile=None, capath=None)
    )
    context = download._context()
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    assert loaded == [(certifi.where(),)]
    loaded.clear()
    monkeypatch.setattr(
        ssl, "get_default_verify_paths", lambda: paths._replace(cafile="/etc/ssl/cert.pem")
    )
    download._context()
    assert loaded == []


def test_proxies_of_the_environment(mirrors, monkeypatch):
    requests = mirrors("good")
    url = download.MIRRORS["mnist"][0].url
    monkeypatch.setenv("http_proxy", url.removesuffix("/good/"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert download._download("http://mirror.invalid/good/set.npz", 5) == CONTENT
    assert requests[-1] == "http://mirror.invalid/good/set.npz"
