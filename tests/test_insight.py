"""What `insight` says about a network is true: checked against gradients and by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import utils
from course import insight
from model import Net, NetFC, NetGAP, NetMicro, NetMini

each_network = pytest.mark.parametrize("Network", [Net, NetGAP, NetFC, NetMini, NetMicro])


def positive(model):
    """A copy without negative weights: no ReLU is dead, and no two paths cancel each other."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.rand_like(weight) / max(weight[0].numel(), 1) + 1e-3)
    return model


def pixels_behind(model, name, row, column):
    """First and last row and column of the pixels that a cell of a layer depends on, found with gradients."""
    seen = torch.zeros(28, 28)
    outputs = []
    layer = dict(model.named_modules())[name]
    hook = layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    for _ in range(12):  # max-pooling passes on a different pixel of its window each time
        images = torch.rand(8, 1, 28, 28, requires_grad=True)
        model(images)
        outputs.pop()[:, 0, row, column].sum().backward()
        seen += images.grad.abs().sum(dim=(0, 1))
    hook.remove()
    rows, columns = seen.sum(dim=1).nonzero(), seen.sum(dim=0).nonzero()
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


@pytest.mark.slow
@each_network
def test_receptive_fields_are_what_gradients_reach(Network):
    model = positive(Network())
    checked = 0
    for layer in insight.receptive_fields(model):
        if not layer.parameters or layer.size == 1:
            continue  # pooling that is a function call has no module to hook
        for cell in [0, layer.size // 2, layer.size - 1]:
            first = layer.start + cell * layer.jump
            expected = max(first, 0), min(first + layer.field - 1, 27)
            top, bottom, left, right = pixels_behind(model, layer.name, cell, layer.size - 1 - cell)
            assert (top, bottom) == expected, (layer, cell)
            mirrored = layer.start + (layer.size - 1 - cell) * layer.jump
            assert (left, right) == (max(mirrored, 0), min(mirrored + layer.field - 1, 27))
        checked += 1
    assert checked >= 4


@each_network
def test_table_counts_every_parameter(Network, capsys):
    insight.print_receptive_fields(model := Network())
    total = sum(weight.numel() for weight in model.parameters())
    assert sum(layer.parameters for layer in insight.receptive_fields(model)) == total
    assert capsys.readouterr().out.splitlines()[-1] == f"{total:,} parameters"


def test_each_number_stands_in_its_column(capsys):
    insight.print_receptive_fields(Net())
    rows = {words[0]: words[1:] for words in map(str.split, capsys.readouterr().out.splitlines())}
    assert rows["layer"] == ["output", "kernel", "stride", "jump", "field", "parameters"]
    assert rows["conv3"] == ["10×10", "3", "1", "2", "10×10", "73,856"]
    assert rows["pool2"] == ["4×4", "2", "2", "4", "16×16"]


def test_sizes_by_hand():
    rows = {layer.name: layer for layer in insight.receptive_fields(Net())}
    # 28 → 26 → 24 → 12 → 10 → 8 → 4 cells; fields grow by 2, 2, 1, then, at twice the jump, by 4, 4, 2.
    sizes = [(name, layer.size, layer.jump, layer.field) for name, layer in rows.items()]
    assert sizes == [
        ("conv1", 26, 1, 3),
        ("conv2", 24, 1, 5),
        ("pool1", 12, 2, 6),
        ("conv3", 10, 2, 10),
        ("conv4", 8, 2, 14),
        ("pool2", 4, 4, 16),
        ("fc1", 1, 4, 28),
        ("fc2", 1, 4, 28),
    ]


def test_dilation_and_stride():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, dilation=3, padding=1), nn.Conv2d(2, 2, 2))
    first, second = insight.receptive_fields(model)
    assert (first.field, first.jump, first.start) == (7, 2, -1)
    assert (second.field, second.jump) == (9, 2)


@pytest.mark.parametrize(("padding", "start"), [("same", -2), ("valid", 0)])
def test_padding_may_have_a_name(padding, start):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, dilation=2, padding=padding), nn.Flatten(), nn.LazyLinear(10)
    )
    model(torch.zeros(1, 1, 28, 28))
    first, _ = insight.receptive_fields(model)
    assert (first.field, first.start) == (5, start)
    assert insight.heat_map(model, torch.rand(1, 28, 28), 3).shape == (28, 28)


