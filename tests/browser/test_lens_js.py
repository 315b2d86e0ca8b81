"""The lens without a kernel: what it shows of a cell, and how a cell is chosen.

That its arithmetic is PyTorch's is tested in test_layers_js.py.
"""

import functools
import math
import re

import pytest
import torch
from browsing import change, choose_layer, encoded, seven, show, texts

from course.checkpoints import get_trained
from course.widgets.lens import ConvolutionLens, trace
from model import Net, NetMini

CAPTION = ".lens-caption"
SENTENCE = ".lens-sum"


@functools.cache
def lens_on(Network):
    return ConvolutionLens(get_trained(Network).eval(), seven())


@pytest.fixture
def page(blank):
    return blank


@pytest.fixture
def lens(page):
    """The lens on `Net`."""
    show(page, lens_on(Net))
    return lens_on(Net)


@pytest.fixture
def mini(page):
    """The lens on `NetMini`, which has a layer of each kind."""
    show(page, lens_on(NetMini))
    return lens_on(NetMini)


def choose_map(page, field, number):
    page.locator(".lens-tools input").nth(field).fill(str(number))
    page.locator(".lens-tools input").nth(field).press("Enter")


def said(page):
    return page.locator(SENTENCE).inner_text().replace("−", "-").replace("·", "*")


def numbers_in(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def maps_of(lens, number):
    """What a layer computed, as a tensor."""
    layer = lens.layers[number]
    numbers = torch.frombuffer(bytearray(lens.buffer), dtype=torch.float32)
    return numbers[layer["offset"] :][: math.prod(layer["shape"])].view(layer["shape"])


def table(page, place):
    rows = page.locator(".lens-sum table").nth(place).locator("tr").all()
    return torch.tensor([numbers_in(" ".join(texts(row, "td")).replace("−", "-")) for row in rows])


def move_to(page, x, y):
    """Point at a place on the map, given as shares of its width and height."""
    box = page.locator(".lens-map").bounding_box()
    page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)


def box_over(page, number):
    """Where a box begins, in per cent of its picture."""
    left = "box => [box.style.left, box.style.top].map(parseFloat)"
    return page.locator(".lens-box").nth(number).evaluate(left)


def test_a_cell_of_the_first_layer_by_mouse_and_keys(page, lens):
    """Patch times filter are the products, and their sum with the bias is PyTorch's number."""
    filters = get_trained(Net).conv1.weight[0, 0].detach()
    outputs = maps_of(lens, 1)[0]
    move_to(page, 10.5 / 26, 4.5 / 26)
    assert texts(page, CAPTION) == ["map 1 of 32: 26 × 26 cells; row 5, column 11"]
    assert box_over(page, 1) == pytest.approx([1000 / 26, 400 / 26], abs=0.01)
    assert page.locator(".lens-from").is_hidden(), "there is one input map"
    seen = table(page, 0)
    weights = table(page, 1)
    products = table(page, 2)
    torch.testing.assert_close(seen, seven()[0, 4:7, 10:13], atol=0.006, rtol=0)
    torch.testing.assert_close(weights, filters, atol=0.006, rtol=0)
    torch.testing.assert_close(seen * weights, products, atol=0.03, rtol=0)
    assert said(page).endswith(f"= {outputs[4, 10]:.3f}.")
    page.locator(".lens-map").press("ArrowDown")
    page.locator(".lens-map").press("ArrowLeft")
    assert texts(page, CAPTION)[0].endswith("row 6, column 10")
    assert said(page).endswith(f"= {outputs[5, 9]:.3f}.")
    assert box_over(page, 0) == pytest.approx([900 / 28, 500 / 28], abs=0.01), "its field"


def test_it_starts_at_the_brightest_cell_and_the_strongest_input_map(page, lens):
    """Notices: the darkest cell, the weakest map, a wrong contribution, a bias counted twice."""
    number = choose_layer(page, "conv2")
    conv2 = get_trained(Net).conv2
    outputs = maps_of(lens, number)[0]
    row, column = divmod(int(outputs.argmax()), 24)
    assert texts(page, CAPTION)[0].endswith(f"row {row + 1}, column {column + 1}")
    inputs = maps_of(lens, number - 1)[:, row : row + 3, column : column + 3]
    sums = (inputs * conv2.weight[0].detach()).sum(dim=(1, 2))
    strongest = int(sums.abs().argmax())
    assert f"Input map {strongest + 1}, from ReLU 1, contributes" in said(page)
    assert page.locator(".lens-from").is_visible()
    bias, total = conv2.bias[0].item(), sums.sum().item()
    expected = [sums[strongest].item(), total, total, abs(bias), total + bias]
    assert numbers_in(said(page).split("contributes")[1]) == pytest.approx(expected, abs=0.002)


