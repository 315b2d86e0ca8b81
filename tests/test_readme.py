"""README and docs are true: figures, pictures, links, commands, examples, settings and messages."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys

import pytest
import torch
from helpers import HERE, LESSONS, code_cells, each_lesson, printed, read, results
from torch import nn

import utils
from benchmarks import report
from course import files
from course.widgets.pad import DigitPad
from model import NetGAP, NetMini

PAGES = ["README.md", "GLOSSARY.md", "benchmarks/README.md", "tests/README.md"]
PAGES += [f"docs/{path.name}" for path in sorted((HERE / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES)


def text_of(page):
    return (HERE / page).read_text(encoding="utf-8")


def section(page, heading):
    """What a page says below a heading, up to the next one of the same rank."""
    return re.split(rf"^{heading}$", text_of(page), flags=re.MULTILINE)[1].split("\n## ")[0]


def table_rows(text):
    """The cells of all table rows, without the markup of code and emphasis."""
    rows = [
        line.strip().strip("|").split("|")
        for line in text.splitlines()
        if line.lstrip().startswith("|")
    ]
    return [[cell.strip().strip("`*") for cell in row] for row in rows]


def code_in(text):
    """All code of a page: whole blocks, and what stands between backticks in a line."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(blocks + re.findall(r"`([^`\n]+)`", rest))


# --- Figures ------------------------------------------------------------------------------------


@each_lesson
def test_results_are_those_of_the_saved_notebooks(lesson):
    for network, (parameters, epochs, data, accuracy, _, seconds) in results(read(lesson)).items():
        row = [
            network,
            lesson,
            parameters,
            epochs,
            f"{data} test set",
            f"{accuracy} %",
            f"{int(seconds):,}",
        ]
        assert row in table_rows(text_of("README.md")), f"the README lacks {row}"


def test_every_accuracy_was_measured():
    figures = set(re.findall(r"\d\d\.\d\d", text_of("README.md")))
    known = "".join(printed(read(lesson)) for lesson in LESSONS) + "\n".join(
        report.accuracy_table()
    )
    known += " ".join(f"{row['accuracy']:.2f}" for row in report.read("published"))
    assert figures and [figure for figure in figures if figure not in known] == []


@pytest.mark.parametrize(
    ("page", "lines"),
    [
        ("README.md", report.accuracy_table()),
        ("benchmarks/README.md", [*report.speed_table(), report.matrix_line(), report.race_line()]),
        ("benchmarks/README.md", report.lessons_table()),
        ("benchmarks/README.md", [*report.search_table(), *report.superseded_table()]),
        ("benchmarks/README.md", [*report.few_table(), *report.search_table("search-few")]),
    ],
)
def test_tables_are_those_that_the_report_prints(page, lines):
    assert [line for line in lines if line not in text_of(page).splitlines()] == []


def test_speed_in_one_sentence():
    ratios = [float(row[4]) for row in table_rows("\n".join(report.speed_table()))[2:]]
    assert f"{min(ratios)} to {max(ratios)} times as fast" in text_of("README.md")
    *_, both = table_rows("\n".join(report.lessons_table()))
    ours, other = [round(float(cell.split()[0])) for cell in both[2:4]]
    assert f"both lessons takes {ours} minutes instead of {other}." in text_of("README.md")


# --- Pictures and links -------------------------------------------------------------------------


def test_pictures_are_written_by_a_notebook_and_those_shown_exist():
    """But for the widgets, which are pictures of a browser, and the spreadsheet."""
    code = "".join(cell.source for lesson in LESSONS for cell in code_cells(read(lesson)))
    written = set(re.findall(r'save="Test_Images/([\w.]+)"', code))
    kept = {path.name for path in (HERE / "Test_Images").iterdir()}
    screenshots = {"digit_pad.png", "backprop_bench.png", "lens.png", "S6_spreadsheet.png"}
    assert kept == written | screenshots
    text = "".join(cell.source for lesson in LESSONS for cell in read(lesson).cells)
    shown = set(re.findall(r"\(\S*Test_Images/([\w.]+)\)", text + "".join(map(text_of, PAGES))))
    assert {"digit_pad.png", "S6_spreadsheet.png"} <= shown <= kept


def anchors(path):
    """Where a link into a page can lead: its headings, as GitHub names them, and its <a id=...>."""
    text = re.sub(
        r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    names = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return names | set(re.findall(r'<a id="([\w-]+)">', text))


@each_page
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)) if "://" not in link]
    assert links or page == "docs/troubleshooting.md"
    for link in links:
        name, _, anchor = link.partition("#")
        path = (HERE / page).parent / name if name else HERE / page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


# --- Commands and examples ----------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
@each_page
def test_make_knows_every_target(page):
    for target in sorted(set(re.findall(r"\bmake ([a-z][a-z-]*)", code_in(text_of(page))))):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=HERE, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@each_page
def test_python_finds_every_module(page):
    for name in set(re.findall(r"\bpython3? -m ([a-z_.]+)", code_in(text_of(page)))):
        assert importlib.util.find_spec(name), name


def run_example(page, heading, number=0, names=None):
    """Run an example of a page; return its names, and the value of its last line."""
    code = re.findall(r"```python\n(.*?)```", section(page, heading), re.DOTALL)[number]
    *before, last = ast.parse(code).body
    names = {} if names is None else names
    exec(compile(ast.Module(before, []), page, "exec"), names)
    if not isinstance(last, ast.Expr):
        return exec(compile(ast.Module([last], []), page, "exec"), names)
    return eval(compile(ast.Expression(last.value), page, "eval"), names)


def test_the_network_alone(capsys):
    total = run_example("README.md", "## In your own notebook")
    assert "Total params: 17,466" in capsys.readouterr().out
    assert abs(total.item() - 1) < 1e-5


@pytest.mark.slow
def test_an_epoch_of_training(capsys, no_mnist, monkeypatch):
    monkeypatch.setenv("SMOKE_TEST", "1")
    accuracy, loss = run_example("README.md", "## In your own notebook", 1)
    assert 0 <= accuracy <= 100 and 0 < loss < 5
    assert f"({accuracy:.2f}%)" in capsys.readouterr().out


def test_trained_weights_are_loaded(monkeypatch):
    monkeypatch.chdir(HERE)
    names = {"load_weights": utils.load_weights, "NetGAP": NetGAP, "device": utils.device}
    run_example("README.md", "## In your own notebook", 2, names)
    trained = torch.load(
        HERE / "checkpoints" / "NetGAP.pt", map_location=utils.device, weights_only=True
    )
    assert all(
        torch.equal(weights, trained[name]) for name, weights in names["model"].state_dict().items()
    )


def test_the_pad():
    assert isinstance(run_example("README.md", "## Things to touch"), DigitPad)


def test_a_training_is_kept_in_a_file(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = NetMini()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    names = {
        "utils": utils, "train": utils.train, "test": utils.test, "device": "cpu", "model": model,
        "train_loader": utils.DataLoader(digits, 50), "test_loader": utils.DataLoader(digits, 50),
        "criterion": torch.nn.CrossEntropyLoss(), "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 15),
    }  # fmt: skip
    run_example("docs/training.md", "## After an interruption", names=names)
    assert names["history"].done == 20
    kept = utils.load_weights("drive/MyDrive/Net.pt", NetMini())
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), model.parameters()))


# --- Settings and messages ----------------------------------------------------------------------


def settings():
    """The environment variables that the README lists, with the values that it gives them."""
    return dict(row[0].split("=") for row in table_rows(section("README.md", "## Settings"))[2:])


def test_the_four_settings_are_listed():
    assert sorted(settings()) == ["DEVICE", "EPOCHS", "MNIST_ROOT", "SMOKE_TEST"]


def test_epochs_acts(monkeypatch):
    monkeypatch.setenv("EPOCHS", settings()["EPOCHS"])
    assert utils.get_epochs(20) == 3


def test_device_acts(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert utils.get_device().type in ["mps", "cuda"]
    monkeypatch.setenv("DEVICE", settings()["DEVICE"])
    assert utils.get_device().type == "cpu"


def test_mnist_root_acts(monkeypatch, tmp_path, capsys):
    root = tmp_path / "no folder"
    root.write_text("")
    monkeypatch.setenv("MNIST_ROOT", str(root))
    utils.get_testloader()
    assert str(root) in capsys.readouterr().out


def test_smoke_test_acts(monkeypatch, no_mnist, tmp_path, figures):
    monkeypatch.setenv("SMOKE_TEST", settings()["SMOKE_TEST"])
    assert utils.get_epochs(20) == 1
    data, loader = utils.get_trainloader()
    assert len(data) == 512
    utils.data_visualization(loader, save=tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def a_folder_that_is_a_file(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path / "file"))
    utils.get_testloader()


def an_unknown_device(monkeypatch, tmp_path):
    monkeypatch.setenv("DEVICE", "tpu")
    utils.get_device()


def an_exploding_loss(monkeypatch, tmp_path):
    model = NetMini()
    data, loader = utils.get_trainloader(batch_size=10, limit=100)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    utils.train(model, "cpu", loader, optimizer, torch.nn.CrossEntropyLoss())


def a_lone_notebook(monkeypatch, tmp_path):
    """The first cell of lesson 5 where neither the course nor git can be found."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    code = code_cells(read("S5"))[0].source
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    print(done.stderr)


def scores_for_logarithms(monkeypatch, tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    utils.test(network, "cpu", utils.get_testloader(limit=10)[1], torch.nn.functional.nll_loss)


def an_old_optimizer(monkeypatch, tmp_path):
    optimizer = torch.optim.SGD(NetMini().parameters(), lr=0.1)
    utils.train(NetMini(), "cpu", utils.get_trainloader(limit=10)[1], optimizer, torch.nn.NLLLoss())


def a_second_training(monkeypatch, tmp_path):
    with files.owning(tmp_path / "a.pt"):
        files._lock(tmp_path / "a.pt")


def an_exhausted_scheduler(monkeypatch, tmp_path):
    optimizer = torch.optim.SGD(NetMini().parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=2)
    for _ in range(4):
        optimizer.step()
        scheduler.step()


def one_digit(monkeypatch, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    utils.train(
        network, "cpu", utils.get_trainloader(10, limit=11)[1], optimizer, nn.CrossEntropyLoss()
    )


class Greedy(nn.Module):
    def forward(self, images):
        return torch.zeros(len(images), 2**50)  # more than any machine has


def too_little_memory(monkeypatch, tmp_path):
    utils.test(Greedy(), "cpu", utils.get_testloader(limit=10)[1], nn.CrossEntropyLoss())


PROVOKED = {  # messages in the table of docs/troubleshooting.md, and how to get them
    "MNIST is unavailable:": lambda *_: utils.get_testloader(),
    "nothing can be written to": a_folder_that_is_a_file,
    "is not a device of this machine": an_unknown_device,
    "expected images of shape [N, 1, 28, 28]": lambda *_: NetMini()(torch.zeros(1, 28, 28)),
    "expected normalised float images": lambda *_: NetMini()(torch.zeros(1, 1, 28, 28).byte()),
    "because the loss became": an_exploding_loss,
    "cannot be cloned": a_lone_notebook,
    "nll_loss needs log-probabilities": scores_for_logarithms,
    "this optimizer belongs to another network": an_old_optimizer,
    "another process is writing": a_second_training,
    "Tried to step": an_exhausted_scheduler,
    "batch norm cannot train on a single digit": one_digit,
    "digits at once need too much memory": too_little_memory,
}
OF_OTHERS = {  # of Python and PyTorch
    "No module named 'utils'",
    "'course'",
    "not currently implemented for the MPS device",
    "operator torchvision::nms does not exist",
    "can't allocate memory",
}
OF_THE_PAD = {"No answer yet", "The kernel was restarted"}  # said in the browser: see tests/browser


@pytest.mark.parametrize("message", PROVOKED)
def test_messages_are_worded_as_quoted(message, monkeypatch, tmp_path, no_mnist, capsys):
    try:
        PROVOKED[message](monkeypatch, tmp_path)
    except Exception as error:
        print(error)
    assert message in capsys.readouterr().out


def test_every_quoted_message_is_known():
    cells = re.findall(r"^\| (.*?) \|", text_of("docs/troubleshooting.md"), re.MULTILINE)[1:]
    quoted = {quote.strip("… ") for cell in cells for quote in re.findall(r"`([^`]+)`", cell)}
    assert quoted == PROVOKED.keys() | OF_OTHERS | OF_THE_PAD
