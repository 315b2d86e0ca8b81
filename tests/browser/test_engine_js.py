"""The website's engine and its worker, compared with what the pad does in Python."""

import shutil
import urllib.request

import pytest
import torch
from browsing import WIDGETS, encoded, served
from helpers import HERE
from torch import nn

import utils
from course.checkpoints import get_trained
from course.widgets.pad import prepare, recognise, variations
from model import NETWORKS, Net
from website.networks import export


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page without content beside the engine's files, as `make site` places them."""
    folder = tmp_path_factory.mktemp("engine")
    for path in [*(HERE / "website" / "static").glob("*.js"), *WIDGETS.glob("*.js")]:
        shutil.copy(path, folder)
    (folder / "networks").mkdir()
    for Network in NETWORKS:
        export(get_trained(Network), folder / "networks")
    (folder / "index.html").write_text("<!doctype html>")
    with served(folder) as address:
        yield address


@pytest.fixture(scope="module")
def site(blank, address):
    blank.goto(address)
    return blank


@pytest.fixture(scope="module")
def engine(site):
    return site.evaluate_handle("import('./engine.js')")


def digits(count):
    images, _ = utils.shipped_digits()
    return images[:, : count // 10].flatten(0, 1)


RUN = """async (engine, [name, pictures]) => {
  const network = await engine.load(name, new URL("networks/", location.href));
  return pictures.map((picture) => Array.from(engine.run(network, picture)));
}"""


@pytest.mark.parametrize("Network", NETWORKS)
def test_networks_answer_as_in_pytorch(engine, Network):
    pictures = utils.Normalize()(digits(20))
    with torch.no_grad():
        expected = get_trained(Network).eval()(pictures)
    answers = engine.evaluate(RUN, [Network.__name__, pictures.flatten(1).tolist()])
    torch.testing.assert_close(torch.tensor(answers), expected, atol=1e-5, rtol=1e-5)


def test_a_network_that_ends_in_scores_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match="it must end in log-softmax"):
        export(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(1352, 10)), tmp_path)
    assert not list(tmp_path.iterdir())


def drawings(count):
    """Random drawings as the pad sends them: from a dot to a scribble, with soft edges."""
    generator = torch.Generator().manual_seed(0)

    def between(low, high):
        return low + (high - low) * torch.rand((), generator=generator).item()

    rows, columns = torch.meshgrid(torch.arange(140.0), torch.arange(140.0), indexing="ij")
    for _ in range(count):
        drawing = torch.zeros(140, 140)
        reach = between(1, 60)
        width = between(2, 9)
        y = between(0, 139)
        x = between(0, 139)
        for _ in range(int(between(1, 30))):
            distance = ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
            drawing = torch.maximum(drawing, 255 * (width - distance).clamp(0, 1))
            y = min(max(y + between(-reach, reach), 0), 139)
            x = min(max(x + between(-reach, reach), 0), 139)
        yield drawing.round().to(torch.uint8)


PREPARE = """async (engine, texts) => {
  const { fromBase64 } = await import("./look.js");
  return texts.map((text) => {
    const picture = engine.prepare(fromBase64(text), 140);
    return picture && Array.from(picture);
  });
}"""


def test_drawings_become_the_same_pictures_as_in_python(engine):
    halfway, empty = torch.zeros(2, 140, 140, dtype=torch.uint8)
    halfway[50:90, 60:65] = 255  # 5 of 40 wide: it becomes 2.5 of 20, which Python rounds to 2
    drawn = [*drawings(100), halfway, empty]
    pictures = engine.evaluate(PREPARE, [encoded(drawing)["base64"] for drawing in drawn])
    assert pictures.pop() is None
    for drawing, picture in zip(drawn, pictures):
        assert torch.equal(prepare(drawing), torch.tensor(picture, dtype=torch.uint8).view(28, 28))


def test_the_sixteen_views_are_the_same_as_in_python(engine):
    image = digits(10)[3]
    angles = variations(16)
    columns = [values.tolist() for values in angles.values()]
    views = [dict(zip(angles, values)) for values in zip(*columns)]
    code = (
        "(engine, [picture, views]) => views.map((view) => Array.from(engine.vary(picture, view)))"
    )
    found = engine.evaluate(code, [image.flatten().tolist(), views])
    varied = utils.warp(image.expand(16, 1, 28, 28).double() / 255, **angles, smooth=True)
    expected = ((varied - utils.MEAN) / utils.STD).flatten(1)
    torch.testing.assert_close(torch.tensor(found).double(), expected, atol=1e-5, rtol=0)


ASK = """([pixels, numbers]) => new Promise((resolve) => {
  const worker = new Worker("worker.js", { type: "module" });
  const replies = [];
  const isFor = (number) => replies.some(({ id }) => id === number);
  worker.onmessage = ({ data }) => {
    replies.push(data);
    // Once another task is done, no more replies to the last question will come.
    if (replies.at(-1).id === numbers.at(-1) && !isFor(0))
      worker.postMessage({ task: "fetch", network: "Net", id: 0 });
    if (isFor(0)) resolve(replies.slice(0, -1));
  };
  for (const id of numbers) {
    const drawing = Uint8Array.from(pixels);
    worker.postMessage({ task: "read", side: 140, drawing, network: "Net", id });
  }
})"""


def test_the_workers_last_answer_is_that_of_the_pad_in_jupyter(site):
    """A newer drawing ends the work on older ones; each may have had a first impression."""
    (drawing,) = drawings(1)
    replies = site.evaluate(ASK, [drawing.flatten().tolist(), [1, 2, 3]])
    numbers = [reply["id"] for reply in replies]
    assert numbers.count(1) <= 1 and numbers.count(2) <= 1 and numbers[-1] == 3
    found = torch.tensor([reply["probabilities"] for reply in replies])
    expected = recognise(get_trained(Net).eval(), prepare(drawing))
    torch.testing.assert_close(found[-1], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(found)), atol=1e-5, rtol=0)


def cut_off(right):
    return right[:-400]


def with_one_bit_flipped(right):
    return right[:1000] + bytes([right[1000] ^ 1]) + right[1001:]


LOAD = """(engine) => engine.load("NetGAP", new URL("networks/", location.href))
  .then(() => "", (error) => error.message)"""
HIDE = "Object.defineProperty(Crypto.prototype, 'subtle', { value: undefined })"


def test_other_weights_are_not_taken_for_a_networks(page, address):
    """Else the pad would read digits with them, and be wrong or unsure of all of them.

    Over http, browsers compute no hash: there, all but the flipped bit is noticed.
    """
    with urllib.request.urlopen(f"{address}networks/NetGAP.bin") as answer:
        right = answer.read()
    with urllib.request.urlopen(f"{address}networks/NetFC.bin") as answer:
        of_another = answer.read()
    wrong = [cut_off(right), of_another, b"<title>Sign in</title>", with_one_bit_flipped(right)]
    bodies = []
    page.route("**/NetGAP.bin", lambda route: route.fulfill(body=bodies[-1]))
    page.goto(address)
    engine = page.evaluate_handle("import('./engine.js')")
    refused = "NetGAP.bin does not hold the weights of NetGAP"

    def verdict_on(body):
        bodies.append(body)
        return engine.evaluate(LOAD)

    assert [verdict_on(body) for body in [*wrong, right]] == [refused] * 4 + [""]
    page.evaluate(HIDE)
    assert [verdict_on(body) for body in [*wrong, right]] == [refused] * 3 + ["", ""]
