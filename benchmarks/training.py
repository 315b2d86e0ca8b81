"""Trains a network with its recipe, on all training digits or on five sixths of them."""

import torch
from torch.utils.data import DataLoader

import utils
from course.recipes import build, fit


def loaders(recipe, validate=False):
    """Loaders to train and to measure with; to validate, the last sixth is held out."""
    train_data, _ = utils.get_trainloader(transform=recipe.augmentation())
    if validate:
        size = len(train_data) * 5 // 6  # 50,000 of 60,000
        images = train_data.data
        labels = train_data.targets
        source = train_data.source
        train_data = utils.Digits(images[:size], labels[:size], recipe.augmentation(), source)
        other_data = utils.Digits(images[size:], labels[size:], source=source)
    else:
        other_data, _ = utils.get_testloader()
    train_loader = DataLoader(train_data, recipe.batch_size, shuffle=True)
    return train_loader, DataLoader(other_data, 1000)


def train_seed(name, recipe, seed, train_loader, change=None):
    """Train a fresh network, changed by `change` if it is given: (network, seconds)."""
    torch.manual_seed(seed)
    model = build(name, recipe)
    if change is not None:
        model = change(model)
    model = model.to(utils.device)
    history = fit(model, recipe, train_loader)
    return model, history.seconds


def measure(model, loader):
    """Right answers, images and mean loss, computed with full precision."""
    accuracy, loss = utils.test(model, utils.device, loader, torch.nn.NLLLoss(), quiet=True)
    images = len(loader.dataset)
    return {"correct": round(accuracy * images / 100), "images": images, "loss": loss}


def count_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())
