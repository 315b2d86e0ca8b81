"""Builds a network and trains it with a recipe, using the course's own `model.py` and `utils.py`."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where model.py and utils.py are

import torch
from torch import optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

import model as networks
import utils


def build(name, recipe):
    """A fresh network of the class `name`; what follows the first dash names only the recipe."""
    network = getattr(networks, name.split("-")[0])
    return network(recipe.dropout) if "dropout" in network.__init__.__code__.co_varnames else network()


def varied(recipe):
    """How much training digits vary."""
    return utils.Augment(recipe.degrees, recipe.shift, recipe.zoom, crop=0, smooth=True)


def loaders(recipe, validate=False):
    """Loaders to train and to measure with; to validate, the last sixth of the training set is held out."""
    train_data, _ = utils.get_trainloader(transform=varied(recipe))
    if validate:
        kept = len(train_data) * 5 // 6  # 50,000 of 60,000
        data, targets, source = train_data.data, train_data.targets, train_data.source
        train_data = utils.Digits(data[:kept], targets[:kept], varied(recipe), source)
        other_data = utils.Digits(data[kept:], targets[kept:], source=source)
    else:
        other_data, _ = utils.get_testloader()
    return DataLoader(train_data, recipe.batch_size, shuffle=True), DataLoader(other_data, 1000)


def fit(name, recipe, seed, train_loader, change=None):
    """Train a fresh network, changed by `change` if it is given; return it with the seconds that took."""
    torch.manual_seed(seed)
    model = build(name, recipe)
    model = (change(model) if change else model).to(utils.device)
    optimizer = optim.SGD(
        model.parameters(), recipe.peak, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * len(train_loader)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak, total_steps=steps)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    average = None
    if recipe.averaging:
        keep = get_ema_multi_avg_fn(recipe.averaging)
        average = AveragedModel(model, multi_avg_fn=keep, use_buffers=True)
        optimizer.register_step_post_hook(lambda *_: average.update_parameters(model))
    start = time.perf_counter()
    for _ in range(recipe.epochs):
        utils.train(model, utils.device, train_loader, optimizer, criterion, scheduler, recipe.half_precision)
    seconds = time.perf_counter() - start
    return (average.module if average else model), seconds
