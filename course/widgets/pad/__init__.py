"""A pad to draw digits on: while you draw, the network says which digit it sees.

    DigitPad(model)

It works in JupyterLab, Jupyter Notebook 7, VS Code and Colab, with mouse, finger and keyboard.
This file holds what happens in Python; pad.js and pad.css are what you see in the browser.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from course.insight import answering_copy
from course.widgets.look import Widget
from utils import MEAN, STD, warp

TINY = 1e-6  # breaks ties in rounding, because sums may differ in their last digits


def prepare(drawing):
    """Turn a drawing into a picture like MNIST's; return None if it is empty.

    `drawing` holds the ink, from 0 to 255, on a pad of any size. As in MNIST, the digit is scaled to
    fit 20×20 pixels and placed in 28×28 pixels with its centre of mass in the middle. A drawing
    smaller than a fifth of the pad is enlarged less, or a dot would look like a filled zero.
    A picture whose border is not black is taken for a photo: see `find_ink`.
    Doubles, and `TINY`, make sure that the website's engine arrives at the same pixels.
    """
    border = torch.cat([drawing[0], drawing[-1], drawing[:, 0], drawing[:, -1]])
    if (border > 0).float().mean() > 0.9:
        drawing = find_ink(drawing)
    inked_rows, inked_columns = ((drawing > 0).any(dim=dim).nonzero() for dim in (1, 0))
    if len(inked_rows) == 0:
        return None
    digit = drawing[
        inked_rows.min() : inked_rows.max() + 1, inked_columns.min() : inked_columns.max() + 1
    ]
    scale = 20 / max(*digit.shape, max(drawing.shape) / 5)
    rows, columns = (max(1, round(scale * length)) for length in digit.shape)
    digit = digit[None, None].double()
    digit = F.interpolate(digit, size=(rows, columns), mode="bilinear", antialias=True)[0, 0]
    top, left = _start(digit.sum(dim=1)), _start(digit.sum(dim=0))
    picture = torch.zeros(28, 28, dtype=torch.float64)
    picture[top : top + rows, left : left + columns] = digit
    return (255 * picture / picture.max() + TINY).round().to(torch.uint8)


def find_ink(photo):
    """Turn a photo of a digit on paper, or of chalk on a board, into a drawing: 255 for ink, 0 elsewhere."""
    grey = photo[None, None].float()
    grey = F.interpolate(
        grey, scale_factor=min(1, 140 / max(photo.shape)), mode="bilinear", antialias=True
    )
    if grey.median() < 128:
        grey = 255 - grey  # a board: make it paper
    # Fill in what is darker than its surroundings and narrower than 35 pixels. What is left is the paper.
    paper = -F.max_pool2d(-F.max_pool2d(grey, 35, 1, padding=17), 35, 1, padding=17)
    darkness = (paper - grey)[0, 0]
    if darkness.max() < 1:
        return photo  # all of it is equally bright
    return 255 * (darkness > darkness.max() / 2).to(torch.uint8)


def _start(ink):
    """Return where in 28 pixels the digit must begin, so that its centre of mass is in the middle."""
    centre = (ink * (torch.arange(len(ink)) + 0.5)).sum() / ink.sum()
    start = math.ceil(14 - centre.item() - TINY)  # rounded up, as all of MNIST's digits are
    return min(max(start, 0), 28 - len(ink))


def variations(views):
    """How the views of a drawing differ, always the same way: a dict of angles, shifts and scales."""
    # A generator of its own, so that drawing does not change the random numbers of a training run.
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
    with torch.no_grad():
        return model(((varied - MEAN) / STD).float()).softmax(dim=1).mean(dim=0)


class DigitPad(Widget):
    """A widget to draw on. It keeps a copy of the model as it is now; make a new pad after training."""

    _esm = Widget.script(Path(__file__).parent / "pad.js")
    _css = Widget.css(Path(__file__).parent / "pad.css")
    preview = "digit_pad.png"

    def __init__(self, model):
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"DigitPad needs a network, as in DigitPad(model), not a {type(model).__name__}"
            )
        self._network = answering_copy(model)
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
        picture = prepare(
            torch.frombuffer(bytearray(buffers[0]), dtype=torch.uint8).view(size, size)
        )
        self.picture = picture
        if picture is None:
            self.send(question | {"probabilities": None}, [bytes(28 * 28)])
        else:
            probabilities = recognise(self._network, picture).tolist()
            self.send(question | {"probabilities": probabilities}, [picture.numpy().tobytes()])

    def __repr__(self):
        return f"DigitPad({type(self._network).__name__})"