def test_a_batch_norm_without_weights_is_no_pooling():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.MaxPool2d(2))
    assert [layer.name for layer in insight.receptive_fields(model)] == ["0", "batch norm", "pool1"]


class Halves(nn.Module):
    """Each half of the maps goes through a convolution of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 5)

    def forward(self, x):
        first, second = self.a(x).chunk(2, dim=1)
        return (self.b(first)[:, :, :20, :20] + self.c(second)[:, :, :20, :20]).flatten(1)[:, :10]


def test_a_layer_after_a_part_of_the_maps():
    rows = [(layer.name, layer.field) for layer in insight.receptive_fields(Halves())]
    assert rows == [("a", 3), ("b", 5), ("c", 7)]


class Functional(nn.Module):
    """Convolutions and pooling as function calls, with defaults, positions and names."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (
            nn.Parameter(torch.rand(size)) for size in [(3, 1, 3, 3), (5, 3, 2, 2)]
        )

    def forward(self, x):
        x = F.conv2d(x, self.first)
        x = torch.max_pool2d(x, 3, 2, 1)
        x = F.avg_pool2d(x, 3, 2, 1)
        x = F.conv2d(x, self.second, stride=(2, 2))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


def test_layers_that_are_function_calls():
    """By hand, as (size, kernel, stride, jump, field, start). Notices swapped strides and paddings."""
    rows = insight.receptive_fields(Functional())
    assert [(row.size, row.kernel, row.stride, row.jump, row.field, row.start) for row in rows] == [
        (26, 3, 1, 1, 3, 0),
        (13, 3, 2, 2, 5, -1),
        (7, 3, 2, 4, 9, -3),
        (3, 2, 2, 8, 13, -3),
        (1, 3, 3, 24, 29, -3),
    ]
    assert [row.name for row in rows] == ["", "pool1", "pool2", "", "pool3"]


def test_the_model_stays_unchanged(figures):
    model = NetGAP().train()
    weights = copy.deepcopy(model.state_dict())
    insight.print_receptive_fields(model)
    insight.plot_filters(model)
    insight.plot_feature_maps(model, torch.rand(1, 28, 28))
    assert len(figures[-1].axes) == 9 * 8, "eight maps of each convolution"
    insight.plot_heat_maps(model, torch.rand(1, 28, 28), truth=3)
    insight.show_answer(model, torch.rand(1, 28, 28))
    assert model.training and all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert len(figures) == 4


