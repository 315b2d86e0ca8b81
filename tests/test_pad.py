"""The pad: drawings become pictures like MNIST's, and the network's answer reaches the page.

What happens in the browser is tested in tests/browser/test_pad.py.
"""

import base64
import re

import pytest
import torch
import torch.nn.functional as F
from helpers import HERE, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import utils
from course.checkpoints import get_trained
from course.widgets import look
from course.widgets.bench import BackpropBench
from course.widgets.film import TrainingFilm
from course.widgets.lens import ConvolutionLens
from course.widgets.pad import DigitPad, prepare, recognise
from model import NETWORKS, Net, NetGAP, NetMini

TRAINED = get_trained(NetMini).eval()


def enlarge(image, size):
    return F.interpolate(image[None, None].float(), size=(size, size), mode="bilinear")[0, 0]


def on_a_pad(image):
    """A digit as a person would draw it: enlarged, somewhere on a pad of 140×140."""
    size = int(torch.randint(40, 141, ()))
    left, top = torch.randint(0, 141 - size, (2,)).tolist()
    drawing = torch.zeros(140, 140, dtype=torch.uint8)
    drawing[top : top + size, left : left + size] = enlarge(image, size).round()
    return drawing


# --- From a drawing to a picture -----------------------------------------------------------------


def test_digits_in_mnist_form_stay_as_they_are(real_digits):
    """This shows that `prepare` does what MNIST's authors did: same size, same place."""
    for image in real_digits[0]:
        picture = prepare(image).float() * image.max() / 255
        torch.testing.assert_close(picture, image.float(), atol=0.6, rtol=0)


quick = settings(max_examples=50, deadline=None)


@quick
@given(st.integers(1, 140), st.integers(1, 140), st.data())
def test_drawings_are_scaled_to_twenty_and_centred(width, height, data):
    left = data.draw(st.integers(0, 140 - width))
    top = data.draw(st.integers(0, 140 - height))
    drawing = torch.zeros(140, 140, dtype=torch.uint8)
    drawing[top : top + height, left : left + width] = 200
    picture = prepare(drawing)
    assert picture.shape == (28, 28) and picture.dtype == torch.uint8 and picture.max() == 255
    rows = int(picture.any(dim=1).sum())
    columns = int(picture.any(dim=0).sum())
    scale = 20 / max(width, height, 28)  # a fifth of the pad
    assert abs(max(rows, columns) - scale * max(width, height)) <= 0.5
    assert abs(min(rows, columns) - scale * min(width, height)) <= 1
    share = picture.double() / picture.sum()
    places = torch.arange(28) + 0.5
    assert 13.99 < (share.sum(dim=1) * places).sum() < 15.01
    assert 13.99 < (share.sum(dim=0) * places).sum() < 15.01


@pytest.mark.parametrize("turns", range(4))
def test_a_heavy_head_with_a_long_tail_stays_in_the_picture(turns):
    """Its centre of mass is so near the head that the tail would reach beyond the edge."""
    drawing = torch.zeros(140, 140, dtype=torch.uint8)
    drawing[20:40, 40:100] = 255
    drawing[40:120, 68:72] = 30
    picture = prepare(drawing.rot90(turns)).rot90(-turns)
    assert picture.any(dim=1).sum() == 20 and picture[-1].any(), "all of it, moved to the edge"


def test_a_drawing_that_touches_three_edges_is_no_photo():
    drawing = torch.zeros(140, 140, dtype=torch.uint8)
    drawing[:, :130] = 200
    picture = prepare(drawing)
    assert picture.any(dim=1).sum() == 20 and picture.any(dim=0).sum() == 19


@quick
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_any_drawing_gets_an_answer(rows, columns, seed, share):
    generator = torch.Generator().manual_seed(seed)
    drawing = torch.randint(0, 256, (rows, columns), dtype=torch.uint8, generator=generator)
    drawing *= torch.rand(rows, columns, generator=generator) < share
    picture = prepare(drawing)
    assert (picture is None) == (not drawing.any())
    if picture is not None:
        answer = recognise(TRAINED, picture, views=2)
        assert answer.shape == (10,) and abs(answer.sum().item() - 1) < 1e-5


# --- From a picture to an answer -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("Network", NETWORKS)
def test_digits_that_are_moved_and_scaled_are_recognised(real_digits, Network):
    images, labels = real_digits
    network = get_trained(Network).eval()
    pictures = [prepare(on_a_pad(image)) for image in images]
    with torch.no_grad():
        answers = network(utils.Normalize()(torch.stack(pictures))).argmax(dim=1)
    assert (answers == labels).float().mean() >= 0.97
    answers = torch.stack([recognise(network, picture).argmax() for picture in pictures[:60]])
    assert (answers == labels[:60]).float().mean() >= 0.95, "with the views the pad averages over"


def test_an_answer_is_the_mean_over_sixteen_views():
    """Here each view gets an answer of its own: 0, 1, ... 9, 0, ... 5."""

    def network(images):
        return 1e3 * F.one_hot(torch.arange(len(images)) % 10, 10).float()

    probabilities = recognise(network, torch.zeros(28, 28))
    assert probabilities.tolist() == [2 / 16] * 6 + [1 / 16] * 4


