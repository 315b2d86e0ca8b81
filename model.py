"""The networks of the course: `Net` (lesson 5); `NetGAP`, `NetFC`, and two tiny ones (lesson 6).

Each network takes a batch of normalised 28×28 digits, a float tensor of shape [N, 1, 28, 28]. It
returns ten log-probabilities for each digit, a tensor of shape [N, 10].
This file needs only PyTorch: copy it into the folder of your own notebook and import from it.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["Net", "NetGAP", "NetFC", "NetMini", "NetMicro", "torch", "nn", "F"]


def check_images(images, network):
    """The images in a fast layout; what the network cannot process is refused in a sentence."""
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"expected a tensor of images, got {type(images).__name__}")
    if images.shape[1:] != (1, 28, 28):
        raise ValueError(
            "expected images of shape [N, 1, 28, 28] (grey-scale, 28×28 pixels), "
            f"got {list(images.shape)}"
        )
    if not images.is_floating_point():
        raise TypeError(
            f"expected normalised float images, got {images.dtype}: "
            "divide by 255, subtract 0.1307 and divide by 0.3081 first"
        )
    weights = next(network.parameters(), images).dtype
    if images.dtype != weights and torch.float64 in (images.dtype, weights):
        raise TypeError(f"expected {weights} images, like the weights, got {images.dtype}")
    if images.device.type == "cpu":  # whose convolutions are 1.3 times as fast in this layout
        images = images.to(memory_format=torch.channels_last)
    return images


class DigitNet(nn.Module):
    """The base class of the networks: it adds a method that prints the table of layers."""

    def summary(self, input_size=(1, 28, 28)):
        """Print torchsummary's table of the layers; the model itself stays unchanged."""
        try:
            from torchsummary import summary
        except ImportError as error:
            reason = "summary() needs torchsummary: run `pip install torchsummary`"
            raise ImportError(reason) from error
        # torchsummary sends a random batch through the network. A copy keeps the batch-norm
        # statistics unchanged, and on the CPU it works whatever device the model is on.
        with torch.random.fork_rng(devices=[]):
            summary(copy.deepcopy(self).float().cpu(), input_size, device="cpu")


