"""A film of a training run: move a slider over its epochs, and see what the network had learned.

    film = TrainingFilm(history, image)
    for _ in film.record(history.epochs(20)):
        ...

It works in JupyterLab, Jupyter Notebook 7, VS Code and Colab, with mouse, finger and keyboard.
"""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import traitlets
from torchvision.utils import make_grid

from course.insight import evaluation_copy, run_with_maps
from course.widgets.look import DigitWidget

MAPS = 8  # of the first convolution: the film shows no more


class TrainingFilm(DigitWidget):
    """A widget with a frame for each epoch, and one from before training.

    Most happens in the first epoch: it has frames after 1, 2, 4, 8, ... steps, too.
    Set `film.image` to ask about another digit: the networks of all frames answer.
    """

    _esm = DigitWidget.script(Path(__file__).parent / "film.js")
    _css = DigitWidget.css(Path(__file__).parent / "film.css")

    # The filters of the first convolution, and its first maps of the digit, frame after frame, as
    # bytes: 128 is a weight of 0, and 0 is black.
    filters = traitlets.Bytes().tag(sync=True)
    maps = traitlets.Bytes().tag(sync=True)
    digit = traitlets.Bytes().tag(sync=True)
    sizes = traitlets.Dict().tag(sync=True)  # how many filters and maps, and their widths
    answers = traitlets.List().tag(sync=True)  # ten probabilities a frame
    times = traitlets.List().tag(sync=True)  # of each frame: epochs that are over, steps since
    changes = traitlets.List().tag(sync=True)  # of the filters since the epoch began, in %
    curves = traitlets.Dict().tag(sync=True)
    measured_on = traitlets.Unicode().tag(sync=True)
    start = traitlets.Int().tag(sync=True)  # how many epochs were over before the first frame

    def __init__(self, history, image):
        super().__init__()
        self.history = history
        self._networks = []  # before the first epoch, and after each
        self._early = {}  # the networks after some steps of the first epoch
        self._steps = 0  # of the first epoch
        self._filters = None
        self.image = image
        # A network that cannot be shown is refused now, not after the training.
        self._evaluate(evaluation_copy(history.model))
        history.optimizer.register_step_post_hook(self._after_step)

    def record(self, epochs):
        """Go through the epochs; copy the network before the first, and after each of them."""
        is_first = True
        try:
            for epoch in epochs:
                if is_first:
                    self._networks = []
                    self._early = {}
                    self._steps = 0
                    self.start = self.history.done
                    is_first = False
                self._networks.append(evaluation_copy(self.history.model))  # before this epoch
                yield epoch
        finally:  # also if the training is stopped, or the loop is left with `break`
            is_over = self.history.done == self.start + len(self._networks)
            if self._networks and is_over:  # the last epoch is in the curves, but not in the film
                self._networks.append(evaluation_copy(self.history.model))
            self._update_page()  # also what an interrupt kept from the page before

    def _after_step(self, *_):
        """Copy the network after 1, 2, 4, 8, ... steps of the first epoch."""
        if len(self._networks) == 1:
            self._steps += 1
            if self._steps == 2 ** len(self._early):
                self._early[self._steps] = evaluation_copy(self.history.model)

    def _frames(self):
        """All networks in order: (epochs that are over, steps since, network)."""
        before, *after = self._networks
        frames = [(0, 0, before)]
        if after:  # the first epoch is over
            for step, network in self._early.items():
                if step < self._steps:  # after its last step, the epoch is over
                    frames.append((0, step, network))
        for epoch, network in enumerate(after, 1):
            frames.append((epoch, 0, network))
        return frames

    def _evaluate(self, network):
        """What a frame shows: the first convolution's filters and maps, and the answer."""
        with torch.no_grad():
            scores, outputs = run_with_maps(network, self.image[None])
        if scores.shape != (1, 10):
            raise ValueError(
                f"a film shows ten probabilities; this network returns {list(scores.shape)}"
            )
        name, maps = next(iter(outputs.items()))
        return {
            "filters": network.get_submodule(name).weight.detach()[:, 0],
            "maps": maps[0, :MAPS].relu(),
            "answer": scores.softmax(dim=1)[0].tolist(),
        }

    def _update_page(self):
        """Compute what the page shows, from the network of each frame."""
        if not self._networks:
            return
        frames = self._frames()
        times = [(epoch, step) for epoch, step, _ in frames]
        shown = [self._evaluate(network) for _, _, network in frames]
        filters = torch.stack([frame["filters"] for frame in shown])
        maps = torch.stack([frame["maps"] for frame in shown])
        digit = self.image - self.image.min()
        with self.hold_sync():  # all of it reaches the page together
            self.sizes = {"filters": list(filters.shape[1:]), "maps": list(maps.shape[1:])}
            self.filters = to_bytes(128 + 127 * filters / filters.abs().max())
            self.maps = to_bytes(255 * maps / maps.max().clamp_min(1e-9))
            self.digit = to_bytes(255 * digit / digit.max().clamp_min(1e-9))
            self.times = times
            self.changes = get_changes(filters, times)
            self.measured_on = self.history.measured_on
            self.curves = {
                name: values[self.start :] for name, values in self.history.curves.items()
            }
            self.answers = [frame["answer"] for frame in shown]
        self._filters = filters

    def still_picture(self):
        """Four frames side by side: the filters, and the network's answer."""
        if self._filters is None:
            return None
        whole_epochs = [frame for frame, (_, step) in enumerate(self.times) if step == 0]
        last = len(whole_epochs) - 1
        epochs = sorted({0, min(1, last), round(0.2 * last), last})
        chosen = [whole_epochs[epoch] for epoch in epochs]
        columns = len(chosen)
        figure, axes = plt.subplots(
            1, columns, figsize=(9, 2.6), squeeze=False, layout="constrained"
        )
        largest = self._filters.abs().max()
        for ax, frame in zip(axes.flat, chosen):
            filters = self._filters[frame].unsqueeze(1)
            sheet = make_grid(filters, nrow=8, padding=1, pad_value=float("nan"))[0]
            ax.imshow(sheet.numpy(), cmap="bwr", vmin=-largest, vmax=largest)
            answer = self.answers[frame]
            digit = answer.index(max(answer))
            epoch = self.start + self.times[frame][0]
            when = f"after epoch {epoch}" if epoch else "before training"
            ax.set_title(f"{when}:\na {digit} ({max(answer):.0%})", fontsize=10)
            ax.axis("off")
        figure.suptitle("The filters of the first layer, and the answer", fontsize=11)
        file = io.BytesIO()
        figure.savefig(file, dpi=80)
        plt.close(figure)
        return file.getvalue()


def get_changes(filters, times):
    """How far the filters of each frame but the first moved since the epoch began, in %."""
    changes = []
    old = filters[0]
    for new, (_, step) in zip(filters[1:], times[1:]):
        changes.append(100 * ((new - old).norm() / old.norm()).item())
        if step == 0:  # the next epoch begins
            old = new
    return changes


def to_bytes(tensor):
    return tensor.round().to(torch.uint8).numpy().tobytes()