def test_pictures_and_tables_are_coloured_by_size(page, lens):
    outputs = maps_of(lens, choose_layer(page, "conv2"))[0]
    code = "map => [...map.getContext('2d').getImageData(0, 0, map.width, map.height).data]"
    pixels = torch.tensor(page.locator(".lens-map").evaluate(code)).view(24, 24, 4)[:, :, 0]
    assert pixels.view(-1)[outputs.argmax()] == 255 and pixels.view(-1)[outputs.argmin()] == 0
    kernels = get_trained(Net).conv2.weight[0].sum(dim=(1, 2))
    choose_map(page, 1, int(kernels.argmin()) + 1)  # its products are negative
    read = "all => all.map((cell) => [cell.textContent, cell.style.background])"
    cells = page.locator(".lens-sum td").evaluate_all(read)
    blue = {text for text, colour in cells if "61, 139, 253" in colour} - {"0.00"}
    red = {text for text, colour in cells if "214, 39, 40" in colour} - {"0.00"}
    assert blue and all(text.startswith("−") for text in blue)
    assert red and not any(text.startswith("−") for text in red)


SENTENCES = {
    "image": "A pixel of the digit, normalised",
    "block2.0": "from pool1, contributes",
    "batch norm": "Batch norm subtracts",
    "ReLU": "replaces negative ones by 0",
    "max-pooling": "The largest of these numbers",
    "average pooling": "The mean of these numbers",
    "linear layer": "A weighted sum of all 12 numbers",
    "log-softmax": "The probability is",
}


def test_each_kind_of_layer_has_its_sentence(page, mini):
    for name, words in SENTENCES.items():
        choose_layer(page, name)
        assert words in said(page), name


def test_maps_can_be_chosen_within_their_number(page, mini):
    choose_layer(page, "block2.0")
    before = page.locator(".lens-map").screenshot()
    choose_map(page, 0, 3)
    assert texts(page, CAPTION)[0].startswith("map 3 of 12: ")
    assert page.locator(".lens-map").screenshot() != before
    choose_map(page, 1, 99)
    assert "Input map 10, from pool1" in said(page), "there are ten"


def test_batch_norms_sentence_makes_its_result(page, mini):
    """Notices: a mean or a shift with the wrong sign."""
    choose_layer(page, "batch norm")
    left, right = said(page).split("shifts: ")[1].rstrip(".").split(" = ")
    assert eval(left) == pytest.approx(float(right), abs=0.03)


def test_relus_sentence_has_both_numbers(page, mini):
    before = maps_of(mini, choose_layer(page, "ReLU") - 1)[0]
    row, column = divmod(int(before.argmin()), before.shape[1])
    move_to(page, (column + 0.5) / before.shape[1], (row + 0.5) / before.shape[0])
    assert before.min() < 0
    assert numbers_in(said(page)) == pytest.approx([before.min().item(), 0], abs=0.001)


def test_a_linear_layers_sentence_has_the_strongest_products(page, mini):
    """Notices: the weakest products, and a bias with the wrong sign."""
    number = choose_layer(page, "linear layer")
    products, total = said(page).split("All together")
    listed = [numbers_in(part) for part in products.split("products:")[1].split(";")]
    assert all(a * b == pytest.approx(c, abs=0.02) for a, b, c in listed) and len(listed) == 5
    digit = int(maps_of(mini, number).argmax())
    weights = get_trained(NetMini).classes.weight[digit].detach()
    sizes = (weights * maps_of(mini, number - 1).flatten()).abs().sort(descending=True).values
    assert [abs(c) for *_, c in listed] == pytest.approx(sizes[:5].tolist(), abs=0.002)
    left, right = total.split("bias ")[1].rstrip(".").split(" = ")
    assert eval(left) == pytest.approx(float(right), abs=0.002)


def test_log_softmaxs_sentence_leads_to_a_digits_probability(page, mini):
    choose_layer(page, "log-softmax")
    assert texts(page, CAPTION) == ["map 1 of 1: for the digit 7"]
    score, total, result, percent = numbers_in(said(page))
    assert score - total == pytest.approx(result, abs=0.002)
    assert percent == pytest.approx(100 * math.exp(result), abs=0.1)
    for _ in range(4):
        page.locator(".lens-map").press("ArrowRight")
    assert texts(page, CAPTION) == ["map 1 of 1: for the digit 9"], "the keys stop at the edge"


