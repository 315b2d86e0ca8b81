"""What `insight` says about a network is true: checked by hand, and against PyTorch."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import utils
from course import insight
from model import NETWORKS, Net, NetFC, NetGAP, NetMini, convolution

IMAGE = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(3))
COLOURS = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(3))
SQUARE = F.pad(torch.ones(1, 6, 6), (2, 20, 2, 20))  # bright pixels, from 2 to 7


class Brightness(nn.Module):
    """Scores 1 by the brightness of the image, 0 by its opposite; in training, the other way."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        nn.init.constant_(self.conv.weight, 1 / 9)

    def forward(self, x):
        bright = self.conv(-x if self.training else x)[:, 0].mean(dim=(1, 2))
        return torch.stack([-bright, bright], dim=1)


class Functional(nn.Module):
    """Layers as function calls, with defaults, positions and names; one prepares weights."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.rand(3, 1, 3, 3))
        self.second = nn.Parameter(torch.rand(5, 3, 2, 2))

    def forward(self, x):
        x = F.conv2d(x, F.avg_pool2d(self.first, 1))
        x = torch.max_pool2d(x, 3, 2, 1)
        x = F.avg_pool2d(x, 3, 2, 1)
        x = F.conv2d(x, self.second, stride=(2, 2))
        return F.avg_pool2d(x, 3).flatten(1)


class Branches(nn.Module):
    """Half of the maps go through a 3×3 convolution, the others take a shortcut of 1×1."""

    def __init__(self, join):
        super().__init__()
        self.join = join
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.short = nn.Conv2d(2, 4, 1, stride=2)
        self.wide = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.last = nn.Conv2d(4 if join == "add" else 8, 10, 3, padding=1)

    def forward(self, x):
        left, right = self.first(x).relu().chunk(2, dim=1)
        maps = [self.short(left), self.wide(right)]
        x = maps[0] + maps[1] if self.join == "add" else torch.cat(maps, dim=1)
        return self.last(x.relu()).amax(dim=(2, 3)).log_softmax(dim=1)


class Colours(nn.Module):
    """Two unpadded convolutions for colour images of 32×32 pixels, and 26 classes."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.conv2 = nn.Conv2d(4, 5, 3, stride=2)
        self.fc = nn.Linear(5 * 14 * 14, 26)

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu()).relu()
        return self.fc(x.flatten(1)).log_softmax(dim=1)


