"""A pad to draw digits on: while you draw, the network says which digit it sees.

    DigitPad(model)

It works in JupyterLab, Jupyter Notebook 7, VS Code and Colab, with mouse, finger and keyboard.
This file holds what happens in Python; pad.js and pad.css are what you see in the browser.
"""

import math
from pathlib import Path

import torch
from torch import nn

from course.insight import evaluation_copy
from course.photos import find_ink, resize
from course.widgets.look import Widget
from utils import MEAN, STD, warp

TINY = 1e-6  # breaks ties in rounding, because sums may differ in their last digits


def prepare(drawing):
    """Turn a drawing into a picture like MNIST's; return None if it is empty.

    `drawing` holds the ink, from 0 to 255, on a pad of any size. As in MNIST, the digit is scaled
    to fit 20×20 pixels and placed in 28×28 pixels with its centre of mass in the middle. A drawing
    smaller than a fifth of the pad is enlarged less, or a dot would look like a filled zero.
    A picture whose border is not black is taken for a photo: see `find_ink` in course/photos.py.
    Doubles, and `TINY`, make sure that the website's engine arrives at the same pixels.
    """
    if has_bright_border(drawing):
        drawing = find_ink(drawing)
    if not drawing.any():
        return None
    digit = crop(drawing)
    scale = 20 / max(*digit.shape, max(drawing.shape) / 5)
    height = max(1, round(scale * digit.shape[0]))
    width = max(1, round(scale * digit.shape[1]))
    digit = resize(digit.double(), size=(height, width))
    top = first_pixel(digit.sum(dim=1))
    left = first_pixel(digit.sum(dim=0))
    picture = torch.zeros(28, 28, dtype=torch.float64)
    picture[top : top + height, left : left + width] = digit
    return (255 * picture / picture.max() + TINY).round().to(torch.uint8)


def has_bright_border(picture):
    """Whether nearly all pixels at the edges are brighter than 0, as in a photo."""
    border = torch.cat([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return (border > 0).float().mean() > 0.9


def crop(drawing):
    """The smallest rectangle that holds all ink."""
    rows = drawing.any(dim=1).nonzero()
    columns = drawing.any(dim=0).nonzero()
    return drawing[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def first_pixel(ink):
    """Where in 28 pixels a digit must begin, so that its centre of mass is in the middle."""
    centre = (ink * (torch.arange(len(ink)) + 0.5)).sum() / ink.sum()
    start = math.ceil(14 - centre.item() - TINY)  # rounded up, as all of MNIST's digits are
    return min(max(start, 0), 28 - len(ink))


def variations(views):
    """The angles, shifts and scales of a drawing's views: by name, and always the same."""
    # A generator of its own: drawing must not change the random numbers of a training run.
    generator = torch.Generator().manual_seed(0)

    def up_to(limit, *shape):
        return (2 * torch.rand(views, *shape, generator=generator).double() - 1) * limit

    return {"angle": up_to(15), "shift": up_to(2, 2), "scale": 1 + up_to(0.12)}


def recognise(model, picture, views=16):
    """Return ten probabilities: the mean over slightly varied views of the picture.

    The views of a digit agree. Those of a scribble disagree, so no mean probability is high.
    """
    images = picture.expand(views, 1, 28, 28).double() / 255
    varied = warp(images, **variations(views), smooth=True)
    normalised = ((varied - MEAN) / STD).float()
    with torch.no_grad():
        return model(normalised).softmax(dim=1).mean(dim=0)


class DigitPad(Widget):
    """A widget to draw on. It copies the model as it is now: after training, make a new pad."""

    _esm = Widget.script(Path(__file__).parent / "pad.js")
    _css = Widget.css(Path(__file__).parent / "pad.css")
    preview = "digit_pad.png"

    def __init__(self, model):
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"DigitPad needs a network, as in DigitPad(model), not a {type(model).__name__}"
            )
        self._network = evaluation_copy(model)
        with torch.no_grad():
            shape = list(self._network(torch.zeros(1, 1, 28, 28)).shape)
        if shape != [1, 10]:
            raise ValueError(f"DigitPad needs a network whose output is [1, 10], not {shape}")
        super().__init__()
        self.picture = None  # the latest drawing, as the network sees it: uint8 [28, 28]
        self.on_msg(self._answer)

    def _answer(self, _, question, buffers):
        """Send the network's answer to the drawing in `question` back to the page."""
        size = question["size"]
        drawing = torch.frombuffer(bytearray(buffers[0]), dtype=torch.uint8).view(size, size)
        self.picture = prepare(drawing)
        if self.picture is None:
            probabilities = None
            pixels = bytes(28 * 28)
        else:
            probabilities = recognise(self._network, self.picture).tolist()
            pixels = self.picture.numpy().tobytes()
        self.send(question | {"probabilities": probabilities}, [pixels])

    def __repr__(self):
        return f"DigitPad({type(self._network).__name__})"
