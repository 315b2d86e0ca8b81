"""How each network is trained for the course's figures: its recipe, and `fit`, which trains so.

Each recipe was chosen on the last 10,000 training digits: see benchmarks/README.md.
"""

import functools
import inspect
from dataclasses import asdict, dataclass, replace

from torch import nn, optim

import model as networks
import utils
from course import processes
from course.checkpoints import resume


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum and one cycle of the learning rate, on augmented digits."""

    epochs: int
    peak: float = 0.1  # the largest learning rate of the cycle
    batch_size: int = 128
    degrees: float = 8  # of augmentation: see utils.Augment
    shift: float = 2
    zoom: float = 0.08
    dropout: float = 0.05  # `Net`, `NetMini` and `NetMicro` have none
    weight_decay: float = 1e-4
    label_smoothing: float = 0
    half_precision: bool = True

    def describe(self):
        """All numbers, in one line."""
        return ", ".join(
            f"{name.replace('_', ' ')} {value}" for name, value in asdict(self).items()
        )

    def augmentation(self):
        """How the training digits are varied."""
        return utils.Augment(self.degrees, self.shift, self.zoom, crop=0, smooth=True)

    def optimizer(self, model):
        """SGD with Nesterov momentum."""
        return optim.SGD(
            model.parameters(),
            self.peak,
            momentum=0.9,
            nesterov=True,
            weight_decay=self.weight_decay,
        )

    def scheduler(self, optimizer, steps):
        """One cycle of the rate over all steps; the momentum goes from 0.95 to 0.85 and back."""
        return optim.lr_scheduler.OneCycleLR(optimizer, self.peak, total_steps=steps)

    def criterion(self):
        return nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class PlainRecipe(Recipe):
    """Lesson 5's: plain momentum, one drop of the rate, rotated and cropped digits."""

    def augmentation(self):
        return utils.Augment(self.degrees, self.shift, self.zoom)

    def optimizer(self, model):
        return optim.SGD(
            model.parameters(), self.peak, momentum=0.9, weight_decay=self.weight_decay
        )

    def scheduler(self, optimizer, steps):
        return optim.lr_scheduler.StepLR(optimizer, max(1, steps * 3 // 4))


PLAIN = PlainRecipe(
    epochs=20, peak=0.01, batch_size=512, degrees=15, shift=0, zoom=0, dropout=0, weight_decay=0
)
RECIPES = {
    "Net": Recipe(
        epochs=16,
        peak=0.05,
        degrees=10,
        shift=2.5,
        zoom=0.12,
        dropout=0,
        weight_decay=5e-4,
        label_smoothing=0.05,
    ),
    "NetGAP": Recipe(epochs=19, degrees=10, shift=2.5, zoom=0.12),
    "NetFC": Recipe(epochs=18, degrees=10, shift=2.5, zoom=0.12),
    "NetMini": Recipe(epochs=19, peak=0.2, dropout=0),
    "NetMicro": Recipe(epochs=19, peak=0.2, dropout=0, degrees=5, shift=1, zoom=0.05),
    "NetGAP-short": Recipe(epochs=5, peak=0.2, dropout=0),
    "Net-plain": PLAIN,
    "Net-plain-32": replace(PLAIN, half_precision=False),
    # For the 4,000 digits that a package ships: smaller batches, so that there are enough steps.
    "Net-few": replace(PLAIN, batch_size=32),
    "NetGAP-few": Recipe(epochs=30, batch_size=32, peak=0.05, degrees=10, shift=2.5, zoom=0.12),
    "NetFC-few": Recipe(epochs=18, batch_size=32, peak=0.05, degrees=10, shift=2.5, zoom=0.12),
}


def build(name, recipe):
    """A fresh network: the class is what comes before the first dash in `name`."""
    network = getattr(networks, name.split("-")[0])
    if "dropout" in inspect.signature(network).parameters:
        return network(recipe.dropout)
    if recipe.dropout:
        raise ValueError(f"{network.__name__} has no dropout")
    return network()


def fit(model, recipe, train_loader, test_loader=None, checkpoint=None, settings=None, ways=None):
    """Train a model as its recipe says; return its History.

    test_loader: measured after each epoch, if there is one
    checkpoint:  a file from which an interrupted training goes on
    settings:    what else the training depends on, in words
    ways:        the functions (train, test) to use, in place of those of utils.py
    """
    train, test = ways or (
        functools.partial(utils.train, half_precision=recipe.half_precision),
        functools.partial(utils.test, quiet=True),
    )
    device = utils.device
    optimizer = recipe.optimizer(model)
    criterion = recipe.criterion()
    scheduler = recipe.scheduler(optimizer, recipe.epochs * len(train_loader))
    history = utils.History(model, optimizer, scheduler, live=False)
    epochs = history.epochs(recipe.epochs)
    if checkpoint:
        epochs = resume(history, recipe.epochs, checkpoint, settings)
    for epoch in epochs:
        if hasattr(train_loader.sampler, "set_epoch"):  # several processes: shuffle anew
            train_loader.sampler.set_epoch(epoch)
        trained = train(model, device, train_loader, optimizer, criterion, scheduler)
        tested = ()
        if test_loader and processes.is_first():
            tested = test(processes.unwrap(model), device, test_loader, nn.NLLLoss())
        history.add(processes.average(trained), processes.gather(tested)[0])
    return history
