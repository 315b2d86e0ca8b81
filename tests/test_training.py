"""Training, measuring and the settings that notebooks read from the environment."""

import copy
import functools
import re
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset
from torchvision import datasets, transforms

import utils
from utils import GetCorrectPredCount


class Linear(nn.Module):
    """The smallest network for digits."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def forward(self, x):
        return F.log_softmax(self.fc(x.flatten(1)), dim=1)


def sgd(model, rate=0.01):
    return optim.SGD(model.parameters(), lr=rate)


# --- Settings ----------------------------------------------------------------------------------


def test_device_is_the_fastest_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert utils.get_device() == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert utils.get_device() == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert utils.get_device() == torch.device("cuda")
    monkeypatch.setenv("DEVICE", "cpu")
    assert utils.get_device() == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda", "CPU", "cpu:one", "cpu:1"])
def test_an_unknown_device_gets_one_sentence(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("DEVICE", name)
    with pytest.raises(ValueError, match=f"DEVICE={name} is not .*cpu"):
        utils.get_device()


def test_epochs(monkeypatch):
    assert utils.get_epochs(20) == 20
    monkeypatch.setenv("SMOKE_TEST", "1")
    assert utils.get_epochs(20) == 1
    monkeypatch.setenv("EPOCHS", "3")
    assert utils.get_epochs(20) == 3


@pytest.mark.parametrize("wish", ["0", "-1", "many", "1.5"])
def test_impossible_epochs(monkeypatch, wish):
    monkeypatch.setenv("EPOCHS", wish)
    with pytest.raises(ValueError, match=f"EPOCHS={wish} is not a number of epochs"):
        utils.get_epochs(20)


# --- Counting ----------------------------------------------------------------------------------


def test_correct_predictions_are_counted():
    prediction = torch.tensor([[0.1, 0.8, 0.1], [0.5, 0.2, 0.3], [0.2, 0.2, 0.6]])
    count = GetCorrectPredCount(prediction, torch.tensor([1, 2, 2]))
    assert count == 2 and type(count) is int


def uneven_loader(size=25, batch_size=10):
    """Batches of 10, 10 and 5, the last much harder than the others."""
    images, labels = torch.randn(size, 1, 28, 28), torch.arange(size) % 10
    images[20:] *= 20
    return DataLoader(TensorDataset(images, labels), batch_size)


CRITERIA = {
    "module": nn.NLLLoss(),
    "cross entropy": nn.CrossEntropyLoss(),
    "function": F.nll_loss,
    "other function": F.cross_entropy,
    "sum": nn.NLLLoss(reduction="sum"),
    "partial sum": functools.partial(F.nll_loss, reduction="sum"),
}


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA.keys())
def test_means_are_over_images_not_over_batches(criterion, capsys):
    model, loader = Linear(), uneven_loader()
    images, labels = loader.dataset.tensors
    with torch.no_grad():
        answers = model(images)
    accuracy = 100 * (answers.argmax(1) == labels).sum().item() / 25
    loss = F.nll_loss(answers, labels).item()

    measured = utils.test(model, "cpu", loader, criterion)
    assert measured == pytest.approx((accuracy, loss), rel=1e-5)
    # With a learning rate of 0 the network stays the same, so training must report the same.
    trained = utils.train(model, "cpu", loader, sgd(model, 0.0), criterion)
    assert trained == pytest.approx((accuracy, loss), rel=1e-5)


def test_test_prints_the_known_line(capsys):
    class Half(nn.Module):
        def forward(self, x):
            return F.one_hot(torch.zeros(len(x), dtype=torch.long), 10).float().log_softmax(1)

    labels = torch.tensor([0, 0, 0, 1])
    loader = DataLoader(TensorDataset(torch.zeros(4, 1, 28, 28), labels), 3)
    accuracy, loss = utils.test(Half(), torch.device("cpu"), loader, F.nll_loss)
    assert accuracy == 75.0
    assert capsys.readouterr().out == f"Test set: Average loss: {loss:.4f}, Accuracy: 3/4 (75.00%)\n\n"


def test_progress_bar_shows_the_last_batch(capsys):
    model = Linear()
    accuracy, _ = utils.train(model, "cpu", uneven_loader(), sgd(model), F.nll_loss)
    last = capsys.readouterr().err.split("\r")[-1]
    assert re.match(rf"Train: Loss=\d+\.\d{{4}} Batch_id=2 Accuracy={accuracy:.2f}: 100%\|.*\| 3/3 ", last)


def test_training_is_plain_gradient_descent():
    """The oracle: the same steps written out."""
    model, twin, loader = Linear(), Linear(), uneven_loader()
    twin.load_state_dict(model.state_dict())
    utils.train(model, "cpu", loader, sgd(model, 0.1), F.nll_loss)
    for images, labels in loader:
        gradients = torch.autograd.grad(F.nll_loss(twin(images), labels), list(twin.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(twin.parameters(), gradients):
                parameter -= 0.1 * gradient
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        torch.testing.assert_close(ours, theirs)


def test_scheduler_steps_once_a_batch():
    model = Linear()
    optimizer = sgd(model, 1.0)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    utils.train(model, "cpu", uneven_loader(), optimizer, F.nll_loss, scheduler)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_train_and_test_set_their_modes():
    modes = []

    class Spy(Linear):
        def forward(self, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    model = Spy()
    utils.train(model, "cpu", uneven_loader(), sgd(model), F.nll_loss)
    utils.test(model, "cpu", uneven_loader(), F.nll_loss)
    assert modes == [(True, True)] * 3 + [(False, False)] * 3


def test_the_fast_layout_changes_neither_answers_nor_the_model():
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 24 * 24, 10)
    model = nn.Sequential(*layers)
    images = torch.randn(4, 1, 28, 28)
    before = model(images)
    with utils.fast_layout(model, "cpu"):
        assert model[2].weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-5)
    assert torch.equal(model(images), before)
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_half_precision_rounds_only_where_it_is_faster(monkeypatch):
    kinds = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 10, 28)

        def forward(self, x):
            x = self.conv(x)
            kinds.append(x.dtype)
            return x.flatten(1)

    model = Spy()
    train = functools.partial(utils.train, model, "cpu", uneven_loader(), sgd(model), F.cross_entropy)
    for able, wish, kind in [
        (True, True, torch.bfloat16),
        (True, False, torch.float32),
        (False, True, torch.float32),
    ]:
        monkeypatch.setattr(utils, "is_faster_with_bfloat16", lambda device, able=able: able)
        _, loss = train(half_precision=wish)
        assert set(kinds) == {kind} and loss > 0
        kinds.clear()
    assert model.conv.weight.dtype == model.conv.weight.grad.dtype == torch.float32
    utils.test(model, "cpu", uneven_loader(), F.cross_entropy)
    assert set(kinds) == {torch.float32}, "testing never rounds"


def test_bfloat16_is_for_processors_that_say_so(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert utils.is_faster_with_bfloat16("cpu") and not utils.is_faster_with_bfloat16("cuda")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert not utils.is_faster_with_bfloat16("cpu")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not utils.is_faster_with_bfloat16("cpu"), "an older PyTorch"


def test_half_precision_learns_like_full_precision():
    """One step from the same weights: the gradients differ by rounding only."""
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 10, 13), nn.Flatten()]
    model = nn.Sequential(*layers)
    twin = copy.deepcopy(model)
    loader = uneven_loader(10)
    before = torch.cat([parameter.flatten() for parameter in model.parameters()])
    for network, half in [(model, True), (twin, False)]:
        utils.train(network, "cpu", loader, sgd(network, 0.1), F.cross_entropy, half_precision=half)
    step, exact = (
        torch.cat([parameter.detach().flatten() for parameter in network.parameters()]) - before
        for network in (model, twin)
    )
    assert F.cosine_similarity(step, exact, dim=0) > 0.999


def test_networks_with_3d_convolutions_train_too():
    model = nn.Sequential(
        nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 2, (1, 3, 3)), nn.Flatten(), nn.Linear(1352, 10)
    )
    utils.train(model, "cpu", uneven_loader(), sgd(model), nn.CrossEntropyLoss())


def test_an_accelerators_results_are_looked_at_late_but_completely():
    """The tally of an accelerator, fed with a CPU's numbers."""
    tally = utils.Tally("cuda", F.nll_loss)
    tally.next_look = float("inf")
    answers = torch.eye(10)
    for size, loss in [(10, 2.0), (5, 5.0)]:
        tally.add(answers[:size], torch.zeros(size, dtype=torch.long), torch.tensor(loss))
    assert tally.images == 0 and len(tally.pending) == 2
    assert tally.result() == pytest.approx((100 * 2 / 15, (10 * 2.0 + 5 * 5.0) / 15))
    tally.add(answers, torch.zeros(10, dtype=torch.long), torch.tensor(float("inf")))
    with pytest.raises(FloatingPointError, match="the loss became inf at batch 2"):
        tally.result()


