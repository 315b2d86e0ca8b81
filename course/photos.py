"""Photos of handwritten digits: read the file, and find the ink.

    photo = read_photo("my_photo.jpg")
    ink = find_ink(photo)  # 255 where the digit is, 0 elsewhere

`prepare`, in course/widgets/pad, then makes a picture like MNIST's. It calls `find_ink` itself.
"""

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.functional import pil_to_tensor

__all__ = ["read_photo", "find_ink"]

SIZE = 140  # the longer side of a photo in which ink is looked for
STROKE = 35  # ink is narrower than this many pixels, paper is wider
FAINT = 0.1  # less than this share of the light is missing: no ink, but noise


def read_photo(path):
    """The grey values of a photo, [rows, columns]: upright, with at most 400×400 pixels."""
    try:
        photo = Image.open(path)
    except UnidentifiedImageError:
        raise ValueError(
            f"{path} cannot be read as a picture: save the photo as JPEG or PNG "
            "(HEIC, which many phones write, is not supported)"
        ) from None
    photo = ImageOps.exif_transpose(photo).convert("L")  # phones store how they were held
    photo.thumbnail((400, 400))
    return pil_to_tensor(photo)[0]


def find_ink(photo):
    """Find the digit in a photo of paper, or the chalk on a board: 255 where it is, 0 elsewhere.

    Paper may lie in a shadow, and a table may show around it.
    """
    grey = resize(photo.float(), scale_factor=min(1, SIZE / max(photo.shape)))
    if is_board(grey):
        grey = 255 - grey
    # Fill in all that is darker than its surroundings and narrow: this leaves the paper. A shadow
    # darkens ink and paper by the same factor, so their ratio stays.
    paper = erode(dilate(grey, STROKE), STROKE)
    darkness = 1 - grey / paper.clamp(min=1)
    if darkness.max() < FAINT:
        return photo  # all of it is equally bright
    ink = keep_together(remove_edges(darkness))
    return 255 * ink.to(torch.uint8)


def is_board(grey):
    """Whether a picture is dark, without a wide bright area: paper on a dark table has one."""
    brightest_area = erode(grey, 15).max()
    halfway = (grey.min() + grey.max()) / 2
    return grey.median() < 128 and brightest_area < halfway


def remove_edges(darkness):
    """1 where it is darkest, but for what touches the edges of the photo: a table, or a shadow."""
    edges = torch.ones_like(darkness)
    edges[1:-1, 1:-1] = 0
    everything = find_darkest(darkness)
    while darkness.max() > FAINT:
        ink = find_darkest(darkness)
        outside = spread(edges * ink, ink)
        if not outside.any():
            return ink
        darkness = darkness * (1 - dilate(outside, 5))  # with its blurred rim
    return everything  # a digit that fills the photo touches the edges, too


def find_darkest(darkness):
    return (darkness > darkness.max() / 2).float()


def keep_together(ink):
    """Keep the ink where most of it is, and what lies near it: the rest are specks."""
    density = F.avg_pool2d(ink[None], STROKE, stride=1, padding=STROKE // 2)[0]
    densest = (density == density.max()).float()
    return spread(ink * dilate(densest, STROKE), dilate(ink, 9)) * ink


def spread(start, mask):
    """All of the mask that can be reached from the start without leaving the mask."""
    reached = start
    while True:
        wider = dilate(reached, 3) * mask
        if torch.equal(wider, reached):
            return reached
        reached = wider


def dilate(picture, size):
    """Give each pixel the largest value in the square around it."""
    return F.max_pool2d(picture[None], size, stride=1, padding=size // 2)[0]


def erode(picture, size):
    """Give each pixel the smallest value in the square around it."""
    return -dilate(-picture, size)


def resize(picture, **size):
    """Scale a picture [rows, columns] to a `size`, or by a `scale_factor`."""
    pictures = picture[None, None]
    return F.interpolate(pictures, **size, mode="bilinear", antialias=True)[0, 0]
