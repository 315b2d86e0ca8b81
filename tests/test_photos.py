"""Photos: files are read upright, and digits are found on paper and boards of many kinds."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import utils
from course.checkpoints import get_trained
from course.photos import find_ink, read_photo
from course.widgets.pad import prepare
from model import Net

# --- Drawn photos: 320×240 grey values, with a digit in the middle --------------------------------


def write_on(paper, image, ink):
    """A photo of paper, with a real digit of 120×120 pixels on it."""
    photo = paper.clone()
    large = F.interpolate(image[None, None].float(), size=(120, 120), mode="bilinear")[0, 0]
    photo[100:220, 60:180][large > 110] = ink
    return photo


def plain(brightness):
    return torch.full((320, 240), float(brightness))


def gradient(left, right):
    return torch.linspace(left, right, 240).repeat(320, 1)


def in_hard_shadow(photo):
    """Its left half in the shade, along a slanted edge through the digit."""
    rows = torch.arange(320)[:, None]
    columns = torch.arange(240)
    return torch.where(columns + 0.3 * rows < 175, 0.5 * photo, photo)


def on_table(photo, brightness):
    """Paper on a table whose boards have dark gaps and a grain."""
    table = brightness * (1 + 0.15 * torch.sin(torch.arange(240) / 3)).repeat(320, 1)
    table[:, 20:240:60] = brightness / 2
    table[40:280, 30:210] = photo[40:280, 30:210]
    return table


def with_strip(photo, brightness):
    """At its left edge, the dark table shows."""
    photo = photo.clone()
    photo[:, :15] = brightness
    return photo


KINDS = {
    "black on white": lambda image: write_on(plain(255), image, ink=0),
    "in the shade of a hand": lambda image: write_on(gradient(120, 240), image, ink=50),
    "pencil": lambda image: write_on(gradient(200, 230), image, ink=130),
    "chalk on a board": lambda image: write_on(gradient(20, 90), image, ink=230),
    "half in a hard shadow": lambda image: in_hard_shadow(write_on(plain(210), image, ink=60)),
    "paper on a dark table": lambda image: on_table(write_on(plain(210), image, ink=40), 60),
    "paper on a light table": lambda image: on_table(write_on(plain(210), image, ink=40), 150),
    "a dark strip at an edge": lambda image: with_strip(write_on(plain(210), image, ink=60), 30),
    "pencil and a dark strip": lambda image: with_strip(write_on(plain(210), image, ink=130), 30),
}


@pytest.mark.parametrize("kind", KINDS)
def test_photos_of_digits_are_recognised(real_digits, kind):
    images, labels = real_digits
    pictures = []
    for image in images[:10]:
        photo = KINDS[kind](image)
        noise = 4 * torch.randn(photo.shape)
        pictures.append(prepare((photo + noise).clamp(1, 255).to(torch.uint8)))
    network = get_trained(Net).eval()
    with torch.no_grad():
        answers = network(utils.Normalize()(torch.stack(pictures))).argmax(dim=1)
    assert (answers == labels[:10]).float().mean() >= 0.9


# --- Where the ink is -----------------------------------------------------------------------------


def square(paper=200, ink=60):
    """A photo of 100×120 pixels with a small rectangle of ink."""
    photo = torch.full((100, 120), paper, dtype=torch.uint8)
    photo[40:60, 45:50] = ink
    return photo


def find(photo, brightness):
    """What is of this brightness in a photo, as `find_ink` shows what it finds."""
    return 255 * (photo == brightness).to(torch.uint8)


@pytest.mark.parametrize(("paper", "ink"), [(115, 250), (140, 10), (140, 90), (90, 140)])
def test_what_is_dark_on_paper_or_bright_on_a_board_is_ink(paper, ink):
    """Paper is brighter than the middle grey, a board darker; nothing else tells them apart."""
    photo = square(paper, ink)
    assert torch.equal(find_ink(photo), find(photo, ink))


# What is painted into a photo with ink of brightness 60: (rows, columns, brightness).
NO_INK = {
    "the edge of a shadow": (slice(0, 100), slice(70, 120), 120),
    "a shadow in a corner": (slice(0, 15), slice(0, 15), 100),
    "a speck far away": (slice(85, 86), slice(100, 104), 60),
}
OF_THE_DIGIT = {
    "nothing more": (slice(40, 60), slice(45, 50), 60),
    "a broken line below": (slice(63, 95), slice(46, 49), 60),
}


@pytest.mark.parametrize("other", NO_INK.values(), ids=NO_INK)
@pytest.mark.parametrize("more", OF_THE_DIGIT.values(), ids=OF_THE_DIGIT)
def test_shadows_and_specks_are_no_ink_but_the_digits_parts_are(more, other):
    photo = square()
    for rows, columns, brightness in [more, other]:
        expected = find(photo, 60)
        photo[rows, columns] = brightness
    assert torch.equal(find_ink(photo), expected)


def test_ink_in_a_shadow_is_as_dark_as_in_the_light_compared_with_the_paper():
    photo = square()
    photo[50:] = photo[50:] * 0.4
    assert torch.equal(find_ink(photo), find(square(), 60))


def test_paper_on_a_table_is_no_board():
    """Most of the photo is dark, but the paper is wider than any line of chalk."""
    photo = torch.full((100, 120), 50, dtype=torch.uint8)
    photo[20:80, 30:90] = 200
    photo[40:60, 45:50] = 70
    assert torch.equal(find_ink(photo), find(photo, 70))


def test_a_digit_that_fills_the_photo_is_found():
    photo = torch.full((100, 120), 200, dtype=torch.uint8)
    photo[:, 50:60] = 60
    photo[5:95, 49] = 140  # its blurred rim
    photo[:, 90:93] = 160  # a line on the paper
    assert torch.equal(find_ink(photo), find(photo, 60))


# --- Files ----------------------------------------------------------------------------------------


def test_a_photo_is_read_in_grey_upright_and_no_larger_than_needed(tmp_path):
    photo = Image.new("RGB", (1200, 800), "white")
    photo.paste("black", (0, 0, 1200, 100))  # at the top, but the phone was held sideways
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(tmp_path / "photo.jpg", exif=turned)
    grey = read_photo(tmp_path / "photo.jpg")
    assert grey.shape == (400, 267) and grey.dtype == torch.uint8
    assert grey[:, -20:].max() < 10 and grey[:, :-60].min() > 245


def test_a_format_that_cannot_be_read_gets_a_sentence(tmp_path):
    """A HEIC file begins like this one."""
    (tmp_path / "photo.heic").write_bytes(bytes.fromhex("00000018667479706865696300000000"))
    with pytest.raises(ValueError, match=r"photo.heic cannot be read .*: save .* as JPEG or PNG"):
        read_photo(tmp_path / "photo.heic")
