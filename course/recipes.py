"""How each network is trained for the course's figures: the numbers, and what they make.

Each recipe was chosen on the last 10,000 training digits; benchmarks/README.md describes the search.
"""

from dataclasses import asdict, dataclass

from torch import nn, optim

import model as networks
import utils


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum and one cycle of the learning rate, on digits that vary."""

    epochs: int
    peak: float = 0.1  # the largest learning rate of the cycle
    batch_size: int = 128
    degrees: float = 8  # of variation: see utils.Augment
    shift: float = 2
    zoom: float = 0.08
    dropout: float = 0.05  # `Net` and `NetMini` have none
    weight_decay: float = 1e-4
    label_smoothing: float = 0
    averaging: float = 0  # the share of the weights' moving average that stays at each step; 0: no average
    half_precision: bool = True

    def describe(self):
        """All numbers, in one line."""
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asdict(self).items())


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
    "NetGAP": Recipe(epochs=16),
    "NetFC": Recipe(epochs=18, degrees=10, shift=2.5, zoom=0.12),
    "NetMini": Recipe(epochs=19, peak=0.2, dropout=0),
    "NetGAP-short": Recipe(epochs=5, peak=0.2, dropout=0),
}


def build(name, recipe):
    """A fresh network: the class is what comes before the first dash in `name`."""
    network = getattr(networks, name.split("-")[0])
    return network(recipe.dropout) if "dropout" in network.__init__.__code__.co_varnames else network()


def augmentation(recipe):
    """The variation of the training digits."""
    return utils.Augment(recipe.degrees, recipe.shift, recipe.zoom, crop=0, smooth=True)


def optimizer_and_schedule(model, recipe, steps):
    """SGD with one cycle of the learning rate over so many steps, and the criterion."""
    optimizer = optim.SGD(
        model.parameters(), recipe.peak, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak, total_steps=steps)
    return optimizer, scheduler, nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
