"""The other side of the comparison: digits prepared and networks trained the way most courses do it.

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
    return [
        transforms.RandomAffine(
            recipe.degrees,
            translate=(share, share),
            scale=(1 - recipe.zoom, 1 + recipe.zoom),
            interpolation=transforms.InterpolationMode.BILINEAR,
        )
    ]


def loaders(root, batch_size, varied):
    """The loaders of the training and test digits; `varied` distorts each training picture."""
    normalised = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    train_data = datasets.MNIST(
        root, train=True, transform=transforms.Compose([*varied, *normalised])
    )
    test_data = datasets.MNIST(root, train=False, transform=transforms.Compose(normalised))
    train_loader = DataLoader(train_data, batch_size, shuffle=True, num_workers=2)
    return train_loader, DataLoader(test_data, 1000, num_workers=2)


def train(model, device, train_loader, optimizer, criterion, scheduler=None):
    """One epoch."""
    model.train()
    correct = images = 0
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
        bar.set_description(
            f"Train: Loss={loss.item():0.4f} Batch_id={batch} Accuracy={100 * correct / images:0.2f}"
        )


def test(model, device, test_loader, criterion):
    """(accuracy in %, mean loss)"""
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
