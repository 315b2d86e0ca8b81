"""The lens's JavaScript: each cell it explains is PyTorch's, and the lens itself without any kernel."""

import base64
import math
import re

import pytest
import torch
import torch.nn.functional as F
from browsing import PICTURES, load_module
from helpers import HERE
from torch import nn

import utils
from course.checkpoints import get_trained
from course.widgets.lens import ConvolutionLens, trace
from model import Net, NetFC, NetGAP, NetMicro, NetMini

FILES = HERE / "course" / "widgets" / "lens"
DIGIT = utils.Normalize()(utils.shipped_digits()[0][7, :1])[0]  # a real 7

DECODE = "Float32Array.from(new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer))"
EXPLAIN = f"""(lens, [text, layers, cells]) => {{
  const numbers = {DECODE};
  return cells.map((cell) => {{
    const {{ kind, result }} = lens.explain(lens.connect(layers, numbers)[cell[0]], ...cell.slice(1));
    return [kind, result];
  }});
}}"""


@pytest.fixture
def lens_js(page):
    return load_module(page, FILES / "lens.js")


def encoded(numbers):
    return base64.b64encode(numbers.numpy().tobytes()).decode()


@pytest.mark.parametrize("Network", [Net, NetGAP, NetFC, NetMini, NetMicro])
def test_every_kind_of_layer_is_worked_out_as_pytorch_does(lens_js, Network):
    """Notices a wrong corner, padding, stride, map or bias: cells at the edges and within, of all layers."""
    layers, numbers = trace(get_trained(Network), DIGIT)
    cells, expected = [], []
    for place, layer in enumerate(layers):
        maps, height, width = layer["shape"]
        for _ in range(6):
            map_, row, column = (int(torch.randint(0, size, ())) for size in (maps, height, width))
            cells.append([place, map_, row, column])
            expected.append(
                (
                    layer["kind"],
                    numbers[layer["offset"] + (map_ * height + row) * width + column].item(),
                )
            )
        cells.append([place, 0, 0, 0])
        expected.append((layer["kind"], numbers[layer["offset"]].item()))
    found = lens_js.evaluate(EXPLAIN, [encoded(numbers), layers, cells])
    for (kind, result), (expected_kind, expected_result) in zip(found, expected):
        assert kind == expected_kind != ""
        assert result == pytest.approx(expected_result, abs=1e-4, rel=1e-4)


def test_batch_norm_after_a_linear_layer_or_without_weights(lens_js):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3, stride=3), nn.BatchNorm2d(2, affine=False), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(162, 20), nn.BatchNorm1d(20), nn.Linear(20, 10))
    network(torch.randn(50, 1, 28, 28))  # gives batch norm its statistics
    nn.init.normal_(network[4].weight)
    table, numbers = trace(network, DIGIT)
    cells = [[2, map_, 4, 5] for map_ in range(2)] + [[4, 0, 0, column] for column in range(20)]
    assert [table[place]["name"] for place in (2, 4)] == ["batch norm", "4"]
    found = lens_js.evaluate(EXPLAIN, [encoded(numbers), table, cells])
    for (kind, result), (place, map_, row, column) in zip(found, cells):
        _, height, width = table[place]["shape"]
        expected = numbers[table[place]["offset"] + (map_ * height + row) * width + column].item()
        assert kind == "batch norm" and result == pytest.approx(expected, abs=1e-4)


def test_the_numbers_noted_are_those_of_the_forward_pass():
    network = get_trained(Net).eval()
    layers, numbers = trace(network, DIGIT)
    with torch.no_grad():
        first = F.relu(network.conv1(DIGIT[None]))[0]
        last = network(DIGIT[None])[0]
    assert [layer["name"] for layer in layers[:3]] == ["image", "conv1", "ReLU 1"]
    at = layers[2]["offset"]
    torch.testing.assert_close(numbers[at : at + first.numel()].view_as(first), first)
    torch.testing.assert_close(numbers[layers[-1]["offset"] :][:10], last)


