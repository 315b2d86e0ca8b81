"""The lens's overview: all maps of all layers in small pictures, and the network's answer."""

import pytest
import torch
from browsing import change, encoded, seven, show, texts
from test_lens_js import maps_of

import utils
from course.checkpoints import get_trained
from course.widgets.lens import ConvolutionLens
from model import NetMini

PER_ROW = 16  # maps


@pytest.fixture
def network():
    return get_trained(NetMini).eval()


@pytest.fixture
def lens(page, network):
    lens = ConvolutionLens(network, seven())
    show(page, lens)
    page.get_by_role("button", name="All maps").click()
    return lens


def picture(page, layer):
    return page.locator(".lens-overview canvas").nth(layer)


def click_on_map(page, layer, number, shape):
    box = picture(page, layer).bounding_box()
    columns = min(shape[0], PER_ROW)
    x = (number % columns + 0.5) * box["width"] / columns
    picture(page, layer).click(position={"x": x, "y": box["height"] / 2})


PIXELS = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.width, [...data].filter((_, n) => n % 4 === 0)];
}"""


def pixels(page, layer):
    width, shades = picture(page, layer).evaluate(PIXELS)
    return torch.tensor(shades).view(-1, width)


def greys(cells):
    """As a map is drawn: from its darkest number to its brightest."""
    return 255 * (cells - cells.min()) / (cells.max() - cells.min())


def test_it_opens_on_demand_and_shows_each_layer_in_order(page, network):
    lens = ConvolutionLens(network, seven())
    show(page, lens)
    button = page.get_by_role("button", name="All maps")
    assert page.locator(".lens-overview").is_hidden()
    button.click()
    titles = texts(page, ".lens-overview figcaption")
    options = texts(page, ".lens-tools option")
    assert [title.split(":")[0] for title in titles] == [text.split(":")[0] for text in options]
    assert len(titles) == len(lens.layers)
    button.click()
    assert page.locator(".lens-overview").is_hidden()


def test_each_small_picture_is_its_map(page, lens):
    number = 3  # the first ReLU
    maps = maps_of(lens, number)
    side = maps.shape[1]
    shown = pixels(page, number)
    for place, cells in enumerate(maps):
        left = place * (side + 1)
        assert (shown[:side, left : left + side] - greys(cells)).abs().max() <= 1, place


def test_single_numbers_are_compared_with_one_another(page, lens):
    number = len(lens.layers) - 3  # average pooling
    assert lens.layers[number]["shape"] == [12, 1, 1]
    shown = pixels(page, number)
    assert (shown[0] - greys(maps_of(lens, number).flatten())).abs().max() <= 1


@pytest.mark.parametrize("layer", [3, -3])
def test_a_click_on_a_map_opens_it_in_the_lens(page, lens, layer):
    number = layer % len(lens.layers)
    click_on_map(page, number, 6, lens.layers[number]["shape"])
    assert page.locator(".lens-tools select").input_value() == str(number)
    assert texts(page, ".lens-caption")[0].startswith("map 7 of ")


def test_enter_opens_the_layers_first_map(page, lens):
    picture(page, 3).press("Enter")
    assert page.locator(".lens-tools select").input_value() == "3"
    assert texts(page, ".lens-caption")[0].startswith("map 1 of ")


def test_another_digit_changes_the_pictures_and_the_answer(page, lens, network):
    images = utils.Normalize()(utils.shipped_digits()[0][:, 0])
    for image in images[[2, 5]]:
        other = ConvolutionLens(network, image)
        change(page, layers=other.layers, buffer=encoded(other.buffer))
        assert (pixels(page, 0) - greys(image[0])).abs().max() <= 1
        probabilities = network(image[None])[0].exp()
        expected = f"{probabilities.argmax()} ({100 * probabilities.max():.0f} %)"
        assert texts(page, ".lens-overview p") == [f"The network reads a {expected}."]