class Brightness(nn.Module):
    """Scores 1 by the brightness of the image, and 0 by its opposite; the other way round in training."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        with torch.no_grad():
            self.conv.weight.fill_(1 / 9)

    def forward(self, x):
        bright = self.conv(-x if self.training else x)[:, 0].mean(dim=(1, 2))
        return torch.stack([-bright, bright], dim=1)


def test_heat_map_shows_where_the_evidence_is():
    image = torch.zeros(1, 28, 28)
    image[0, 2:8, 2:8] = 1
    heat = insight.heat_map(Brightness(), image, 1)
    assert heat.shape == (28, 28) and heat[4, 4] == heat.max() == 1
    assert heat[10:, 10:].abs().max() == 0
    assert insight.heat_map(Brightness(), image, 0).max() == 0, (
        "bright pixels are evidence against 0"
    )
    assert torch.equal(insight.heat_map(Brightness(), image[0], 1), heat), (
        "an image of 28×28, without a channel"
    )


def test_a_heat_map_needs_no_doubt():
    """A probability that is 1 but for 1e-16 still has gradients, though 32 bits cannot hold them."""
    sure = nn.Sequential(Brightness(), nn.Linear(2, 2, bias=False), nn.LogSoftmax(dim=1))
    with torch.no_grad():
        sure[1].weight.copy_(400 * torch.eye(2))
    image = torch.zeros(1, 28, 28)
    image[0, 2:8, 2:8] = 1
    torch.testing.assert_close(
        insight.heat_map(sure, image, 1), insight.heat_map(Brightness(), image, 1)
    )


def test_an_answer_is_drawn_with_its_ten_probabilities(figures):
    insight.show_answer(Brightness(), torch.ones(1, 28, 28), "a bright square")
    digit, bars = figures[0].axes
    assert digit.get_title() == "a bright square" and bars.get_title().startswith("answer: 1 (")
    assert bars.patches[1].get_height() > bars.patches[0].get_height()
    assert list(bars.get_xticks()) == list(range(10))


def test_the_gap_between_training_and_validation_is_drawn(figures):
    curves = {"train_acc": [90.0, 99.5], "test_acc": [91.0, 94.0]}
    insight.plot_gaps({"plain": curves, "augmented": curves})
    assert [ax.get_title() for ax in figures[0].axes] == [
        "plain: gap +5.5 points",
        "augmented: gap +5.5 points",
    ]
    for ax in figures[0].axes:
        lines = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
        assert lines == {"training": curves["train_acc"], "validation": curves["test_acc"]}


# --- The pictures show the numbers that PyTorch computes ----------------------------------------


@pytest.fixture
def image():
    torch.manual_seed(3)
    return torch.rand(1, 28, 28)


def shown(ax):
    return torch.tensor(ax.images[0].get_array())


def test_filters_are_shown_with_one_scale_and_white_for_zero(figures):
    model = Net()
    insight.plot_filters(model)
    assert figures[0].get_suptitle() == "The 32 filters of conv1"
    largest = model.conv1.weight.abs().max().item()
    assert len(figures[0].axes) == 32
    for ax, weights in zip(figures[0].axes, model.conv1.weight.detach()):
        assert torch.equal(shown(ax), weights[0])
        assert ax.images[0].get_clim() == pytest.approx((-largest, largest))
        red, _, blue, _ = ax.images[0].cmap(ax.images[0].norm(largest))
        assert red > 0.3 > blue and not ax.axison


def test_a_row_of_filters_may_be_half_full(figures):
    insight.plot_filters(nn.Conv2d(1, 10, 2))
    assert [len(ax.images) for ax in figures[0].axes] == 10 * [1] + 6 * [0]


def test_a_feature_map_is_what_a_convolution_finds(figures, image):
    model = Net().train()
    insight.plot_feature_maps(model, image, maps=5)
    axes = figures[0].axes
    titles = [ax.get_title(loc="left") for ax in axes[::5]]
    expected = ["conv1: 32 maps of 26×26", "conv2: 64 maps of 24×24", "conv3: 128 maps of 10×10"]
    assert titles == [*expected, "conv4: 256 maps of 8×8"]
    with torch.no_grad():
        first = model.conv1(image[None])
        second = model.conv2(first.relu())
        third = model.conv3(nn.functional.max_pool2d(second, 2).relu())
        maps = torch.cat([first[0, :5].relu().flatten(), third[0, :5].relu().flatten()])
    drawn = torch.cat([shown(ax).flatten() for ax in axes[:5] + axes[10:15]])
    torch.testing.assert_close(drawn, maps)


def test_maps_are_those_of_a_network_that_answers(figures, image):
    """In training, batch norm would use the statistics of this one image."""
    model = NetMini()
    for mode in (True, False):
        insight.plot_feature_maps(model.train(mode), image, maps=2)
    for first, second in zip(*(figure.axes for figure in figures)):
        assert torch.equal(shown(first), shown(second))


def test_a_receptive_field_is_drawn_where_it_is(figures, image):
    insight.plot_receptive_fields(Net(), image)
    names = [ax.get_title() for ax in figures[0].axes]
    fields = [3, 5, 6, 10, 14, 16, 28]
    assert [int(name.split("×")[1]) for name in names] == fields and names[0] == "conv1\n3×3"
    # The middle cell of conv1, number 13 of 26, sees the pixels 13 to 15; that of fc1 sees all.
    assert [patch.get_bbox().bounds for patch in figures[0].axes[0].patches] == 2 * [
        (12.5, 12.5, 3, 3)
    ]
    assert [patch.get_fill() for patch in figures[0].axes[0].patches] == [True, False], (
        "a tint and a frame"
    )
    assert figures[0].axes[-1].patches[0].get_bbox().bounds == (-0.5, -0.5, 28, 28)
    # Cells of conv3 are two pixels apart: number 5 of 10 sees the pixels 10 to 19.
    assert figures[0].axes[3].patches[0].get_bbox().bounds == (9.5, 9.5, 10, 10)
    assert torch.equal(shown(figures[0].axes[0]), image[0])


@pytest.mark.parametrize("Network", [Net, NetGAP])
def test_heat_maps_are_gradients_times_maps(Network, image):
    """Worked out again: each pixel is a mean of the cells around it, by their distance."""
    torch.manual_seed(1)
    model = Network().eval()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    last = [layer for layer in layers if layer.kernel_size != (1, 1)][-1]
    name = next(name for name, module in model.named_modules() if module is last)
    layer = next(each for each in insight.receptive_fields(model) if each.name == name)
    kept = []
    last.register_forward_hook(lambda _, __, output: kept.append(output))
    model = model.double()
    scores = model(image[None].double())[0]
    checked = 0
    for digit in range(10):
        (slopes,) = torch.autograd.grad(scores[digit], kept[0], retain_graph=True)
        cam = (
            torch.einsum("m,mrc->rc", slopes[0].mean(dim=(1, 2)), kept[0][0].relu()).relu().detach()
        )
        if not cam.any():
            continue  # there is no evidence for this digit
        centres = layer.start + (layer.field - 1) / 2 + layer.jump * torch.arange(len(cam))
        hats = (1 - (torch.arange(28)[:, None] - centres).abs() / layer.jump).clamp_min(0).double()
        expected = hats @ cam @ hats.T
        heat = insight.heat_map(copy.deepcopy(model).float(), image, digit)
        torch.testing.assert_close(heat, (expected / expected.max()).float(), atol=1e-4, rtol=0)
        checked += 1
    assert checked > 2


def test_heat_maps_have_the_answers_in_their_titles(figures):
    image = torch.zeros(1, 28, 28)
    image[0, 2:8, 2:8] = 1
    insight.plot_heat_maps(Brightness(), image, truth=0)
    insight.plot_heat_maps(
        Brightness(), image, truth=torch.tensor(1)
    )  # a label as a loader delivers it
    titles = [[ax.get_title() for ax in figure.axes] for figure in figures]
    assert titles[0] == ["a 0, read as a 1", "no evidence for 0", "evidence for 1"]
    assert titles[1] == ["a 1, read correctly", "evidence for 1"]
    assert all(torch.equal(shown(ax), image[0]) for figure in figures for ax in figure.axes)
    heat = torch.tensor(figures[0].axes[2].images[1].get_array())
    assert torch.equal(heat, insight.heat_map(Brightness(), image, 1))
    assert figures[0].axes[2].images[1].get_clim() == (0, 1)
    assert not any(ax.axison for ax in figures[0].axes)


def test_an_answer_shows_the_probabilities(figures):
    model, image = NetMini().eval(), torch.rand(1, 28, 28)
    insight.show_answer(model, image, "noise")
    with torch.no_grad():
        probabilities = model(image[None])[0].exp()
    digit, bars = figures[0].axes
    assert torch.equal(shown(digit), image[0])
    heights = torch.tensor([patch.get_height() for patch in bars.patches])
    torch.testing.assert_close(heights, probabilities.double())
    best = int(probabilities.argmax())
    assert bars.get_title() == f"answer: {best} ({probabilities[best]:.0%})"
    colours = [patch.get_facecolor() for patch in bars.patches]
    assert [n for n in range(10) if colours.count(colours[n]) == 1] == [best], (
        "the answer stands out"
    )


def test_pictures_of_networks_with_a_single_layer():
    """One convolution, one map, one size of field: a single picture is no row of pictures."""
    one = nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten())
    insight.plot_feature_maps(one, torch.rand(1, 28, 28), maps=1)
    insight.plot_receptive_fields(one, torch.rand(1, 28, 28))
    insight.plot_receptive_fields(
        nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), torch.rand(1, 28, 28)
    )


def test_a_heat_map_under_no_grad():
    model, image = NetMini(), torch.rand(1, 28, 28)
    with torch.no_grad():
        assert torch.equal(insight.heat_map(model, image, 3), insight.heat_map(model, image, 3))


class Leftover(NetMini):
    """A network with a convolution that it never uses."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Conv2d(8, 8, 3)


