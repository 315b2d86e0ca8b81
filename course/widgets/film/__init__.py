"""A film of a training run: move a slider over its epochs, and see what the network had learned by then.

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

from course.insight import answering_copy, watching
from course.widgets.look import DigitWidget


class TrainingFilm(DigitWidget):
    """A widget with a frame for each epoch, and one from before training.

    Set `film.image` to ask about another digit: the networks of all epochs answer.
    """

    _esm = DigitWidget.script(Path(__file__).parent / "film.js")
    _css = DigitWidget.css(Path(__file__).parent / "film.css")

    filters = traitlets.Bytes().tag(
        sync=True
    )  # of the first convolution, frame after frame: bytes, 128 is 0
    maps = traitlets.Bytes().tag(sync=True)  # its first maps of the digit, from 0 to 255
    digit = traitlets.Bytes().tag(sync=True)
    sizes = traitlets.Dict().tag(sync=True)  # how many filters and maps, and their widths
    answers = traitlets.List().tag(sync=True)  # ten probabilities a frame
    changes = traitlets.List().tag(sync=True)  # of the filters in each epoch, in % of their size
    curves = traitlets.Dict().tag(sync=True)
    measured_on = traitlets.Unicode().tag(sync=True)
    start = traitlets.Int().tag(sync=True)  # how many epochs were over before the first frame

    MAPS = 8

    def __init__(self, history, image):
        super().__init__()
        self.history, self._frames = history, []
        self.image = image
        self._look(
            self._frame()
        )  # a network that it cannot show is refused now, not after the training

    def record(self, epochs):
        """Go through the epochs, and keep the network as it is before the first and after each of them."""
        frames = []
        try:
            for epoch in epochs:
                done = self.history.done
                if not frames:
                    frames, start = [self._frame()], done
                try:
                    yield epoch
                finally:  # also if the loop is left with `break`
                    if self.history.done > done:
                        frames.append(self._frame())
        finally:  # also if the training is stopped
            if frames:
                self._frames, self.start = frames, start
                self._update_page()

    def _frame(self):
        return answering_copy(self.history.model)

    def _look(self, network):
        """The filters of the first convolution, what they make of the digit, and the network's answer."""
        with torch.no_grad(), watching(network) as outputs:
            answer = network(self.image[None])
        if answer.shape != (1, 10):
            raise ValueError(
                f"a film shows ten probabilities; this network returns {list(answer.shape)}"
            )
        name, maps = next(iter(outputs.items()))
        filters = network.get_submodule(name).weight.detach()[:, 0]
        return filters, maps[0, : self.MAPS].relu(), answer.softmax(dim=1)[0].tolist()

    def _update_page(self):
        """Compute what the page shows, from the networks that were kept."""
        if not self._frames:
            return
        filters, maps, answers = zip(*map(self._look, self._frames))
        self._filters = filters = torch.stack(filters)
        maps = torch.stack(maps)
        with self.hold_sync():  # all of it reaches the page together
            self.sizes = {"filters": list(filters.shape[1:]), "maps": list(maps.shape[1:])}
            self.filters = _as_bytes(128 + 127 * filters / filters.abs().max())
            self.maps = _as_bytes(255 * maps / maps.max().clamp_min(1e-9))
            self.digit = _as_bytes(
                255 * (self.image - self.image.min()) / (self.image.max() - self.image.min())
            )
            steps = zip(filters, filters[1:])
            self.changes = [100 * ((new - old).norm() / old.norm()).item() for old, new in steps]
            self.measured_on = self.history.measured_on
            self.curves = {
                name: values[self.start :] for name, values in self.history.curves.items()
            }
            self.answers = list(answers)

    def still(self):
        """Four frames side by side: the filters, and the network's answer."""
        if not self._frames:
            return None
        last = len(self._frames) - 1
        chosen = sorted({round(last * share) for share in (0, 0.1, 0.4, 1)})
        figure, axes = plt.subplots(
            1, len(chosen), figsize=(9, 2.6), squeeze=False, layout="constrained"
        )
        filters = self._filters
        for ax, frame in zip(axes[0], chosen):
            sheet = make_grid(filters[frame, :, None], nrow=8, padding=1, pad_value=float("nan"))[0]
            ax.imshow(
                sheet.numpy(), cmap="bwr", vmin=-filters.abs().max(), vmax=filters.abs().max()
            )
            answer = torch.tensor(self.answers[frame])
            when = f"after epoch {self.start + frame}" if self.start + frame else "before training"
            ax.set_title(f"{when}:\na {answer.argmax()} ({answer.max():.0%})", fontsize=10)
            ax.axis("off")
        figure.suptitle("The filters of the first layer, and the answer", fontsize=11)
        file = io.BytesIO()
        figure.savefig(file, dpi=80)
        plt.close(figure)
        return file.getvalue()


def _as_bytes(tensor):
    return tensor.round().to(torch.uint8).numpy().tobytes()
