"""The website's engine and its worker, compared with what the pad does in Python."""

import shutil

import pytest
import torch
from browsing import WIDGETS, encoded, served
from helpers import HERE
from torch import nn

import utils
from course.checkpoints import get_trained
from course.widgets.pad import prepare, recognise, variations
from model import NETWORKS, NetGAP
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


@pytest.fixture
def engine(page, address):
    page.goto(address)
    return page.evaluate_handle("import('./engine.js')")


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


ASK = """([pixels, questions]) => new Promise((resolve, reject) => {
  const worker = new Worker("worker.js", { type: "module" });
  const replies = [];
  const last = questions.at(-1).id;
  let timer = setTimeout(() => reject("the worker is silent"), 30000);
  worker.onmessage = ({ data }) => {
    replies.push(data);
    if (data.id !== last) return;
    clearTimeout(timer);
    timer = setTimeout(() => resolve(replies), 2000); // by then, no more will come
  };
  for (const question of questions) {
    const drawing = Uint8Array.from(pixels);
    worker.postMessage({ task: "read", side: 140, drawing, ...question });
  }
})"""


def test_the_workers_answer_is_that_of_the_pad_in_jupyter(page, address):
    page.goto(address)
    (drawing,) = drawings(1)
    questions = [{"id": 1, "network": "NetGAP"}]
    reply = page.evaluate(ASK, [drawing.flatten().tolist(), questions])[-1]
    expected = recognise(get_trained(NetGAP).eval(), prepare(drawing))
    torch.testing.assert_close(torch.tensor(reply["probabilities"]), expected, atol=1e-5, rtol=0)


def test_a_newer_drawing_ends_the_work_on_an_older_one(page, address):
    page.goto(address)
    (drawing,) = drawings(1)
    questions = [{"id": number, "network": "Net"} for number in (1, 2, 3)]
    replies = page.evaluate(ASK, [drawing.flatten().tolist(), questions])
    numbers = [reply["id"] for reply in replies]
    assert numbers.count(1) <= 1 and numbers.count(2) <= 1, "a first impression at most"
    assert numbers[-2:] == [3, 3], "a first impression, then the answer"
    shares = [sum(reply["probabilities"]) for reply in replies[-2:]]
    assert shares == pytest.approx([1, 1], abs=1e-5)
