"""The contract of model.py: the layers, the parameters, the tables, and clear messages for wrong input."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import model as networks
from model import Net, NetFC, NetGAP, NetMicro, NetMini

MODEL_PY = Path(networks.__file__)

# What the table of each network must show: parameters row by row, their sum, and the size of a pass.
ROWS = {
    Net: [320, 18496, 73856, 295168, 204850, 510],
    NetGAP: [
        160,
        0,
        32,
        4640,
        0,
        64,
        0,
        264,
        0,
        1168,
        0,
        32,
        4640,
        0,
        64,
        264,
        0,
        1168,
        0,
        4640,
        0,
        330,
        0,
    ],
    NetFC: [320, 64, 9248, 64, 0, 0, 264, 16, 6432, 64, 0, 0, 528, 32, 2570],
    NetMini: [90, 20, 0, 900, 20, 0, 0, 1080, 24, 0, 1188, 22, 0, 1089, 22, 0, 1188, 24, 0, 0, 130],
    NetMicro: [
        81,
        18,
        0,
        0,
        81,
        117,
        26,
        0,
        117,
        169,
        26,
        0,
        117,
        182,
        28,
        0,
        126,
        196,
        28,
        0,
        0,
        150,
    ],
}
LAYERS = {
    Net: "Conv2d " * 4 + "Linear " * 2,
    NetGAP: "Conv2d ReLU BatchNorm2d Conv2d ReLU BatchNorm2d MaxPool2d Conv2d Dropout "
    "Conv2d ReLU BatchNorm2d Conv2d ReLU BatchNorm2d Conv2d Dropout "
    "Conv2d ReLU Conv2d ReLU Conv2d AvgPool2d",
    NetFC: "Conv2d BatchNorm2d Conv2d BatchNorm2d MaxPool2d Dropout Conv2d BatchNorm2d "
    "Conv2d BatchNorm2d MaxPool2d Dropout Conv2d BatchNorm2d Linear",
    NetMini: "Conv2d BatchNorm2d ReLU " * 2
    + "MaxPool2d "
    + "Conv2d BatchNorm2d ReLU " * 4
    + "AvgPool2d Linear",
    NetMicro: "Conv2d BatchNorm2d ReLU MaxPool2d "
    + "Conv2d Conv2d BatchNorm2d ReLU " * 4
    + "AvgPool2d Linear",
}
TOTAL = {Net: 593_200, NetGAP: 17_466, NetFC: 19_602, NetMini: 5_797, NetMicro: 1_462}
MEGABYTES = {Net: "0.67", NetGAP: "1.11", NetFC: "0.74", NetMini: "0.35", NetMicro: "0.26"}

each_network = pytest.mark.parametrize("Network", [Net, NetGAP, NetFC, NetMini, NetMicro])


def table_rows(text):
    """(layer, parameters) of each row of a torchsummary table."""
    words = [line.split() for line in text.splitlines()]
    rows = [line for line in words if line and "-" in line[0] and line[0].split("-")[-1].isdigit()]
    return [(row[0].rsplit("-", 1)[0], int(row[-1].replace(",", ""))) for row in rows]


@each_network
def test_number_of_parameters(Network):
    assert sum(parameter.numel() for parameter in Network().parameters()) == TOTAL[Network]


@each_network
def test_summary_row_for_row(Network, capsys):
    Network().summary()
    printed = capsys.readouterr().out
    assert table_rows(printed) == list(zip(LAYERS[Network].split(), ROWS[Network]))
    assert f"Total params: {TOTAL[Network]:,}" in printed
    assert f"Forward/backward pass size (MB): {MEGABYTES[Network]}" in printed


@each_network
def test_summary_changes_nothing(Network):
    network = Network().train()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    network.summary()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert network.training
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@each_network
@pytest.mark.parametrize("size", [1, 300])
def test_batch_sizes(Network, size):
    network = Network().eval()
    with torch.no_grad():
        answer = network(torch.randn(size, 1, 28, 28))
    assert answer.shape == (size, 10)
    torch.testing.assert_close(answer.exp().sum(dim=1), torch.ones(size))


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


@pytest.mark.slow
@each_network
def test_a_network_can_memorise_32_digits(Network):
    torch.manual_seed(1)
    network = Network()
    images, labels = torch.randn(32, 1, 28, 28), torch.arange(32) % 10
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(network(images), labels).backward()
        optimizer.step()
    assert (network(images).argmax(dim=1) == labels).float().mean() > 0.9


def test_average_pooling_is_the_mean_over_the_last_maps():
    network = NetGAP().eval()
    images = torch.randn(4, 1, 28, 28)
    maps = images
    for part in [
        network.block1,
        network.transition1,
        network.block2,
        network.transition2,
        network.block3,
    ]:
        maps = part(maps)
    by_hand = network.classes(maps).mean(dim=(2, 3)).log_softmax(dim=1)
    torch.testing.assert_close(network(images), by_hand)


@each_network
@pytest.mark.parametrize(
    ("images", "error", "given", "expected"),
    [
        (torch.zeros(2, 1, 32, 32), ValueError, "[2, 1, 32, 32]", "[N, 1, 28, 28]"),
        (torch.zeros(2, 3, 28, 28), ValueError, "[2, 3, 28, 28]", "[N, 1, 28, 28]"),
        (torch.zeros(1, 28, 28), ValueError, "[1, 28, 28]", "[N, 1, 28, 28]"),
        (torch.zeros(2, 784), ValueError, "[2, 784]", "[N, 1, 28, 28]"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), TypeError, "torch.uint8", "float"),
        (
            torch.zeros(2, 1, 28, 28, dtype=torch.float64),
            TypeError,
            "torch.float64",
            "images.float()",
        ),
        ([[0.0] * 784], TypeError, "list", "tensor"),
    ],
)
def test_wrong_input_is_explained_in_one_sentence(Network, images, error, given, expected):
    with pytest.raises(error) as caught:
        Network()(images)
    message = str(caught.value)
    assert given in message and expected in message and "\n" not in message


def test_replicas_have_no_parameters_of_their_own():
    """Those that nn.DataParallel makes, for a machine with several GPUs."""
    networks.check_images(torch.zeros(2, 1, 28, 28), torch.nn.Module())


@pytest.mark.slow
def test_model_works_copied_alone_into_an_empty_folder(tmp_path):
    shutil.copy(MODEL_PY, tmp_path)
    code = "from model import *; Net().summary(); print(NetGAP()(torch.zeros(1, 1, 28, 28)).shape, nn, F)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "593,200" in done.stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@each_network
def test_cuda(Network, capsys):
    network = Network().to("cuda")
    assert network(torch.zeros(2, 1, 28, 28, device="cuda")).is_cuda
    network.summary()
    assert f"Total params: {TOTAL[Network]:,}" in capsys.readouterr().out
    assert next(network.parameters()).is_cuda