def test_another_layer_starts_over(page, mini):
    choose_layer(page, "block2.0")
    start = texts(page, CAPTION), said(page)
    choose_map(page, 1, 5)
    page.locator(".lens-map").press("ArrowUp")
    assert "Input map 5," in said(page) and texts(page, CAPTION) != start[0]
    choose_layer(page, "image")
    choose_layer(page, "block2.0")
    assert (texts(page, CAPTION), said(page)) == start


def test_a_click_holds_the_cell(page, mini):
    move_to(page, 0.5, 0.5)
    page.mouse.down()
    page.mouse.up()
    move_to(page, 0.9, 0.9)
    assert texts(page, CAPTION)[0].endswith("row 14, column 14 (held: click to let go)")
    page.mouse.down()
    assert texts(page, CAPTION)[0].endswith("row 24, column 24")


def test_a_finger_draws_the_lens_along_each_time(page, mini):
    box = page.locator(".lens-map").bounding_box()

    def touch(event, share, **named):
        place = {"clientX": box["x"] + box["width"] * share}
        place |= {"clientY": box["y"] + box["height"] * share}
        kind = {"pointerType": "touch", "button": 0} | named
        page.locator(".lens-map").dispatch_event(event, place | kind)
        return texts(page, CAPTION)[0]

    for _ in range(2):
        assert touch("pointerdown", 0.5).endswith("row 14, column 14")
        assert touch("pointermove", 0.9, button=-1).endswith("row 24, column 24")
    touch("pointerdown", 0.5, pointerType="mouse", button=2)
    assert "held" not in touch("pointermove", 0.5, button=-1), "the right button holds nothing"


def test_a_number_of_a_linear_layer_sees_the_whole_digit(page, lens):
    for name in ["fc1", "fc2", "log-softmax"]:
        choose_layer(page, name)
        page.locator(".lens-map").press("ArrowRight")
        assert box_over(page, 0) == [0, 0]
        style = page.locator(".lens-box").first.get_attribute("style")
        assert "width: 100%" in style and "height: 100%" in style
        assert ("for the digit" in texts(page, CAPTION)[0]) == (name != "fc1")


def test_another_digit_from_python_is_shown_and_the_layer_stays(page, mini):
    number = choose_layer(page, "log-softmax")
    before = page.locator(".lens canvas").first.screenshot()
    layers, numbers = trace(get_trained(NetMini), -seven())
    change(page, layers=layers, buffer=encoded(numbers))
    assert page.locator(".lens canvas").first.screenshot() != before
    assert page.locator("select").input_value() == str(number)
    assert "for the digit" in texts(page, CAPTION)[0]


def test_on_a_phone_the_map_and_its_sums_are_on_one_screen(page, mini):
    page.set_viewport_size({"width": 390, "height": 844})
    choose_layer(page, "block2.0")  # with several input maps
    box = page.locator(".lens-sum").bounding_box()
    assert page.locator(".lens-map").bounding_box()["y"] > 0
    assert box["y"] + box["height"] <= 844


def test_home_and_end_lead_to_the_edges_of_a_map_and_the_page_stays(page, mini):
    page.evaluate("document.querySelector('.lens').style.marginBottom = '3000px'")
    page.locator(".lens-map").focus()
    page.evaluate("scrollTo(0, 20)")
    for key, place in {"Home": "column 1", "End": "column 26", "PageUp": "row 1, "}.items():
        page.keyboard.press(key)
        assert place in texts(page, ".lens-caption")[0] and page.evaluate("scrollY") == 20


def test_relu_is_drawn_with_its_number_on_the_curve(page, mini):
    choose_layer(page, "ReLU")
    page.locator(".lens-map").focus()
    places = set()
    for key in ["Home", *["ArrowRight"] * 25]:
        page.keyboard.press(key)
        dot = page.locator(".lens-sum circle")
        x, y = float(dot.get_attribute("cx")), float(dot.get_attribute("cy"))
        assert y == pytest.approx(min(60, 60 - (x - 60)), abs=0.01), "on the curve"
        places.add(round(x))
    assert len(places) > 3


def test_a_linear_layer_is_drawn_as_bars_that_add_up(page, mini):
    choose_layer(page, "linear layer")
    numbers = [float(text.replace("−", "-")) for text in texts(page, ".lens-bars td:last-child")]
    result = float(page.locator(".lens-sum b").inner_text().replace("−", "-"))
    assert sum(numbers) == pytest.approx(result, abs=0.005)
    width = "all => all.map((bar) => parseFloat(bar.style.width))"
    widths = torch.tensor(page.locator(".lens-bars td > div").evaluate_all(width))
    sizes = torch.tensor(numbers).abs()
    torch.testing.assert_close(widths, 50 * sizes / sizes.max(), atol=0.2, rtol=0)