def test_a_layer_that_is_not_used_is_left_out(figures):
    used, image = NetMini(), torch.rand(1, 28, 28)
    model = Leftover()
    model.load_state_dict(used.state_dict(), strict=False)
    assert torch.equal(insight.heat_map(model, image, 3), insight.heat_map(used, image, 3))
    insight.plot_feature_maps(model, image)
    insight.plot_feature_maps(used, image)
    assert len(figures[0].axes) == len(figures[1].axes)


def test_a_heat_map_needs_a_filter_that_sees_a_neighbourhood():
    model = nn.Sequential(nn.Conv2d(1, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="Sequential has only 1×1 convolutions"):
        insight.heat_map(model, torch.rand(1, 28, 28), 3)


class Shortcut(nn.Module):
    """Two ways from one map to the next, as in a ResNet: a 3×3 convolution, and a 1×1 as shortcut."""

    def __init__(self, join=torch.add):
        super().__init__()
        self.first, self.wide = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, stride=2, padding=1),
        )
        self.short, self.join = nn.Conv2d(4, 4, 1, stride=2), join
        self.last = nn.Conv2d(4 if join is torch.add else 8, 10, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = self.join(self.wide(x), self.short(x)) if self.join is torch.add else self.both(x)
        return self.last(F.relu(x)).amax(dim=(2, 3)).log_softmax(dim=1)

    def both(self, x):
        return self.join([self.wide(x), self.short(x)], dim=1)


@pytest.mark.parametrize("join", [torch.add, torch.cat])
def test_receptive_fields_where_branches_meet(join):
    layers = {layer.name: layer for layer in insight.receptive_fields(Shortcut(join))}
    found = {name: (layer.field, layer.jump, layer.size) for name, layer in layers.items()}
    assert found == {
        "first": (3, 1, 28),
        "wide": (5, 2, 14),
        "short": (3, 2, 14),
        "last": (9, 2, 14),
    }


def test_a_heat_map_where_branches_meet():
    """The evidence is a bright square; with the fields in a row, the map would be moved by seven pixels."""
    model, image = Shortcut(), torch.zeros(1, 28, 28)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(0 if weight.dim() == 1 else 0.1)
    image[0, 18:22, 18:22] = 1
    heat = insight.heat_map(model, image, 3)
    row, column = divmod(int(heat.argmax()), 28)
    assert abs(row - 19.5) <= 1 and abs(column - 19.5) <= 1


def test_the_total_counts_layers_that_have_no_row(capsys):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.PReLU(), nn.Flatten(), nn.Linear(2704, 10)
    )
    insight.print_receptive_fields(model)
    assert capsys.readouterr().out.splitlines()[-1] == "27,099 parameters"


def test_a_heat_map_of_a_frozen_network():
    model, image = NetMini().eval(), torch.rand(1, 28, 28)
    expected = insight.heat_map(model, image, 3)
    assert torch.equal(insight.heat_map(model.requires_grad_(False), image, 3), expected)
    assert not any(weight.requires_grad for weight in model.parameters())


def test_a_raw_digit_is_normalised_first():
    model, raw = NetMini(), torch.randint(0, 256, (28, 28), dtype=torch.uint8)
    normalised = utils.Normalize()(raw[None])[0]
    assert torch.equal(insight.heat_map(model, raw, 3), insight.heat_map(model, normalised, 3))


def test_pictures_of_a_network_with_64_bits(figures):
    model, image = NetMini().double(), torch.rand(1, 28, 28)
    insight.show_answer(model, image)
    insight.plot_heat_maps(model, image, 3)
    insight.plot_feature_maps(model, image)
    assert len(figures) == 3 and next(model.parameters()).dtype == torch.float64