class Net(DigitNet):
    """Lesson 5: four 3×3 convolutions and two linear layers; 593,200 parameters."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.conv3 = nn.Conv2d(64, 128, kernel_size=3)
        self.conv4 = nn.Conv2d(128, 256, kernel_size=3)
        self.fc1 = nn.Linear(4 * 4 * 256, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x):
        x = check_images(x, self)
        x = F.relu(self.conv1(x))                    # 28×28 →  32 maps of 26×26
        x = F.relu(F.max_pool2d(self.conv2(x), 2))   # 24×24 →  64 maps of 12×12
        x = F.relu(self.conv3(x))                    #         128 maps of 10×10
        x = F.relu(F.max_pool2d(self.conv4(x), 2))   #   8×8 → 256 maps of 4×4
        x = F.relu(self.fc1(x.flatten(1)))           # 4,096 → 50
        x = self.fc2(x)                              #    50 → 10
        return F.log_softmax(x, dim=1)


class NetGAP(DigitNet):
    """Lesson 6: 1×1 transitions and average pooling, no linear layer; 17,466 parameters."""

    def __init__(self, dropout=0.05):
        super().__init__()
        self.block1 = nn.Sequential(                 # 28×28, halved to 14×14
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(16),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(32),
            nn.MaxPool2d(2),
        )
        self.transition1 = nn.Sequential(nn.Conv2d(32, 8, 1), nn.Dropout(dropout))
        self.block2 = nn.Sequential(                 # 14×14 → 10×10
            nn.Conv2d(8, 16, 3), nn.ReLU(), nn.BatchNorm2d(16),
            nn.Conv2d(16, 32, 3), nn.ReLU(), nn.BatchNorm2d(32),
        )
        self.transition2 = nn.Sequential(nn.Conv2d(32, 8, 1), nn.Dropout(dropout))
        self.block3 = nn.Sequential(                 # 10×10 → 6×6
            nn.Conv2d(8, 16, 3), nn.ReLU(),
            nn.Conv2d(16, 32, 3), nn.ReLU(),
        )
        self.classes = nn.Conv2d(32, 10, 1)          # one 6×6 map for each digit ...
        self.average = nn.AvgPool2d(6)               # ... whose mean is that digit's score

    def forward(self, x):
        x = check_images(x, self)
        x = self.transition1(self.block1(x))
        x = self.transition2(self.block2(x))
        x = self.average(self.classes(self.block3(x)))
        return F.log_softmax(x.flatten(1), dim=1)


class NetFC(DigitNet):
    """Lesson 6, the other way: a 5×5 convolution and one small linear layer; 19,602 parameters."""

    def __init__(self, dropout=0.05):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)             # 28×28 → 26×26
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3)            # → 24×24
        self.bn2 = nn.BatchNorm2d(32)
        self.pool1 = nn.MaxPool2d(2)                 # → 12×12
        self.drop1 = nn.Dropout(dropout)
        self.conv3 = nn.Conv2d(32, 8, 1)             # 32 maps reduced to 8
        self.bn3 = nn.BatchNorm2d(8)
        self.conv4 = nn.Conv2d(8, 32, 5)             # → 8×8
        self.bn4 = nn.BatchNorm2d(32)
        self.pool2 = nn.MaxPool2d(2)                 # → 4×4
        self.drop2 = nn.Dropout(dropout)
        self.conv5 = nn.Conv2d(32, 16, 1)            # 32 maps reduced to 16
        self.bn5 = nn.BatchNorm2d(16)
        self.fc = nn.Linear(4 * 4 * 16, 10)

    def forward(self, x):
        x = check_images(x, self)
        x = self.bn1(F.relu(self.conv1(x)))
        x = self.bn2(F.relu(self.conv2(x)))
        x = self.drop1(self.pool1(x))
        x = self.bn3(F.relu(self.conv3(x)))
        x = self.bn4(F.relu(self.conv4(x)))
        x = self.drop2(self.pool2(x))
        x = self.bn5(F.relu(self.conv5(x)))
        return F.log_softmax(self.fc(x.flatten(1)), dim=1)


def convolution(inputs, outputs):
    """A 3×3 convolution without a bias, as batch norm has one; batch norm; ReLU."""
    return [nn.Conv2d(inputs, outputs, 3, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class NetMini(DigitNet):
    """A tiny network: six unpadded convolutions with 10 to 12 maps; 5,797 parameters."""

    def __init__(self):
        super().__init__()
        self.block1 = nn.Sequential(                 # 28×28 → 24×24, halved to 12×12
            *convolution(1, 10), *convolution(10, 10), nn.MaxPool2d(2),
        )
        self.block2 = nn.Sequential(                 # 12×12 → 4×4
            *convolution(10, 12), *convolution(12, 11), *convolution(11, 11), *convolution(11, 12),
        )
        self.average = nn.AvgPool2d(4)               # one number for each of the 12 maps
        self.classes = nn.Linear(12, 10)

    def forward(self, x):
        x = check_images(x, self)
        x = self.average(self.block2(self.block1(x)))
        return F.log_softmax(self.classes(x.flatten(1)), dim=1)


def separable(inputs, outputs):
    """The same in two cheap steps: a 3×3 kernel for each map, then 1×1 kernels that mix maps."""
    each_map = nn.Conv2d(inputs, inputs, 3, groups=inputs, bias=False)
    return [each_map, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class NetMicro(DigitNet):
    """The smallest network: one convolution, and four more in two steps each; 1,462 parameters."""

    def __init__(self):
        super().__init__()
        self.block1 = nn.Sequential(                 # 28×28 → 26×26, halved to 13×13
            *convolution(1, 9), nn.MaxPool2d(2),
        )
        self.block2 = nn.Sequential(                 # 13×13 → 5×5
            *separable(9, 13), *separable(13, 13), *separable(13, 14), *separable(14, 14),
        )
        self.average = nn.AvgPool2d(5)               # one number for each of the 14 maps
        self.classes = nn.Linear(14, 10)

    def forward(self, x):
        x = check_images(x, self)
        x = self.average(self.block2(self.block1(x)))
        return F.log_softmax(self.classes(x.flatten(1)), dim=1)


NETWORKS = [Net, NetGAP, NetFC, NetMini, NetMicro]