# --- Wrong input -------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_stops_training():
    model, loader = Linear(), uneven_loader()
    losses = iter([1.0, float("nan")])

    def criterion(prediction, target):
        return F.nll_loss(prediction, target) * next(losses)

    with pytest.raises(FloatingPointError, match="the loss became nan at batch 1: a smaller learning rate"):
        utils.train(model, "cpu", loader, sgd(model), criterion)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters()), "the weights were harmed"


def test_an_empty_loader():
    empty = DataLoader(TensorDataset(torch.zeros(0, 1, 28, 28), torch.zeros(0, dtype=torch.long)), 10)
    model = Linear()
    for call in [
        lambda: utils.train(model, "cpu", empty, sgd(model), F.nll_loss),
        lambda: utils.test(model, "cpu", empty, F.nll_loss),
        lambda: utils.predict(model, "cpu", empty),
        lambda: utils.data_visualization(empty),
    ]:
        with pytest.raises(ValueError, match="the loader is empty"):
            call()


@pytest.mark.parametrize("wrong", [10, -1, -100])
def test_impossible_labels(wrong):
    loader = uneven_loader()
    loader.dataset.tensors[1][7] = wrong
    with pytest.raises(ValueError, match="labels must be from 0 to 9"):
        utils.test(Linear(), "cpu", loader, F.nll_loss)
    with pytest.raises(ValueError, match="labels must be from 0 to 9"):
        utils.confusion_matrix(Linear(), "cpu", loader)