class Leftover(NetMini):
    """A network with a convolution that it never uses."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Conv2d(8, 8, 3)


# --- Receptive fields ----------------------------------------------------------------------------

BRANCHES = "first 28 3 1 1 3 -1, short 14 1 2 2 3 -1, wide 14 3 2 2 5 -2, last 14 3 1 2 9 -4"
BY_HAND = {  # for each layer: its name, size, kernel, stride, jump, field and start
    "Net": (
        Net(),
        "conv1 26 3 1 1 3 0, conv2 24 3 1 1 5 0, pool1 12 2 2 2 6 0, conv3 10 3 1 2 10 0, "
        "conv4 8 3 1 2 14 0, pool2 4 2 2 4 16 0, fc1 1 4 1 4 28 0, fc2 1 1 1 4 28 0",
    ),
    "stride and dilation": (
        nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, dilation=3, padding=1), nn.Conv2d(2, 2, 2)),
        "0 12 3 2 2 7 -1, 1 11 2 1 2 9 -1",
    ),
    "padding with a name": (
        nn.Sequential(
            nn.Conv2d(1, 4, 3, dilation=2, padding="same"), nn.Conv2d(4, 4, 3, padding="valid")
        ),
        "0 28 3 1 1 5 -2, 1 26 3 1 1 7 -2",
    ),
    "dilated pooling": (nn.MaxPool2d(2, stride=1, dilation=3), "pool1 25 2 1 1 4 0"),
    "batch norm without weights": (
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.AdaptiveAvgPool2d(13)
        ),
        "0 26 3 1 1 3 0, batch norm 26 1 1 1 3 0, pool1 13 2 2 2 4 0",
    ),
    "function calls": (
        Functional(),
        "conv2d 26 3 1 1 3 0, pool1 13 3 2 2 5 -1, pool2 7 3 2 4 9 -3,  3 2 2 8 13 -3, "
        "pool3 1 3 3 24 29 -3",
    ),
    "a sum of branches": (Branches("add"), BRANCHES),
    "branches side by side": (Branches("cat"), BRANCHES),
}


@pytest.mark.parametrize(("network", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_the_table_by_hand(network, expected):
    rows = [
        f"{row.name} {row.size} {row.kernel} {row.stride} {row.jump} {row.field} {row.start}"
        for row in insight.receptive_fields(network)
    ]
    assert ", ".join(rows) == expected


@pytest.mark.parametrize("Network", NETWORKS)
def test_a_field_is_what_a_cell_depends_on_and_no_parameter_is_missing(Network):
    """Image n has a row n of nan, and each cell that depends on this row becomes nan."""
    network = Network().double().eval()
    table = insight.receptive_fields(network)
    outputs = {}
    for name, layer in network.named_modules():
        layer.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
    images = torch.zeros(28, 1, 28, 28, dtype=torch.float64)
    images[range(28), :, range(28)] = torch.nan
    network(images)
    pixels = torch.arange(28)
    layers = network.named_modules()
    convolutions = {name for name, layer in layers if isinstance(layer, nn.Conv2d)}
    assert convolutions <= {row.name for row in table}
    for row in [row for row in table if row.size > 1 and row.name in outputs]:
        first = row.start + row.jump * torch.arange(row.size).unsqueeze(1)
        is_in_field = (first <= pixels) & (pixels < first + row.field)
        depends = outputs[row.name][:, 0, :, 0].isnan().T
        assert torch.equal(depends, is_in_field), row
    total = sum(weight.numel() for weight in network.parameters())
    assert sum(row.parameters for row in table) == total


def test_the_printed_table_counts_all_parameters(capsys):
    """Also those of layers that have no row, such as GroupNorm and PReLU."""
    others = [nn.GroupNorm(2, 256), nn.PReLU()]
    network = nn.Sequential(nn.Conv2d(1, 256, 3), *others, nn.MaxPool2d(2))
    insight.print_receptive_fields(network)
    assert capsys.readouterr().out.splitlines() == [
        "layer             output kernel stride jump   field parameters",
        "0                  26×26      3      1    1     3×3      2,560",
        "pool1              13×13      2      2    2     4×4",
        "3,073 parameters",
    ]
    insight.print_receptive_fields(Colours(), input_size=(3, 32, 32))
    assert "conv2              14×14" in capsys.readouterr().out


def test_a_field_larger_than_the_image_is_explained(capsys):
    """`NetFC` sees exactly the image; `NetGAP` sees two pixels of padding at each edge, too."""
    insight.print_receptive_fields(NetFC())
    assert "larger than the image" not in capsys.readouterr().out
    insight.print_receptive_fields(NetGAP())
    assert "\nA field of 32×32 pixels is larger than the image: " in capsys.readouterr().out


# --- Heat maps -----------------------------------------------------------------------------------


def test_a_heat_map_shows_where_the_evidence_is():
    heat = insight.heat_map(Brightness(), SQUARE, 1)
    assert heat.shape == (28, 28)
    assert heat[4, 4] == heat.max() == 1
    assert heat[10:, 10:].abs().max() == 0
    against = insight.heat_map(Brightness(), SQUARE, 0)
    assert against.max() == 0, "bright pixels are evidence against 0"


@pytest.mark.parametrize(
    ("build", "image"),
    [
        (Net, IMAGE),
        (NetGAP, IMAGE),
        (functools.partial(Branches, "add"), IMAGE),
        (Colours, COLOURS),
    ],
    ids=["Net", "NetGAP", "branches", "colours"],
)
def test_a_heat_map_is_gradients_times_maps(build, image):
    """Worked out again: each pixel is a mean of the cells around it, by their distance."""
    torch.manual_seed(1)
    model = build()
    double = copy.deepcopy(model).double().eval()
    table = insight.receptive_fields(model, image.shape)
    row = [row for row in table if row.kernel == 3][-1]
    outputs = []
    layer = double.get_submodule(row.name)
    layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    scores = double(image[None].double())[0]
    centres = row.start + (row.field - 1) / 2 + row.jump * torch.arange(row.size)
    distances = (torch.arange(image.shape[-1]).unsqueeze(1) - centres).abs() / row.jump
    nearness = (1 - distances).clamp_min(0).double()
    checked = 0
    for digit in range(10):
        (gradients,) = torch.autograd.grad(scores[digit], outputs[0], retain_graph=True)
        maps = gradients[0].mean(dim=(1, 2), keepdim=True) * outputs[0][0].relu()
        heat = nearness @ maps.sum(dim=0).relu() @ nearness.T
        if heat.any():  # there is evidence for this digit
            expected = (heat / heat.max()).float()
            found = insight.heat_map(model, image, digit)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
            checked += 1
    assert checked > 2


def test_a_heat_map_without_any_doubt():
    """Where a probability is 1 but for 1e-16, 32 bits cannot hold the gradients."""
    sure = nn.Sequential(Brightness(), nn.Linear(2, 2, bias=False), nn.LogSoftmax(dim=1))
    sure[1].weight.data = 400 * torch.eye(2)
    expected = insight.heat_map(Brightness(), SQUARE, 1)
    torch.testing.assert_close(insight.heat_map(sure, SQUARE, 1), expected)


def test_what_does_not_change_a_heat_map():
    model = NetMini()
    raw = torch.randint(0, 256, (28, 28), dtype=torch.uint8)
    image = utils.Normalize()(raw[None])[0]
    expected = insight.heat_map(model, image, 3)
    with_leftover = Leftover()
    with_leftover.load_state_dict(model.state_dict(), strict=False)
    frozen = copy.deepcopy(model).requires_grad_(False)
    assert torch.equal(insight.heat_map(model, raw, 3), expected)
    assert torch.equal(insight.heat_map(model, image[0], 3), expected)
    assert torch.equal(insight.heat_map(with_leftover, image, 3), expected)
    assert torch.equal(insight.heat_map(frozen, image, 3), expected)
    with torch.no_grad():
        assert torch.equal(insight.heat_map(model, image, 3), expected)


def test_what_cannot_be_drawn_is_refused():
    pixels = nn.Sequential(nn.Conv2d(1, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(ValueError, match="Sequential has only 1×1 convolutions"):
        insight.heat_map(pixels, IMAGE, 3)
    with pytest.raises(ValueError, match="Sequential has no convolution, so there are no filters"):
        insight.plot_filters(linear)
    with pytest.raises(ValueError, match="grey images.*: each filter of conv1 has 3 kernels"):
        insight.plot_filters(Colours())
    with pytest.raises(ValueError, match="need square images, not those of 28×30"):
        insight.receptive_fields(nn.Conv2d(1, 1, 3), (1, 28, 30))
    with pytest.raises(ValueError, match=r"expected uint8 \[N, rows, columns\], got torch.uint8"):
        insight.show_answer(Colours(), COLOURS.byte())


# --- Pictures ------------------------------------------------------------------------------------


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def shown(ax, layer=0):
    return torch.tensor(ax.images[layer].get_array())


@pytest.mark.parametrize("change", ["training", "double", "frozen"])
def test_the_model_stays_unchanged(change, figures):
    model = nn.Sequential(*convolution(1, 2), nn.Flatten(), nn.Linear(2 * 26 * 26, 10))
    model.train(change == "training").requires_grad_(change != "frozen")
    if change == "double":
        model.double()
    before = copy.deepcopy(model)
    insight.print_receptive_fields(model)
    insight.plot_receptive_fields(model, IMAGE)
    insight.plot_filters(model)
    insight.plot_feature_maps(model, IMAGE, maps=1)
    insight.plot_heat_maps(model, IMAGE, truth=3)
    insight.show_answer(model, IMAGE)
    assert len(figures) == 5
    assert model.training == before.training
    for weight, old in zip(model.parameters(), before.parameters()):
        assert torch.equal(weight, old)
        assert weight.grad is None and weight.requires_grad == old.requires_grad
    for buffer, old in zip(model.buffers(), before.buffers()):
        assert torch.equal(buffer, old)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("build", "image"), [(NetMini, IMAGE), (Colours, COLOURS)])
def test_an_answer_is_drawn_with_its_probabilities(build, image, figures):
    model = build()
    insight.show_answer(model, image, "noise")
    with torch.no_grad():
        probabilities = model.eval()(image[None])[0].exp()
    best = int(probabilities.argmax())
    digit, bars = figures[0].axes
    torch.testing.assert_close(shown(digit), image.mean(dim=0))
    assert titles(figures[0]) == ["noise", f"answer: {best} ({probabilities[best]:.0%})"]
    heights = torch.tensor([bar.get_height() for bar in bars.patches])
    torch.testing.assert_close(heights, probabilities.double())
    assert bars.get_xticks().tolist() == list(range(len(probabilities)))
    colours = [bar.get_facecolor() for bar in bars.patches]
    assert [n for n, colour in enumerate(colours) if colours.count(colour) == 1] == [best]


def test_the_gap_between_training_and_validation_is_drawn(figures):
    rising = {"train_acc": [90.0, 99.5], "test_acc": [91.0, 94.0]}
    insight.plot_gaps({"plain": rising, "augmented": {"train_acc": [90.0], "test_acc": [91.0]}})
    assert titles(figures[0]) == ["plain: gap +5.5 points", "augmented: gap −1.0 points"]
    lines = figures[0].axes[0].lines
    assert {line.get_label(): line.get_ydata().tolist() for line in lines} == {
        "training": rising["train_acc"],
        "validation": rising["test_acc"],
    }


def test_filters_are_shown_with_one_scale_and_white_for_zero(figures):
    convolution = nn.Conv2d(1, 10, 2)
    insight.plot_filters(nn.Sequential(convolution, nn.Conv2d(10, 3, 3)))
    assert figures[0].get_suptitle() == "The 10 filters of 0"
    drawn = [ax for ax in figures[0].axes if ax.images]
    assert torch.equal(torch.stack([shown(ax) for ax in drawn]), convolution.weight[:, 0].detach())
    largest = convolution.weight.abs().max().item()
    for ax in drawn:
        assert ax.images[0].get_clim() == pytest.approx((-largest, largest))
    red, _, blue, _ = ax.images[0].cmap(ax.images[0].norm(largest))
    assert red > 0.3 > blue


def test_a_feature_map_is_what_a_convolution_finds(figures):
    """As in evaluation: in training, batch norm would use the statistics of this one image."""
    model = Leftover().train()
    insight.plot_feature_maps(model, IMAGE, maps=2)
    axes = figures[0].axes
    names = [ax.get_title(loc="left") for ax in axes[::2]]
    assert names[0] == "block1.0: 10 maps of 26×26"
    assert names[2] == "block2.0: 12 maps of 10×10"
    assert len(names) == 6, "not the convolution that is never used"
    with torch.no_grad():
        third = model.eval().block2[0](model.block1(IMAGE[None]))[0]
    drawn = torch.stack([shown(ax) for ax in axes[4:6]])
    torch.testing.assert_close(drawn, third[:2].relu())
    insight.plot_feature_maps(nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten()), IMAGE)
    assert len(figures[1].axes) == 8, "eight maps by default"


def test_a_receptive_field_is_drawn_where_it_is(figures):
    """By hand: the middle cell of conv1, number 13 of 26, sees the pixels 13 to 15."""
    insight.plot_receptive_fields(Net(), IMAGE)
    insight.plot_receptive_fields(Colours(), COLOURS)
    fields = [3, 5, 6, 10, 14, 16, 28]
    assert [title.split("\n")[1] for title in titles(figures[0])] == [f"{n}×{n}" for n in fields]
    assert titles(figures[0])[0] == "conv1\n3×3"
    first, _, _, conv3, *_, last = figures[0].axes
    assert first.patches[0].get_bbox().bounds == (12.5, 12.5, 3, 3)
    assert conv3.patches[0].get_bbox().bounds == (9.5, 9.5, 10, 10)  # number 5 of 10: 10 to 19
    assert last.patches[0].get_bbox().bounds == (-0.5, -0.5, 28, 28)
    assert torch.equal(shown(first), IMAGE[0])
    _, conv2, linear = figures[1].axes
    assert conv2.patches[0].get_bbox().bounds == (13.5, 13.5, 5, 5)  # number 7 of 14: 14 to 18
    assert linear.patches[0].get_bbox().bounds == (-0.5, -0.5, 31, 31)
    insight.plot_receptive_fields(nn.Sequential(nn.Conv2d(1, 10, 28)), IMAGE)
    assert titles(figures[2]) == ["0\n28×28"]


def test_heat_maps_have_the_answers_in_their_titles(figures):
    insight.plot_heat_maps(Brightness(), SQUARE, truth=0)
    insight.plot_heat_maps(Brightness(), SQUARE, truth=torch.tensor(1))  # as loaders deliver it
    assert titles(figures[0]) == ["a 0, read as a 1", "no evidence for 0", "evidence for 1"]
    assert titles(figures[1]) == ["a 1, read correctly", "evidence for 1"]
    axes = figures[0].axes
    assert all(torch.equal(shown(ax), SQUARE[0]) and not ax.axison for ax in axes)
    heat = shown(axes[2], layer=1)
    assert torch.equal(heat, insight.heat_map(Brightness(), SQUARE, 1))
    assert all(ax.images[1].get_clim() == (0, 1) for ax in axes[1:])