def test_the_same_drawing_gets_the_same_answer_and_no_random_number_is_used_up(real_digits):
    before = torch.get_rng_state()
    first = recognise(TRAINED, real_digits[0][0])
    again = recognise(TRAINED, real_digits[0][0])
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())


def scribble(generator):
    """A drawing of eight straight lines, each from the end of the one before."""
    drawing = torch.zeros(140, 140, dtype=torch.uint8)
    corners = 20 + 100 * torch.rand(9, 2, generator=generator)
    for start, end in zip(corners, corners[1:]):
        for point in torch.linspace(0, 1, 150)[:, None] * (end - start) + start:
            row, column = point.round().int().tolist()
            drawing[row - 5 : row + 6, column - 5 : column + 6] = 255
    return drawing


@pytest.mark.slow
def test_the_network_is_seldom_sure_of_scribbles_and_nearly_always_of_digits(real_digits):
    """Below 70 % the pad says "Not sure"."""
    model = get_trained(Net).eval()
    generator = torch.Generator().manual_seed(0)
    scribbles = [recognise(model, prepare(scribble(generator))).max() for _ in range(40)]
    digits = [recognise(model, image).max() for image in real_digits[0][:40]]
    assert sum(sure > 0.7 for sure in scribbles) < 0.35 * len(scribbles)
    assert sum(sure > 0.7 for sure in digits) > 0.95 * len(digits)


# --- The widget ----------------------------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch):
    """What pads have sent to the page: a list of (content, picture)."""
    sent = []
    monkeypatch.setattr(
        DigitPad, "send", lambda pad, content, buffers: sent.append((content, buffers[0]))
    )
    return sent


def ask(pad, drawing):
    """Send a drawing to a pad, as the page does."""
    question = {"from": 0.5, "version": 7, "size": len(drawing)}
    buffers = [memoryview(drawing.numpy().tobytes())]
    data = {"method": "custom", "content": question}
    pad.comm.handle_msg({"content": {"data": data}, "buffers": buffers})


def test_the_page_gets_probabilities_and_the_picture(answers, real_digits):
    drawing = on_a_pad(real_digits[0][0])
    pad = DigitPad(get_trained(NetGAP))
    ask(pad, drawing)
    ((content, picture),) = answers
    assert content["from"] == 0.5 and content["version"] == 7
    probabilities = content["probabilities"]
    assert probabilities.index(max(probabilities)) == real_digits[1][0]
    assert picture == prepare(drawing).numpy().tobytes()
    assert torch.equal(pad.picture, prepare(drawing)), "for the lens"


def test_an_empty_pad_gets_no_guess_but_an_answer(answers):
    ask(DigitPad(NetMini()), torch.zeros(140, 140, dtype=torch.uint8))
    ((content, picture),) = answers
    assert content["probabilities"] is None
    assert picture == bytes(28 * 28)


def test_the_pad_leaves_the_model_alone_and_keeps_a_copy(answers):
    model = get_trained(NetMini).train()
    pad = DigitPad(model)
    assert model.training
    for _ in range(2):
        ask(pad, torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8))
        nn.init.zeros_(model.classes.weight)
    assert answers[0][0]["probabilities"] == answers[1][0]["probabilities"]


@pytest.mark.parametrize(
    ("model", "error", "reason"),
    [
        (NetMini, TypeError, r"needs a network, as in DigitPad\(model\), not a type"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 7)), ValueError, r"\[1, 10\], not \[1, 7\]"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 12)), ValueError, r"\[1, 10\], not \[1, 12\]"),
    ],
    ids=["a class", "7 outputs", "12 outputs"],
)
def test_wrong_models_are_refused(model, error, reason):
    with pytest.raises(error, match=reason):
        DigitPad(model)


def test_without_a_front_end_there_is_a_picture(monkeypatch, tmp_path):
    data, _ = DigitPad(NetMini())._repr_mimebundle_()
    assert data["text/plain"] == "DigitPad(NetMini)"
    assert base64.b64decode(data["image/png"]) == (look.PICTURES / "digit_pad.png").read_bytes()
    monkeypatch.setattr(look, "PICTURES", tmp_path)
    data, _ = DigitPad(NetMini())._repr_mimebundle_()
    assert data["text/plain"] == "DigitPad(NetMini)" and "image/png" not in data


@pytest.mark.parametrize("kind", [DigitPad, BackpropBench, ConvolutionLens, TrainingFilm])
def test_a_widget_has_a_script_and_a_style_that_fetch_nothing(kind):
    """Widgets work offline and import nothing: anywidget loads a script without its neighbours."""
    script = str(kind._esm)
    style = str(kind._css)
    name = kind.__module__.rpartition(".")[2]
    assert "export default { render" in script
    assert ".course-widget {" in style
    assert re.search(rf"^\.[a-z-]*{name}[a-z-]* {{", style, re.MULTILINE), "its own style"
    assert not re.search(r"^\s*import\b|\bimport\(|\bfrom \"", script, re.MULTILINE)
    assert not re.search(r"http|@import|url\(", script + style)


@pytest.mark.slow
def test_it_can_be_imported_in_any_folder_and_starts_no_file_watcher(tmp_path):
    """A watcher, which anywidget offers for development, would be a second thread."""
    program = HERE / "tests" / "programs" / "threads_of_the_pad.py"
    assert run_python(program, cwd=tmp_path) == "1 thread, and a style: True\n"
