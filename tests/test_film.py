"""The film in Python; what happens in the browser is tested in tests/browser/test_film_js.py."""

import base64
import copy
import io

import matplotlib.pyplot as plt
import pytest
import torch
from helpers import sgd
from matplotlib.image import imread
from torch import nn

import utils
from course.checkpoints import resume
from course.widgets.film import TrainingFilm

MEASURED = ((50.0, 1.0), (60.0, 0.9))  # what `train` and `test` return after an epoch


@pytest.fixture
def image(digits):
    return digits[3][0]


def start(model, image):
    history = utils.History(model, sgd(model), measured_on="validation")
    return history, TrainingFilm(history, image)


def ask(network, image):
    with torch.no_grad():
        return network.eval()(image[None]).softmax(dim=1)[0].tolist()


def from_bytes(content, *shape):
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(shape).float()


def make_network(outputs=10):
    """A network whose first convolution does not see the digit itself, and with batch norm."""
    features = nn.MaxPool2d(2), nn.Conv2d(1, 10, 3), nn.BatchNorm2d(10), nn.Dropout(), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(1440, outputs))


@pytest.fixture
def filmed(image):
    """A film of two epochs that change the weights at random, and the networks of its frames."""
    model = make_network()
    history, film = start(model, image)
    networks = [copy.deepcopy(model)]
    for epoch in film.record(history.epochs(2)):
        assert epoch == len(networks)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.05 * torch.randn(weight.shape)
        history.add((50.0 + epoch, 1.0), (60.0 + epoch, 0.9))
        networks.append(copy.deepcopy(model))
    return film, networks


def test_each_frame_shows_the_network_of_its_epoch(filmed, image):
    """Notices frames that all show the last network, or that are one epoch off."""
    film, networks = filmed
    answers = torch.tensor([ask(network, image) for network in networks])
    torch.testing.assert_close(torch.tensor(film.answers), answers)
    filters = torch.stack([network[1].weight.detach()[:, 0] for network in networks])
    maps = torch.stack([network[:2](image[None])[0, :8].relu().detach() for network in networks])
    shown = from_bytes(film.filters, 3, 10, 3, 3)
    assert torch.equal(shown, (128 + 127 * filters / filters.abs().max()).round())
    shown = from_bytes(film.maps, 3, 8, 12, 12)
    torch.testing.assert_close(shown, 255 * maps / maps.max(), atol=0.51, rtol=0)
    assert film.sizes == {"filters": [10, 3, 3], "maps": [8, 12, 12]}
    changes = [100 * (new - old).norm() / old.norm() for old, new in zip(filters, filters[1:])]
    assert film.changes == pytest.approx([change.item() for change in changes])


def test_all_networks_are_asked_about_another_digit(filmed, digits):
    film, networks = filmed
    film.image = digits.data[5]
    answers = torch.tensor([ask(network, digits[5][0]) for network in networks])
    torch.testing.assert_close(torch.tensor(film.answers), answers)


def test_its_page_gets_these_values(filmed, digits):
    film, _ = filmed
    state = film.state()
    names = "answers changes curves digit filters maps measured_on sizes start times"
    assert sorted(state) == names.split()
    assert state["measured_on"] == "validation"
    assert state["curves"]["train_acc"] == [51, 52]
    assert state["curves"]["test_acc"] == [61, 62]
    pixels = digits.data[3].float()
    expected = 255 * (pixels - pixels.min()) / (pixels.max() - pixels.min())
    digit = from_bytes(base64.b64decode(state["digit"]["base64"]), 28, 28)
    torch.testing.assert_close(digit, expected, atol=0.51, rtol=0)


# --- Which epochs a film shows -------------------------------------------------------------------


def take_random_step(history):
    for weight in history.model.parameters():
        weight.grad = torch.randn(weight.shape)
    history.optimizer.step()


def test_the_first_epoch_has_frames_after_1_2_4_steps(image):
    """Notices frames one step off, in later epochs too, or two of one network."""
    model = make_network()
    history, film = start(model, image)
    networks = [copy.deepcopy(model)]
    for epoch in film.record(history.epochs(2)):
        for step in range(1, 9):  # the last one ends the epoch, which has a frame anyway
            take_random_step(history)
            if epoch == 1 and step in (1, 2, 4) or step == 8:
                networks.append(copy.deepcopy(model))
        history.add(*MEASURED)
    assert film.times == [(0, 0), (0, 1), (0, 2), (0, 4), (1, 0), (2, 0)]
    answers = torch.tensor([ask(network, image) for network in networks])
    torch.testing.assert_close(torch.tensor(film.answers), answers)
    filters = [network[1].weight.detach()[:, 0] for network in networks]
    moved = [(filters[n] - filters[0]).norm() / filters[0].norm() for n in (1, 2, 3, 4)]
    moved.append((filters[5] - filters[4]).norm() / filters[4].norm())
    assert film.changes == pytest.approx([100 * part.item() for part in moved])


def test_a_first_epoch_that_is_interrupted_leaves_no_frames(image):
    history, film = start(make_network(), image)
    with pytest.raises(KeyboardInterrupt):
        for _ in film.record(history.epochs(2)):
            take_random_step(history)
            raise KeyboardInterrupt
    take_random_step(history)  # of something else
    assert film.times == [(0, 0)]
    for _ in film.record(history.epochs(1)):
        take_random_step(history)
        take_random_step(history)
        history.add(*MEASURED)
    assert film.times == [(0, 0), (0, 1), (1, 0)]


