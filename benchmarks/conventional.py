"""The other side of the comparison: digits prepared and networks trained as most courses do it.

Pictures are prepared one by one with torchvision's transforms, in two worker processes; everything
else (network, batch size, optimizer, amount of augmentation, progress bar) is equal. Nothing of
`utils.py` is used here.
"""

import sys

import matplotlib.pyplot as plt  # noqa: F401, a course's notebook has its pictures
import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from tqdm import tqdm


def as_in_lesson_5():
    """The distortions of the original assignment."""
    return [
        transforms.RandomApply([transforms.CenterCrop(22)], p=0.1),
        transforms.Resize((28, 28)),
        transforms.RandomRotation((-15.0, 15.0), fill=0),
    ]


def as_in_lesson_6(recipe):
    """The same amount of variation as utils.Augment gives with this recipe."""
    share = recipe.shift / 28
    distortion = transforms.RandomAffine(
        recipe.degrees,
        translate=(share, share),
        scale=(1 - recipe.zoom, 1 + recipe.zoom),
        interpolation=transforms.InterpolationMode.BILINEAR,
    )
    return [distortion]


def loaders(root, batch_size, varied):
    """The loaders of the training and test digits; `varied` distorts each training picture."""
    normalised = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    distorted = transforms.Compose([*varied, *normalised])
    train_data = datasets.MNIST(root, train=True, transform=distorted)
    test_data = datasets.MNIST(root, train=False, transform=transforms.Compose(normalised))
    train_loader = DataLoader(train_data, batch_size, shuffle=True, num_workers=2)
    return train_loader, DataLoader(test_data, 1000, num_workers=2)


def train(model, device, train_loader, optimizer, criterion, scheduler=None):
    """Train for one epoch: (accuracy in %, mean loss)."""
    model.train()
    correct = 0
    images = 0
    loss_sum = 0.0
    bar = tqdm(train_loader, file=sys.stderr)
    for batch, (data, target) in enumerate(bar):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        prediction = model(data)
        loss = criterion(prediction, target)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        correct += prediction.argmax(dim=1).eq(target).sum().item()
        images += len(data)
        loss_sum += loss.item() * len(data)
        accuracy = 100 * correct / images
        bar.set_description(f"Train: Loss={loss:0.4f} Batch_id={batch} Accuracy={accuracy:0.2f}")
    return 100 * correct / images, loss_sum / images


def test(model, device, test_loader, criterion):
    """Measure without training: (accuracy in %, mean loss)."""
    model.eval()
    correct = 0
    loss = 0.0
    with torch.no_grad():
        for data, target in test_loader:
            data, target = data.to(device), target.to(device)
            prediction = model(data)
            loss += criterion(prediction, target).item() * len(data)
            correct += prediction.argmax(dim=1).eq(target).sum().item()
    images = len(test_loader.dataset)
    print(f"Test set: Average loss: {loss / images:.4f}, Accuracy: {correct}/{images}")
    return 100 * correct / images, loss / images