def test_a_criterion_that_returns_no_single_number():
    criterion = functools.partial(F.nll_loss, reduction="none")
    with pytest.raises(ValueError, match=r'must return one number, .* shape \[10\]: use reduction="mean"'):
        utils.test(Linear(), "cpu", uneven_loader(), criterion)


# --- Course material written against the original assignments -----------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its imshow gets tensors
def test_original_course_material_runs_unchanged(monkeypatch, tmp_path, figures, capsys):
    """The cells of an original assignment, on torchvision's own data set and loaders."""
    data = datasets_fake()
    names = {}
    exec("from utils import *\nfrom model import *", names)
    names.update(train_data=data, test_data=data)
    exec(
        """
kwargs = {'batch_size': 32, 'shuffle': True, 'num_workers': 0, 'pin_memory': False}
train_loader = torch.utils.data.DataLoader(train_data, **kwargs)
test_loader = torch.utils.data.DataLoader(test_data, **kwargs)

batch_data, batch_label = next(iter(train_loader))
fig = plt.figure()
for i in range(12):
    plt.subplot(3, 4, i + 1)
    plt.imshow(batch_data[i].squeeze(0), cmap='gray')
    plt.title(batch_label[i].item())
plt.close(fig)

train_losses, test_losses, train_acc, test_acc = [], [], [], []
device = torch.device('cpu')
model = Net().to(device)
optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=15, gamma=0.1)
criterion = nn.CrossEntropyLoss()
for epoch in range(1, 3):
    train_acc_val, train_loss = train(model, device, train_loader, optimizer, criterion)
    test_acc_val, test_loss = test(model, device, test_loader, F.nll_loss)
    train_acc.append(train_acc_val)
    train_losses.append(train_loss)
    test_acc.append(test_acc_val)
    test_losses.append(test_loss)
    scheduler.step()
plot_loss(train_losses, train_acc, test_losses, test_acc)
get_summary(Net)
data_visualization(train_loader)
""",
        names,
    )
    printed = capsys.readouterr().out
    assert printed.count("Test set: Average loss: ") == 2 and "Total params: 593,200" in printed
    assert len(figures) == 2


def datasets_fake():
    return datasets.FakeData(64, (1, 28, 28), 10, transforms.Compose([transforms.ToTensor(), first_channel]))


def first_channel(image):
    return image[:1]


def test_get_summary_leaves_the_random_state(capsys):
    before = torch.get_rng_state()
    utils.get_summary(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    assert torch.equal(torch.get_rng_state(), before)
    assert "7,850" in capsys.readouterr().out
    with pytest.raises(TypeError, match="wants the class"):
        utils.get_summary(Linear())


def test_utils_works_alone(tmp_path):
    shutil.copy(utils.__file__, tmp_path)
    code = "from utils import *; print(device, plt, nn, optim, F, get_device(), train, test, plot_loss)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