class Branched(nn.Module):
    """Adds the image to what a convolution makes of it, and ends in a function that is not explained."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.fc = nn.Linear(784, 10)

    def forward(self, x):
        return torch.tanh(self.fc((F.relu(self.conv(x)) + x).flatten(1)))


def test_what_the_lens_cannot_explain_it_says_so(lens_js):
    """Notices a result that is explained in a way in which PyTorch did not compute it."""
    layers, numbers = trace(Branched(), DIGIT)
    cells = [[place, 0, 0, 5] for place in range(len(layers))]
    kinds = [kind for kind, _ in lens_js.evaluate(EXPLAIN, [encoded(numbers), layers, cells])]
    assert kinds == ["image", "convolution", "ReLU", "", "linear layer", ""]


def test_large_scores_are_explained(lens_js):
    """Notices: exponentials that become infinite."""
    layers = [{"offset": 0, "shape": [1, 1, 2]}, {"kind": "log-softmax", "offset": 2, "shape": [1, 1, 2]}]
    numbers = torch.tensor([1000.0, 0, 0, -1000])
    found = lens_js.evaluate(EXPLAIN, [encoded(numbers), layers, [[1, 0, 0, 0], [1, 0, 0, 1]]])
    assert found == [["log-softmax", 0], ["log-softmax", -1000]]


def test_the_field_of_a_cell_stays_on_the_image(lens_js):
    field = "(lens, [layer, row, column]) => lens.fieldOf(layer, row, column)"
    layer = {"start": -2, "jump": 2, "field": 7}
    assert lens_js.evaluate(field, [layer, 0, 3]) == [4, 0, 7, 5]
    assert lens_js.evaluate(field, [layer, 13, 13]) == [24, 24, 4, 4]


# --- The lens, without a kernel -----------------------------------------------------------------------------

SHOW = f"""(lens, [css, layers, text]) => {{
  document.head.appendChild(document.createElement("style")).textContent = css;
  window.values = {{ layers, buffer: new DataView({DECODE}.buffer) }};
  window.heard = {{}};
  const model = {{
    get: (name) => values[name],
    on: (name, hear) => {{ heard[name] = hear; }},
    off: (name) => {{ delete heard[name]; }},
  }};
  window.close = lens.default.render({{ model, el: document.body }});
}}"""


RENEW = f"""([layers, text]) => {{
  values = {{ layers, buffer: new DataView({DECODE}.buffer) }};
  heard["change:buffer"]();
}}"""


def show(page, lens_js, network):
    layers, numbers = trace(network, DIGIT)
    lens_js.evaluate(SHOW, [ConvolutionLens._css, layers, encoded(numbers)])
    return layers, numbers


def told(page):
    return page.locator(".lens-sum").inner_text()


def choose(page, name):
    label = next(
        text for text in page.locator(".lens select option").all_inner_texts() if name in text
    )
    page.locator(".lens select").select_option(label=label)


def table(page, place):
    rows = page.locator(".lens-sum table").nth(place).locator("tr").all()
    return torch.tensor(
        [
            [float(cell.replace("−", "-")) for cell in row.locator("td").all_inner_texts()]
            for row in rows
        ]
    )


def test_a_cell_of_the_first_layer_by_mouse_and_keys(page, lens_js):
    """Patch times filter are the products, and their sum with the bias is PyTorch's number."""
    network = get_trained(Net)
    show(page, lens_js, network)
    canvas = page.locator(".lens-map")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 10.5 / 26, box["y"] + box["height"] * 4.5 / 26)
    assert "26 × 26 cells; row 5, column 11" in page.locator(".lens-caption").inner_text()
    cell = page.locator(".lens-box").nth(1).evaluate("box => [box.style.left, box.style.top]")
    assert [float(place[:-1]) for place in cell] == pytest.approx([1000 / 26, 400 / 26], abs=0.01)
    assert page.locator(".lens-from").is_hidden(), "there is one input map"
    torch.testing.assert_close(table(page, 0), DIGIT[0, 4:7, 10:13], atol=0.006, rtol=0)
    torch.testing.assert_close(
        table(page, 1), network.conv1.weight[0, 0].detach(), atol=0.006, rtol=0
    )
    torch.testing.assert_close(table(page, 0) * table(page, 1), table(page, 2), atol=0.03, rtol=0)
    with torch.no_grad():
        expected = network.conv1(DIGIT[None])[0, 0]
    assert told(page).endswith(f"= {expected[4, 10]:.3f}.".replace("-", "−"))
    canvas.press("ArrowDown")
    canvas.press("ArrowLeft")
    assert "row 6, column 10" in page.locator(".lens-caption").inner_text()
    assert told(page).endswith(f"= {expected[5, 9]:.3f}.".replace("-", "−"))
    left, top = page.locator(".lens-box").first.evaluate("box => [box.style.left, box.style.top]")
    assert float(left[:-1]) == pytest.approx(100 * 9 / 28, abs=0.01) and float(
        top[:-1]
    ) == pytest.approx(100 * 5 / 28, abs=0.01)