def test_before_the_training_there_is_nothing_to_show(image):
    _, film = start(make_network(), image)
    assert film.answers == [] and film.filters == b""
    data, _ = film._repr_mimebundle_()
    assert "image/png" not in data


def test_a_training_that_goes_on_has_its_own_frames(filmed):
    film, _ = filmed
    for _ in film.record(film.history.epochs(4)):
        film.history.add(*MEASURED)
        if film.history.done == 4:
            break
    assert len(film.answers) == 3 and film.start == 2
    assert film.curves["test_acc"] == [60, 60], "with the epoch that was left after its end"


def test_a_finished_training_leaves_the_film(filmed):
    film, _ = filmed
    for _ in film.record(film.history.epochs(2)):
        raise AssertionError("two of two epochs are done")
    assert len(film.answers) == 3 and film.start == 0


def test_an_interrupted_epoch_has_no_frame_and_starts_over(filmed, image):
    film, networks = filmed
    model = film.history.model
    with pytest.raises(KeyboardInterrupt):
        for _ in film.record(film.history.epochs(3)):
            nn.init.zeros_(model[1].weight)  # what the interrupted epoch did
            raise KeyboardInterrupt
    assert len(film.answers) == 1
    for _ in film.record(film.history.epochs(3)):
        film.history.add(*MEASURED)
    assert len(film.answers) == 2
    assert film.answers[0] == pytest.approx(ask(networks[-1], image), abs=1e-6)


def test_what_an_interrupt_keeps_from_the_page_follows(image, monkeypatch):
    """The training is over, so running its loop again only completes the film."""
    model = make_network()
    history, film = start(model, image)

    def interrupt(*_):
        raise KeyboardInterrupt

    for place in ["_update_page", "_evaluate"]:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(TrainingFilm, place, interrupt)
            for epoch in film.record(history.epochs(2)):
                nn.init.constant_(model[1].weight, epoch)
                history.add((50.0 + epoch, 1.0), (60.0 + epoch, 0.9))
    assert list(film.record(history.epochs(2))) == []
    assert len(film.answers) == 3 and film.curves["test_acc"] == [61, 62]
    filters = from_bytes(film.filters, 3, 90)[:, 0]
    assert filters.tolist()[1:] == [128 + round(127 / 2), 255]


def test_a_training_that_is_continued_from_a_file_shows_its_own_epochs(image, tmp_path):
    for total in [2, 4]:
        model = make_network()
        history, film = start(model, image)
        for epoch in film.record(resume(history, total, tmp_path / "a.pt")):
            nn.init.constant_(model[1].weight, epoch)
            history.add((50.0 + epoch, 1.0), (60.0 + epoch, 0.9))
    assert film.start == 2 and film.curves["test_acc"] == [63, 64]
    filters = from_bytes(film.filters, 3, 90)[:, 0]
    assert filters.tolist() == [128 + round(127 * epoch / 4) for epoch in (2, 3, 4)]


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Linear(784, 10), "has no convolution"),
        (make_network(5), r"shows ten probabilities; this network returns \[1, 5\]"),
    ],
)
def test_what_it_cannot_show_is_refused_before_the_training(image, network, reason):
    with pytest.raises(ValueError, match=reason):
        start(network, image)


# --- The still picture ---------------------------------------------------------------------------


@pytest.fixture
def draw(monkeypatch):
    """Draw a film's still picture: the figure, and the pixels of the PNG file."""
    figures = []
    close = plt.close

    def draw(film):
        monkeypatch.setattr(plt, "close", figures.append)
        data, _ = film._repr_mimebundle_()
        return figures[-1], imread(io.BytesIO(base64.b64decode(data["image/png"])))

    yield draw
    for figure in figures:
        close(figure)


def test_its_still_picture_shows_four_of_eleven_frames(image, draw):
    """After epoch n, all filters are ±(n + 1) / 1000 and the answer is n, without doubt."""
    model = make_network()
    history, film = start(model, image)

    def change(epoch):
        nn.init.constant_(model[1].weight, (-1) ** epoch * (epoch + 1) / 1000)
        model[-1].bias.data = 1e6 * torch.eye(11)[epoch, :10]

    change(0)
    for epoch in film.record(history.epochs(10)):
        change(epoch)
        history.add(*MEASURED)
    figure, pixels = draw(film)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:2] == ["before training:\na 0 (100%)", "after epoch 1:\na 1 (100%)"]
    assert titles[2] == "after epoch 2:\na 2 (100%)"
    assert titles[3].startswith("after epoch 10:")
    pictures = [ax.images[0] for ax in figure.axes]
    weights = [picture.get_array()[1, 1] for picture in pictures]
    assert weights == pytest.approx([0.001, -0.002, 0.003, 0.011])
    assert {picture.get_clim() for picture in pictures} == {pictures[3].get_clim()}, "one scale"
    red_minus_blue = pixels[..., 0] - pixels[..., 2]
    assert red_minus_blue.max() > 0.5, "red filters"
    assert red_minus_blue.min() < -0.1, "and blue ones"
    assert max(film.maps) == 255, "even the smallest numbers are seen"


def test_its_still_picture_counts_the_epochs_before_its_first_frame(filmed, draw):
    film, _ = filmed
    for _ in film.record(film.history.epochs(3)):
        film.history.add(*MEASURED)
    figure, _ = draw(film)
    titles = [ax.get_title().split(":")[0] for ax in figure.axes]
    assert titles == ["after epoch 2", "after epoch 3"]
