"""The contract of model.py: the layers, the parameters, the tables, and what wrong input gets."""

import copy
import shutil

import pytest
import torch
from helpers import HERE, run_python, same
from torch import nn

import model as networks
from model import Net, NetFC, NetGAP, NetMicro, NetMini

# The rows of each network's table: the layer and its parameters.
TABLES = {
    Net: """Conv2d 320, Conv2d 18496, Conv2d 73856, Conv2d 295168, Linear 204850, Linear 510""",
    NetGAP: """
        Conv2d 160, ReLU 0, BatchNorm2d 32, Conv2d 4640, ReLU 0, BatchNorm2d 64, MaxPool2d 0,
        Conv2d 264, Dropout 0,
        Conv2d 1168, ReLU 0, BatchNorm2d 32, Conv2d 4640, ReLU 0, BatchNorm2d 64,
        Conv2d 264, Dropout 0,
        Conv2d 1168, ReLU 0, Conv2d 4640, ReLU 0, Conv2d 330, AvgPool2d 0""",
    NetFC: """
        Conv2d 320, BatchNorm2d 64, Conv2d 9248, BatchNorm2d 64, MaxPool2d 0, Dropout 0,
        Conv2d 264, BatchNorm2d 16, Conv2d 6432, BatchNorm2d 64, MaxPool2d 0, Dropout 0,
        Conv2d 528, BatchNorm2d 32, Linear 2570""",
    NetMini: """
        Conv2d 90, BatchNorm2d 20, ReLU 0, Conv2d 900, BatchNorm2d 20, ReLU 0, MaxPool2d 0,
        Conv2d 1080, BatchNorm2d 24, ReLU 0, Conv2d 1188, BatchNorm2d 22, ReLU 0,
        Conv2d 1089, BatchNorm2d 22, ReLU 0, Conv2d 1188, BatchNorm2d 24, ReLU 0,
        AvgPool2d 0, Linear 130""",
    NetMicro: """
        Conv2d 81, BatchNorm2d 18, ReLU 0, MaxPool2d 0,
        Conv2d 81, Conv2d 117, BatchNorm2d 26, ReLU 0,
        Conv2d 117, Conv2d 169, BatchNorm2d 26, ReLU 0,
        Conv2d 117, Conv2d 182, BatchNorm2d 28, ReLU 0,
        Conv2d 126, Conv2d 196, BatchNorm2d 28, ReLU 0,
        AvgPool2d 0, Linear 150""",
}
TOTAL = {Net: 593_200, NetGAP: 17_466, NetFC: 19_602, NetMini: 5_797, NetMicro: 1_462}
MEGABYTES = {Net: "0.67", NetGAP: "1.11", NetFC: "0.74", NetMini: "0.35", NetMicro: "0.26"}

each_network = pytest.mark.parametrize("Network", networks.NETWORKS)


def table_rows(text):
    """(layer, parameters) of each row of a torchsummary table."""
    words = [line.split() for line in text.splitlines()]
    rows = [line for line in words if line and "-" in line[0] and line[0].split("-")[-1].isdigit()]
    return [(row[0].rsplit("-", 1)[0], int(row[-1].replace(",", ""))) for row in rows]


def test_all_networks_are_listed_and_can_be_imported_with_a_star():
    assert set(networks.NETWORKS) == set(networks.DigitNet.__subclasses__())
    assert {Network.__name__ for Network in networks.NETWORKS} <= set(networks.__all__)


@pytest.mark.parametrize("Network", TABLES)
def test_summary_row_for_row(Network, capsys):
    Network().summary()
    printed = capsys.readouterr().out
    expected = [row.split() for row in TABLES[Network].split(",")]
    assert table_rows(printed) == [(layer, int(count)) for layer, count in expected]
    assert f"Total params: {TOTAL[Network]:,}" in printed
    assert f"Forward/backward pass size (MB): {MEGABYTES[Network]}" in printed