def test_layers_and_maps_can_be_chosen(page, lens_js):
    show(page, lens_js, get_trained(NetMini))
    for name, words in [
        ("block2.0", "from pool1, contributes"),
        ("batch norm", "Batch norm subtracts"),
        ("ReLU", "replaces negative ones by 0"),
        ("max-pooling", "The largest of these numbers"),
        ("average pooling", "The mean of these numbers"),
        ("linear layer", "A weighted sum of all 12 numbers"),
        ("log-softmax", "The probability is"),
        ("image", "A pixel of the digit"),
    ]:
        choose(page, name)
        assert words in told(page), name
    choose(page, "block2.0")
    maps = page.locator(".lens-tools input")
    before = page.locator(".lens-map").screenshot()
    maps.nth(0).fill("3")
    maps.nth(0).press("Enter")
    assert "map 3 of 12" in page.locator(".lens-caption").inner_text()
    assert page.locator(".lens-map").screenshot() != before
    maps.nth(1).fill("99")
    maps.nth(1).press("Enter")
    assert "Input map 10, from pool1" in told(page), "there are ten"


def numbers_in(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text.replace("−", "-"))]


def values_of(layers, numbers, name):
    """What a layer computed, as a tensor."""
    layer = next(layer for layer in layers if name in (layer["name"], layer["kind"]))
    return numbers[layer["offset"] :][: math.prod(layer["shape"])].view(layer["shape"])


def test_it_starts_at_the_brightest_cell_and_the_strongest_input_map(page, lens_js):
    """Notices: the darkest cell or the weakest map; another map's contribution; a bias that counts twice."""
    network = get_trained(Net)
    layers, numbers = show(page, lens_js, network)
    choose(page, "conv2")
    inputs, outputs = values_of(layers, numbers, "ReLU 1"), values_of(layers, numbers, "conv2")
    row, column = divmod(int(outputs[0].argmax()), 24)
    assert f"row {row + 1}, column {column + 1}" in page.locator(".lens-caption").inner_text()
    products = inputs[:, row : row + 3, column : column + 3] * network.conv2.weight[0].detach()
    sums = products.sum(dim=(1, 2))
    strongest = int(sums.abs().argmax())
    assert (
        f"Input map {strongest + 1}, from " in told(page)
        and page.locator(".lens-from").is_visible()
    )
    bias = network.conv2.bias[0].item()
    every = sums.sum().item()
    expected = [sums[strongest].item(), every, every, abs(bias), every + bias]
    assert numbers_in(told(page).split("contributes")[1]) == pytest.approx(expected, abs=0.002)
    pixels = page.locator(".lens-map").evaluate(
        "map => [...map.getContext('2d').getImageData(0, 0, map.width, map.height).data]"
    )
    shades = torch.tensor(pixels).view(24, 24, 4)[:, :, 0]
    assert shades[row, column] == 255 and shades.view(-1)[outputs[0].argmin()] == 0
    colours = page.locator(".lens-sum td").evaluate_all(
        "all => all.map((cell) => cell.style.background)"
    )
    entries = page.locator(".lens-sum td").all_inner_texts()
    assert all(
        "61, 139" in colour for text, colour in zip(entries, colours) if text.startswith("−")
    )
    assert any("214, 39" in colour for colour in colours)


def test_the_numbers_in_each_sentence_make_its_result(page, lens_js):
    """Notices: a mean, a bias or a shift with the wrong sign, the weakest products, a wrong probability."""
    layers, numbers = show(page, lens_js, get_trained(NetMini))
    choose(page, "batch norm")
    formula = told(page)[told(page).index("scales and") :]
    formula = formula[formula.index("(") :].replace("−", "-").replace("·", "*").rstrip(".")
    left, right = formula.split(" = ")
    assert eval(left) == pytest.approx(float(right), abs=0.03)

    choose(page, "ReLU")
    place = int(page.locator(".lens select").input_value())
    before = values_of(layers, numbers, layers[place - 1]["name"])[0]
    row, column = divmod(int(before.argmin()), before.shape[1])
    box = page.locator(".lens-map").bounding_box()
    share = box["width"] / before.shape[1]
    page.mouse.move(box["x"] + share * (column + 0.5), box["y"] + share * (row + 0.5))
    assert before.min() < 0 and numbers_in(told(page)) == pytest.approx(
        [before.min().item(), 0], abs=0.001
    )

    choose(page, "linear layer")
    first, second = told(page).split("All together")
    products = [numbers_in(part) for part in first.split("strongest products:")[1].split(";")]
    assert all(a * b == pytest.approx(c, abs=0.02) for a, b, c in products)
    sizes = [abs(product) for *_, product in products]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 5
    layer = layers[int(page.locator(".lens select").input_value())]
    digit = int(values_of(layers, numbers, "linear layer").argmax())
    weights = numbers[layer["weight"] :].view(-1)[12 * digit : 12 * digit + 12]
    inputs = values_of(layers, numbers, layers[layers.index(layer) - 1]["name"]).flatten()
    assert sizes[0] == pytest.approx((weights * inputs).abs().max().item(), abs=0.002)
    left, right = re.search(r"with the bias (.*) = (.*)\.", second.replace("−", "-")).groups()
    assert eval(left) == pytest.approx(float(right), abs=0.002)

    choose(page, "log-softmax")
    assert "for the digit 7" in told_where(page)
    score, total, result, percent = numbers_in(told(page))
    assert score - total == pytest.approx(result, abs=0.002)
    assert percent == pytest.approx(100 * math.exp(result), abs=0.1)


