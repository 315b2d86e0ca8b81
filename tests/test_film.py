"""The film in Python; what happens in the browser is tested in tests/browser/test_film_js.py."""

import base64
import copy
import io

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn, optim
from torch.utils.data import DataLoader

import utils
from course.checkpoints import resume
from course.widgets.film import TrainingFilm
from model import NetMini


@pytest.fixture
def filmed(digits):
    """A film of two epochs, its network, and the network's answers as they were before and after each."""
    model = NetMini()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    history = utils.History(model, optimizer, measured_on="validation")
    film = TrainingFilm(history, digits[3][0])
    loader = DataLoader(digits, 25)

    def ask():
        with torch.no_grad():
            return copy.deepcopy(model).eval()(digits[3][0][None]).softmax(dim=1)[0].tolist()

    answers = [ask()]
    for epoch in film.record(history.epochs(2)):
        assert epoch == len(answers)
        history.add(
            utils.train(model, "cpu", loader, optimizer, nn.NLLLoss()),
            utils.test(model, "cpu", loader, nn.NLLLoss(), quiet=True),
        )
        answers.append(ask())
    return film, model, answers


def test_each_frame_shows_the_network_of_its_epoch(filmed):
    """Notices frames that all show the last network, or that are one epoch off."""
    film, model, answers = filmed
    assert len(film.answers) == 3
    for ours, theirs in zip(film.answers, answers):
        assert ours == pytest.approx(theirs, abs=1e-6)
    filters = model.block1[0].weight.detach()[:, 0]
    last = (
        torch.frombuffer(bytearray(film.filters), dtype=torch.uint8)
        .view(3, *filters.shape)[-1]
        .float()
    )
    scale = (last - 128) / filters
    assert (
        scale.median() * filters.abs().max() <= 127.5 and (last.argmax() == filters.argmax()).all()
    )
    assert (
        film.curves["test_acc"] == film.history.curves["test_acc"]
        and film.measured_on == "validation"
    )
    assert len(film.changes) == 2 and all(0 < change < 100 for change in film.changes)
    assert film.sizes == {"filters": [10, 3, 3], "maps": [8, 26, 26]}


def test_all_networks_are_asked_about_another_digit(filmed, digits):
    film, model, answers = filmed
    film.image = digits.data[5]
    with torch.no_grad():
        expected = model.eval()(digits[5][0][None]).softmax(dim=1)[0].tolist()
    assert film.answers[-1] == pytest.approx(expected, abs=1e-6)
    assert film.answers[0] != pytest.approx(answers[0], abs=1e-6)


def test_before_the_training_there_is_nothing_to_show(digits):
    film = TrainingFilm(utils.History(NetMini(), None), digits[0][0])
    assert film.answers == [] and film.filters == b""
    with pytest.raises(ValueError, match="this needs a picture of 28×28 pixels"):
        film.image = digits.data[:3]


def test_a_training_that_is_stopped_or_continued_has_its_own_frames(filmed, capsys):
    film, *_ = filmed
    for _ in film.record(film.history.epochs(4)):
        film.history.add((50.0, 1.0), (60.0, 0.9))
        if film.history.done == 4:
            break
    assert len(film.answers) == 3 and film.curves["test_acc"] == [60.0, 60.0]


def test_a_finished_training_leaves_the_film(filmed):
    film, _, answers = filmed
    for _ in film.record(film.history.epochs(2)):
        raise AssertionError("two of two epochs are done")
    assert len(film.answers) == 3 and film.still() is not None


def test_the_film_of_an_interrupted_epoch_starts_with_the_weights_before_it(filmed):
    film, model, answers = filmed
    for _ in film.record(film.history.epochs(3)):
        with torch.no_grad():
            model.block1[0].weight.zero_()  # what the interrupted epoch did
        break
    assert len(film.answers) == 1, "an interrupted epoch has no frame"
    for _ in film.record(film.history.epochs(3)):
        film.history.add((50.0, 1.0), (60.0, 0.9))
    assert film.answers[0] == pytest.approx(answers[-1], abs=1e-6)


def test_a_network_without_a_convolution_is_refused_before_the_training(digits):
    with pytest.raises(ValueError, match="has no convolution"):
        TrainingFilm(utils.History(nn.Linear(784, 10), None), digits[0][0])


def test_its_still_picture_shows_this_training(filmed, digits):
    from matplotlib.image import imread

    film, *_ = filmed
    data, _ = film._repr_mimebundle_()
    picture = imread(io.BytesIO(base64.b64decode(data["image/png"])))
    reds = (picture[..., 0] > 0.9) & (picture[..., 1] < 0.5) & (picture[..., 2] < 0.5)
    assert picture.shape[1] > 600 and reds.sum() > 50, "filters are red and blue"
    empty = TrainingFilm(film.history, digits[0][0])
    assert "image/png" not in empty._repr_mimebundle_()[0]


