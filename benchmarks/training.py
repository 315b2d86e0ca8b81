"""Trains a network with its recipe, on all training digits or on five sixths of them."""

import time

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

import utils
from course.recipes import build


def loaders(recipe, validate=False):
    """Loaders to train and to measure with; to validate, the last sixth of the training set is held out."""
    train_data, _ = utils.get_trainloader(transform=recipe.augmentation())
    if validate:
        kept = len(train_data) * 5 // 6  # 50,000 of 60,000
        data, targets, source = train_data.data, train_data.targets, train_data.source
        train_data = utils.Digits(data[:kept], targets[:kept], recipe.augmentation(), source)
        other_data = utils.Digits(data[kept:], targets[kept:], source=source)
    else:
        other_data, _ = utils.get_testloader()
    return DataLoader(train_data, recipe.batch_size, shuffle=True), DataLoader(other_data, 1000)


def fit(name, recipe, seed, train_loader, change=None):
    """Train a fresh network, changed by `change` if it is given; return it with the seconds that took."""
    torch.manual_seed(seed)
    model = build(name, recipe)
    model = (change(model) if change else model).to(utils.device)
    optimizer, criterion = recipe.optimizer(model), recipe.criterion()
    scheduler = recipe.scheduler(optimizer, recipe.epochs * len(train_loader))
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