@each_network
def test_a_networks_description_counts_its_parameters(Network):
    count = sum(weight.numel() for weight in Network().parameters())
    assert f"{count:,} parameters" in Network.__doc__


@each_network
def test_summary_changes_nothing(Network):
    network = Network().train()
    before = copy.deepcopy(network.state_dict())
    random_state = torch.get_rng_state()
    network.summary()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert network.training and same(network.state_dict(), before)


def test_summary_of_another_size_says_what_the_network_needs():
    with pytest.raises(ValueError, match=r"expected images of shape \[N, 1, 28, 28\]"):
        NetMini().summary(input_size=(3, 32, 32))


@each_network
def test_training_with_a_batch_of_one(Network):
    network = Network()
    network(torch.randn(1, 1, 28, 28)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@each_network
def test_the_rest_of_the_batch_does_not_change_an_answer(Network):
    network = Network().eval()
    images = torch.randn(8, 1, 28, 28)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.exp().sum(dim=1), torch.ones(8))


@each_network
def test_the_fast_layout_changes_only_rounding(Network, monkeypatch):
    """The oracle: the same layers on images in the usual layout."""
    network = Network().double()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0
    images = torch.randn(8, 1, 28, 28, dtype=torch.float64)
    assert networks.check_images(images, network).is_contiguous(memory_format=torch.channels_last)
    results = []
    for _ in range(2):
        answer = network(images)
        slopes = torch.autograd.grad(answer.logsumexp(dim=1).sum(), network.parameters())
        results.append([answer, *slopes])
        monkeypatch.setattr(networks, "check_images", lambda images, _: images)
    torch.testing.assert_close(*results)


IMAGES = torch.zeros(2, 1, 28, 28)


@each_network
@pytest.mark.parametrize(
    ("images", "given", "expected"),
    [
        (torch.zeros(2, 1, 32, 32), "[2, 1, 32, 32]", "[N, 1, 28, 28]"),
        (torch.zeros(2, 3, 28, 28), "[2, 3, 28, 28]", "[N, 1, 28, 28]"),
        (torch.zeros(1, 28, 28), "[1, 28, 28]", "[N, 1, 28, 28]"),
        (torch.zeros(2, 784), "[2, 784]", "[N, 1, 28, 28]"),
        (IMAGES.to(torch.uint8), "torch.uint8", "expected normalised float images"),
        (IMAGES.double(), "torch.float64", "expected torch.float32 images, like the weights"),
        ([[0.0] * 784], "list", "tensor"),
    ],
)
def test_wrong_input_is_explained_in_one_sentence(Network, images, given, expected):
    with pytest.raises((ValueError, TypeError)) as caught:
        Network()(images)
    message = str(caught.value)
    assert given in message and expected in message and "\n" not in message


def test_a_network_of_64_bits_wants_images_of_64_bits():
    network = NetMini().double()
    with pytest.raises(TypeError, match="expected torch.float64 images, like the weights, got tor"):
        network(IMAGES)
    assert network(IMAGES.double()).dtype == torch.float64


def test_replicas_have_no_parameters_of_their_own():
    """Those that nn.DataParallel makes, for a machine with several GPUs."""
    assert torch.equal(networks.check_images(IMAGES, nn.Module()), IMAGES)


@pytest.mark.slow
def test_model_works_copied_alone_into_an_empty_folder(tmp_path):
    shutil.copy(HERE / "model.py", tmp_path)
    code = "from model import *; Net().summary(); print(NetGAP()(torch.zeros(1, 1, 28, 28)), nn, F)"
    assert "593,200" in run_python("-c", code, cwd=tmp_path, PYTHONPATH="")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@each_network
def test_cuda(Network, capsys):
    network = Network().to("cuda")
    assert network(torch.zeros(2, 1, 28, 28, device="cuda")).is_cuda
    network.summary()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"Total params: {count:,}" in capsys.readouterr().out
    assert next(network.parameters()).is_cuda