def test_its_page_gets_all_numbers_as_bytes(filmed, digits):
    film, model, _ = filmed
    assert set(film.state()) == {
        *(
            "filters",
            "maps",
            "digit",
            "sizes",
            "answers",
            "changes",
            "curves",
            "measured_on",
            "start",
        )
    }

    def last(name, *shape):
        values = base64.b64decode(film.state()[name]["base64"])
        return torch.frombuffer(bytearray(values), dtype=torch.uint8)[
            -torch.Size(shape).numel() :
        ].view(shape)

    networks = film._frames
    largest = max(network.block1[0].weight.abs().max() for network in networks)
    filters = model.block1[0].weight.detach()[:, 0]
    assert torch.equal(
        last("filters", 10, 3, 3), (128 + 127 * filters / largest).round().to(torch.uint8)
    )
    with torch.no_grad():
        maps = torch.stack(
            [network.block1[0](digits[3][0][None])[0, :8].relu() for network in networks]
        )
    assert torch.equal(
        last("maps", 8, 26, 26), (255 * maps[-1] / maps.max()).round().to(torch.uint8)
    )
    pixels = digits.data[3].float()
    expected = 255 * (pixels - pixels.min()) / (pixels.max() - pixels.min())
    assert (last("digit", 28, 28).float() - expected).abs().max() <= 0.51
    before, after = (network.block1[0].weight for network in networks[:2])
    assert film.changes[0] == pytest.approx(
        100 * ((after - before).norm() / before.norm()).item(), rel=1e-5
    )


def test_its_still_picture_shows_four_of_ten_frames(digits, monkeypatch):
    """Made-up networks: after epoch n, all filters are (n + 1) / 1000 and the answer is n, without doubt."""
    model, closed = NetMini(), []
    history = utils.History(model, optim.SGD(model.parameters(), lr=0.1))
    film = TrainingFilm(history, digits[3][0])

    def change(epoch):
        nn.init.constant_(model.block1[0].weight, (epoch + 1) / 1000)
        model.classes.bias.data = 1e6 * torch.eye(10)[epoch]

    change(0)
    for epoch in film.record(history.epochs(9)):
        change(epoch)
        history.add((50.0, 1.0), (60.0, 0.9))
    with monkeypatch.context() as patched:
        patched.setattr(plt, "close", closed.append)
        patched.setattr(plt.Figure, "savefig", lambda *_, **__: None)
        film.still()
    (figure,) = closed
    plt.close(figure)
    assert [ax.get_title() for ax in figure.axes] == [
        "before training:\na 0 (100%)",
        "after epoch 1:\na 1 (100%)",
        "after epoch 4:\na 4 (100%)",
        "after epoch 9:\na 9 (100%)",
    ]
    shown = [ax.images[0].get_array().max() for ax in figure.axes]
    assert shown == pytest.approx([0.001, 0.002, 0.005, 0.01])
    assert all(ax.images[0].get_clim() == pytest.approx((-0.01, 0.01)) for ax in figure.axes), (
        "one scale"
    )
    assert max(film.maps) == max(film.filters) == 255, (
        "the largest number, however small, is the brightest"
    )
    assert figure.axes[0].images[0].get_array().shape == (9, 33), (
        "two rows of 3×3 filters, eight in a row"
    )


def test_a_training_that_is_continued_from_a_file_shows_its_own_epochs(digits, tmp_path):
    def training():
        model = NetMini()
        history = utils.History(model, optim.SGD(model.parameters(), lr=0.1))
        return model, history, TrainingFilm(history, digits[3][0])

    for total in [2, 4]:
        model, history, film = training()
        for epoch in film.record(resume(history, total, tmp_path / "a.pt")):
            nn.init.constant_(model.block1[0].weight, epoch)
            history.add((50.0 + epoch, 1.0), (60.0 + epoch, 0.9))
    assert film.start == 2 and film.curves["test_acc"] == [63.0, 64.0] and len(film.answers) == 3
    shown = torch.frombuffer(bytearray(film.filters), dtype=torch.uint8).view(3, -1)[:, 0].tolist()
    assert shown == [128 + round(127 * epoch / 4) for epoch in (2, 3, 4)]


class Pooled(nn.Module):
    """Its first convolution does not see the digit itself."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 8, 3), nn.Linear(8 * 12 * 12, classes)

    def forward(self, x):
        return self.fc(self.conv(nn.functional.max_pool2d(x, 2)).flatten(1))


def test_its_maps_are_those_of_the_network(digits):
    model = Pooled()
    history = utils.History(model, optim.SGD(model.parameters(), lr=0.1))
    film = TrainingFilm(history, digits[3][0])
    for _ in film.record(history.epochs(1)):
        history.add((50.0, 1.0), (60.0, 0.9))
    assert film.sizes["maps"] == [8, 12, 12]
    maps = model.conv(nn.functional.max_pool2d(digits[3][0][None], 2))[0].relu()
    shown = torch.frombuffer(bytearray(film.maps), dtype=torch.uint8).view(2, 8, 12, 12)[1]
    torch.testing.assert_close(shown.float(), (255 * maps / maps.max()).detach(), atol=0.51, rtol=0)


def test_a_network_with_other_answers_is_refused_before_the_training(digits):
    with pytest.raises(ValueError, match=r"shows ten probabilities; this network returns \[1, 5\]"):
        TrainingFilm(utils.History(Pooled(5), None), digits[0][0])