def told_where(page):
    return page.locator(".lens-caption").inner_text()


def test_the_keys_stop_at_the_edge_and_another_layer_starts_over(page, lens_js):
    show(page, lens_js, get_trained(NetMini))
    choose(page, "log-softmax")
    for _ in range(10):
        page.locator(".lens-map").press("ArrowRight")
    assert "for the digit 9" in told_where(page)
    choose(page, "block2.0")
    start = told_where(page), told(page)
    page.locator(".lens-tools input").nth(1).fill("5")
    page.locator(".lens-tools input").nth(1).press("Enter")
    page.locator(".lens-map").press("ArrowUp")
    assert "Input map 5," in told(page) and told_where(page) != start[0]
    choose(page, "image")
    choose(page, "block2.0")
    assert (told_where(page), told(page)) == start


def test_a_click_holds_the_cell(page, lens_js):
    show(page, lens_js, get_trained(NetMini))
    box = page.locator(".lens-map").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    held = page.locator(".lens-caption").inner_text()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.9)
    assert page.locator(".lens-caption").inner_text() == held and "row 14, column 14 (held" in held
    page.mouse.down()
    assert "row 24, column 24" in page.locator(".lens-caption").inner_text()
    assert "held" not in page.locator(".lens-caption").inner_text()


def test_a_finger_draws_the_lens_along_each_time(page, lens_js):
    show(page, lens_js, get_trained(NetMini))
    seen, box = page.locator(".lens-map"), page.locator(".lens-map").bounding_box()

    def touch(event, share, **named):
        place = {
            "clientX": box["x"] + box["width"] * share,
            "clientY": box["y"] + box["height"] * share,
        }
        seen.dispatch_event(event, {"pointerType": "touch", "button": 0} | place | named)
        return page.locator(".lens-caption").inner_text()

    for _ in range(2):
        assert "row 14, column 14" in touch("pointerdown", 0.5)
        assert "row 24, column 24" in touch("pointermove", 0.9, button=-1)
    touch("pointerdown", 0.5, pointerType="mouse", button=2)
    assert "held" not in touch("pointermove", 0.5, button=-1), "the right button holds nothing"


@pytest.mark.parametrize("name", ["fc1", "fc2", "log-softmax"])
def test_a_number_of_a_linear_layer_sees_the_whole_digit(page, lens_js, name):
    show(page, lens_js, get_trained(Net))
    choose(page, name)
    page.locator(".lens-map").press("ArrowRight")
    box, digit = (
        page.locator(".lens-box").first.bounding_box(),
        page.locator(".lens canvas").first.bounding_box(),
    )
    assert box["width"] == pytest.approx(digit["width"], abs=2) and box["x"] == pytest.approx(
        digit["x"], abs=2
    )
    assert ("for the digit" in page.locator(".lens-caption").inner_text()) == (name != "fc1")


def test_another_digit_from_python_is_shown(page, lens_js):
    show(page, lens_js, get_trained(NetMini))
    choose(page, "image")
    before = page.locator(".lens canvas").first.screenshot()
    layers, numbers = trace(get_trained(NetMini), -DIGIT)
    page.evaluate(RENEW, [layers, encoded(numbers)])
    assert page.locator(".lens canvas").first.screenshot() != before
    choose(page, "log-softmax")
    page.evaluate(RENEW, [layers, encoded(numbers)])
    assert "log-softmax" in page.locator(".lens select option:checked").inner_text(), (
        "the layer stays"
    )
    assert "for the digit" in told_where(page)


@pytest.mark.parametrize("width", [1000, 500])
def test_all_of_it_is_in_view_and_within_its_width(page, lens_js, width):
    page.set_viewport_size({"width": width, "height": 760})
    show(page, lens_js, get_trained(Net))
    choose(page, "conv3")
    page.screenshot(path=PICTURES / f"lens-{width}.png")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    bottom = page.locator(".lens-sum").bounding_box()
    assert bottom["y"] + bottom["height"] <= 760


def test_a_removed_lens_leaves_nothing_behind(page, lens_js):
    show(page, lens_js, get_trained(NetMini))
    page.locator(".lens-map").press("ArrowUp")
    assert page.locator("[data-lm-suppress-shortcuts]").count() == 1
    page.evaluate("() => close()")
    page.locator(".lens select").press("a")
    assert page.locator("[data-lm-suppress-shortcuts]").count() == 1
    assert page.evaluate("() => Object.keys(heard)") == []
