# Trains one network undisturbed, and an equal one that is killed again and again at random moments.
# Prints how many epochs the file held after each kill: killed.py FOLDER KILLS
import json
import os
import random
import signal
import sys
import time

import torch

torch.set_num_threads(1)  # a process that never used several threads may fork

import utils
from course.checkpoints import resume, seed_everything
from model import NetMini

folder, kills = sys.argv[1], int(sys.argv[2])
EPOCHS = 8
generator = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (96, 28, 28), dtype=torch.uint8, generator=generator)
digits = utils.Digits(images, torch.arange(96) % 10, utils.Augment())


def train(path):
    """Start or continue a training, and finish it."""
    seed_everything(3)
    model = NetMini()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True)
    loader = utils.DataLoader(digits, 16, shuffle=True)
    steps = EPOCHS * len(loader)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    history = utils.History(model, optimizer, scheduler)
    for _ in resume(history, EPOCHS, path):
        trained = utils.train(model, "cpu", loader, optimizer, utils.F.nll_loss, scheduler)
        history.add(trained, utils.test(model, "cpu", loader, utils.F.nll_loss))


def start_training(path):
    """Train in a process of its own, which needs no time to import and prints nothing."""
    process = os.fork()
    if process:
        return process
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        train(path)
        os._exit(0)


start = time.time()
assert os.waitpid(start_training(folder + "/whole.pt"), 0)[1] == 0
duration = time.time() - start
random.seed()
reached = []
while len(reached) < kills:
    process = start_training(folder + "/killed.pt")
    time.sleep(random.uniform(0, duration / 3))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    epochs = 0
    if os.path.exists(folder + "/killed.pt"):
        state = torch.load(folder + "/killed.pt", weights_only=True)
        epochs = len(state["curves"]["test_acc"])
    reached.append(epochs)
assert os.waitpid(start_training(folder + "/killed.pt"), 0)[1] == 0
print(json.dumps(reached))
