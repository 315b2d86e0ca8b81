"""What the public functions say to input that they cannot use, and properties that hold for any input."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim
from torch.utils.data import DataLoader

import insight
import utils
from model import Net, NetFC, NetGAP, NetMini

IMAGES = torch.zeros(4, 1, 28, 28)
RAW = torch.zeros(4, 28, 28, dtype=torch.uint8)
LABELS = torch.arange(4)
ANSWERS = torch.zeros(4, 10)


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LogSoftmax(dim=1))


def train(batches, criterion=F.nll_loss, model=None):
    model = model or linear()
    return utils.train(model, "cpu", batches, optim.SGD(model.parameters(), lr=0.1), criterion)


def run(batches, criterion=F.nll_loss):
    return utils.test(linear(), "cpu", batches, criterion)


def one_pixel(value):
    images = IMAGES.clone()
    images[2, 0, 5, 5] = value
    return images


def breaks_off():
    yield IMAGES, LABELS
    raise RuntimeError("the disk is gone")


class BreaksOff(list):
    __iter__ = lambda self: breaks_off()  # noqa: E731


TABLE = [
    # what is called, and the sentence it answers with
    (lambda: utils.GetCorrectPredCount(ANSWERS, LABELS[:1]), "4 answers want labels of shape [4], got [1]"),
    (
        lambda: utils.GetCorrectPredCount(ANSWERS, LABELS[:, None]),
        "4 answers want labels of shape [4], got [4, 1]",
    ),
    (lambda: utils.GetCorrectPredCount(ANSWERS[0], LABELS), "must have the shape [N, classes], got [10]"),
    (
        lambda: utils.GetCorrectPredCount(ANSWERS, LABELS.float()),
        "labels must be whole numbers, got torch.float32",
    ),
    (
        lambda: utils.GetCorrectPredCount(ANSWERS, LABELS + 8),
        "labels must be from 0 to 9, but this batch has",
    ),
    (lambda: train([(IMAGES, LABELS[:3])]), "4 answers want labels of shape [4], got [3]"),
    (lambda: train([(IMAGES, F.one_hot(LABELS, 10))]), "4 answers want labels of shape [4], got [4, 10]"),
    (lambda: train([(one_pixel(math.nan), LABELS)]), "pixels that are nan or infinite"),
    (lambda: train([(one_pixel(-math.inf), LABELS)]), "pixels that are nan or infinite"),
    (lambda: run([(one_pixel(math.inf), LABELS)]), "pixels that are nan or infinite"),
    (
        lambda: utils.predict(linear(), "cpu", [(one_pixel(math.nan), LABELS)]),
        "pixels that are nan or infinite",
    ),
    (lambda: train([(IMAGES, LABELS)], lambda p, t: (p - 1).sum(dim=1)), "must return one number"),
    (lambda: run([(IMAGES, LABELS)], nn.NLLLoss(reduction="none")), "must return one number"),
    (lambda: train([]), "the loader is empty"),
    (lambda: run([]), "the loader is empty"),
    (lambda: train(BreaksOff([1, 2])), "the disk is gone"),
    (lambda: utils.Digits([[0]], LABELS), "images must be a tensor, got list"),
    (lambda: utils.Digits(RAW, [1, 2, 3, 4]), "labels must be a tensor, got list"),
    (lambda: utils.Digits(RAW, LABELS[:2]), "there are 4 images but 2 labels"),
    (lambda: utils.Digits(RAW, LABELS - 1), "labels must be digits from 0 to 9, got -1 to 2"),
    (lambda: utils.Digits(IMAGES, LABELS), "images must be uint8 of shape [N, 28, 28]"),
    (lambda: utils.Digits(RAW, LABELS, "augment"), "something to call with images, got 'augment'"),
    (lambda: utils.Normalize()(IMAGES), "raw images are wanted, uint8"),
    (lambda: utils.Augment()(RAW[0]), "raw images are wanted, uint8"),
    (lambda: utils.Augment(degrees=-1), "degrees=-1, shift=0"),
    (lambda: utils.Augment(degrees=math.nan), "degrees=nan"),
    (lambda: utils.Augment(zoom=1), "zoom must be below 1"),
    (lambda: utils.Augment(crop=1.5), "crop is a probability"),
    (lambda: utils.get_testloader(batch_size=0), "batch_size=0 is not possible"),
    (lambda: utils.get_testloader(limit=-1), "limit=-1 is not possible"),
    (lambda: utils.confusion_matrix(linear(), "cpu", [(IMAGES, LABELS + 7)]), "labels must be from 0 to 9"),
    (lambda: utils.get_summary(Net()), "wants the class"),
    (lambda: Net()(IMAGES[0]), "expected images of shape [N, 1, 28, 28]"),
    (lambda: Net()(RAW[:, None]), "expected normalised float images"),
    (lambda: Net()(RAW.numpy()), "expected a tensor of images, got ndarray"),
    (lambda: insight.plot_filters(linear()), "has no convolution"),
]


@pytest.mark.parametrize(("call", "sentence"), TABLE, ids=[sentence[:40] for _, sentence in TABLE])
def test_bad_input_gets_one_clear_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError, RuntimeError)) as error:
        call()
    said = str(error.value)
    assert sentence in said and "\n" not in said


@pytest.mark.parametrize("harm", [one_pixel(math.nan), one_pixel(math.inf)])
def test_bad_batches_do_no_harm(harm):
    """The good batch before is learned; the bad one changes nothing, and the model keeps its layout."""
    model, good = NetMini(), (torch.randn(4, 1, 28, 28), LABELS)
    twin = NetMini()
    twin.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="nan or infinite"):
        train([good, (harm, LABELS)], model=model)
    train([good], model=twin)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values()))
    assert all(parameter.is_contiguous() for parameter in model.parameters())


quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@quick
@given(st.integers(1, 40), st.integers(2, 12), seeds)
def test_right_answers_are_counted(size, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    answers = torch.randn(size, classes, generator=generator)
    labels = torch.randint(0, classes, (size,), generator=generator)
    by_hand = sum(max(range(classes), key=lambda k: row[k]) == label for row, label in zip(answers, labels))
    assert utils.GetCorrectPredCount(answers, labels) == by_hand


@quick
@given(st.integers(1, 30), st.integers(1, 12), seeds)
def test_averages_are_over_digits_however_they_are_batched(size, batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    digits = utils.Digits(
        torch.randint(0, 256, (size, 28, 28), dtype=torch.uint8, generator=generator),
        torch.randint(0, 10, (size,), generator=generator),
    )
    model = linear()
    whole = utils.test(model, "cpu", DataLoader(digits, size), F.nll_loss, quiet=True)
    parts = utils.test(model, "cpu", DataLoader(digits, batch_size), F.nll_loss, quiet=True)
    assert parts == pytest.approx(whole, rel=1e-4)
    matrix = utils.confusion_matrix(model, "cpu", DataLoader(digits, batch_size))
    assert matrix.sum() == size and 100 * matrix.trace() / size == pytest.approx(whole[0])


@quick
@given(
    st.floats(0, 180),
    st.floats(0, 28),
    st.floats(0, 0.9),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 5),
    seeds,
)
def test_augmented_images_stay_images(degrees, shift, zoom, crop, smooth, size, seed):
    torch.manual_seed(seed)
    raw = torch.randint(0, 256, (size, 28, 28), dtype=torch.uint8)
    kept = raw.clone()
    result = utils.Augment(degrees, shift, zoom, crop, smooth)(raw)
    assert result.shape == (size, 1, 28, 28) and result.dtype == torch.float32 and torch.equal(raw, kept)
    pixels = result * utils.STD + utils.MEAN
    assert torch.isfinite(pixels).all() and (pixels > -1e-5).all() and (pixels < 1 + 1e-5).all()


@quick
@given(st.sampled_from([Net, NetGAP, NetFC, NetMini]), st.integers(0, 3), seeds)
def test_networks_answer_any_batch_with_probabilities(Network, size, seed):
    torch.manual_seed(seed)
    answers = Network().eval()(10 * torch.randn(size, 1, 28, 28))
    assert answers.shape == (size, 10)
    assert torch.allclose(answers.exp().sum(dim=1), torch.ones(size), atol=1e-4)


@quick
@given(st.sampled_from([Net, NetGAP, NetFC, NetMini]), st.lists(st.integers(0, 40), min_size=1, max_size=5))
def test_networks_take_digits_only(Network, shape):
    if len(shape) == 4 and shape[1:] == [1, 28, 28]:
        return
    with pytest.raises(ValueError, match="expected images of shape"):
        Network()(torch.zeros(shape))
