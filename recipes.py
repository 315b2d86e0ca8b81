"""How each network is trained for the course's figures.

Each recipe was chosen on the last 10,000 training digits; benchmarks/README.md tells the search.
"""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum and one cycle of the learning rate, on digits that vary."""

    epochs: int
    peak: float = 0.1  # the largest learning rate of the cycle
    batch_size: int = 128
    degrees: float = 8  # how much a digit varies: see utils.Augment
    shift: float = 2
    zoom: float = 0.08
    dropout: float = 0.05  # `Net` and `NetMini` have none
    weight_decay: float = 1e-4
    label_smoothing: float = 0
    averaging: float = 0  # how much of the moving average of the weights stays at each step; 0: none
    half_precision: bool = True

    def describe(self):
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
