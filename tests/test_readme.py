"""README and docs are true: figures, pictures, links, commands, examples, settings, messages."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from helpers import LESSONS, ROOT, each_lesson, printed, read, results, same, sgd
from torch import nn, optim
from torch.nn.utils import prune

import utils
from benchmarks import report
from course import checkpoints, insight
from course.widgets.pad import DigitPad
from model import NetGAP, NetMini
from tools import run_lessons

PAGES = ["README.md", "GLOSSARY.md", "benchmarks/README.md", "tests/README.md"]
PAGES += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def section(page, heading):
    """What a page says below a heading, up to the next one of the same rank."""
    return re.split(rf"^## {heading}$", text_of(page), flags=re.MULTILINE)[1].split("\n## ")[0]


def table_rows(text):
    """The cells of all table rows, without the markup of code and emphasis."""
    lines = re.findall(r"^ *\|(.*)\| *$", text, re.MULTILINE)
    return [[cell.strip().strip("`*") for cell in line.split("|")] for line in lines]


def code_in(page):
    """All code of a page: whole blocks, and what stands between backticks in a line."""
    text = text_of(page)
    blocks = [block for _, block in BLOCK.findall(text)]
    return "\n".join(blocks + re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)))


# --- Figures ------------------------------------------------------------------------------------


@each_lesson
def test_results_are_those_of_the_saved_notebooks(lesson):
    rows = table_rows(section("benchmarks/README.md", "Accuracy"))
    for network, (parameters, epochs, data, accuracy, _, seconds) in results(read(lesson)).items():
        expected = [network, lesson, parameters, epochs, f"{data} test set", f"{accuracy} %"]
        assert [*expected, f"{int(seconds):,}"] in rows


def test_the_readme_has_the_measured_mean_of_each_network():
    expected = []
    for name in report.NETWORKS:
        record = report.read(f"accuracy-{name}")
        assert 10 <= len(record["runs"]) <= 20, "as the sentence above the table says"
        mean = report.mean_and_spread(report.accuracies(record))
        expected.append([name, f"{record['parameters']:,}", mean])
    assert table_rows(section("README.md", "Results"))[2:] == expected


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_every_accuracy_was_measured(page):
    text = section("benchmarks/README.md", "Accuracy") if "/" in page else text_of(page)
    figures = set(re.findall(r"\d\d\.\d\d", text))
    known = [*report.accuracy_table(), *(printed(read(lesson)) for lesson in LESSONS)]
    known += [f"{row['accuracy']:.2f}" for row in report.read("published")]
    assert figures
    assert figures <= set(re.findall(r"\d\d\.\d\d", "\n".join(known)))


def test_the_tables_are_those_that_the_report_prints(capsys):
    report.main()
    lines = {line for line in capsys.readouterr().out.splitlines() if line}
    pages = text_of("benchmarks/README.md")
    assert lines - set(pages.splitlines()) == set()
    measured = re.findall(r"^(?:\| `Net|\| both|Per operation|The short).*", pages, re.MULTILINE)
    of_saved_notebooks = [line for line in measured if "MNIST test set" in line]
    assert set(measured) - set(of_saved_notebooks) - lines == set()
    assert len(measured) > 50


def test_speed_in_one_sentence():
    ratios = [row[4] for row in table_rows("\n".join(report.speed_table()))[2:]]
    assert f"{min(ratios)} to {max(ratios)} times as fast" in text_of("benchmarks/README.md")
    *_, both = table_rows("\n".join(report.lessons_table()))
    ours, other = [round(float(cell.split()[0])) for cell in both[2:4]]
    sentence = f"both lessons takes {ours} minutes instead of {other}."
    assert sentence in text_of("benchmarks/README.md")


# --- Pictures and links -------------------------------------------------------------------------


def test_pictures_are_written_by_a_notebook_and_those_shown_exist():
    """But for the widgets, which are pictures of a browser, and the spreadsheet."""
    sources = [cell.source for lesson in LESSONS for cell in read(lesson).cells]
    written = set(re.findall(r'"Test_Images/([\w.]+)"', "".join(sources)))
    kept = {path.name for path in (ROOT / "Test_Images").iterdir()}
    screenshots = {"digit_pad.png", "backprop_bench.png", "lens.png", "S6_spreadsheet.png"}
    assert kept == written | screenshots
    text = "".join([*sources, *map(text_of, PAGES)])
    shown = set(re.findall(r"\(\S*Test_Images/([\w.]+)\)", text))
    assert {"digit_pad.png", "S6_spreadsheet.png"} <= shown <= kept


def anchors(path):
    """Where a link into a page can lead: its headings, as GitHub names them, and its <a id=...>."""
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    names = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return names | set(re.findall(r'<a id="([\w-]+)">', text))


@each_page
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)) if "://" not in link]
    assert links or page == "docs/troubleshooting.md"
    for link in links:
        name, _, anchor = link.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


# --- Commands and examples ----------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
@each_page
def test_make_knows_every_target(page):
    targets = set(re.findall(r"\bmake ([a-z][a-z-]*)", code_in(page)))
    command = ["make", "--dry-run", *targets]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@each_page
def test_python_finds_every_module(page):
    for name in set(re.findall(r"\bpython3? -m ([a-z_.]+)", code_in(page))):
        assert importlib.util.find_spec(name), name


def run_example(page, heading, number=0, **names):
    """Run an example of a page; return its names, in which `_` is the value of the last line."""
    code = [block for kind, block in BLOCK.findall(section(page, heading)) if kind == "python"]
    program = ast.parse(code[number])
    last = program.body[-1]
    if isinstance(last, ast.Expr):
        program.body[-1] = ast.Assign([ast.Name("_", ast.Store())], last.value)
    exec(compile(ast.fix_missing_locations(program), page, "exec"), names)
    return names


@pytest.mark.slow
def test_an_epoch_of_training(capsys, no_mnist, monkeypatch):
    monkeypatch.setenv("SMOKE_TEST", "1")
    accuracy, loss = run_example("README.md", "In your own notebook")["_"]
    assert 0 < loss < 5
    output = capsys.readouterr().out
    assert "Total params: 593,200" in output
    assert f"({accuracy:.2f}%)" in output


def test_trained_weights_are_loaded_and_read_what_is_drawn(monkeypatch):
    monkeypatch.chdir(ROOT)
    given = {"load_weights": utils.load_weights, "NetGAP": NetGAP}
    names = run_example("README.md", "In your own notebook", 1, **given)
    trained = checkpoints.get_trained(NetGAP)
    assert same(dict(names["model"].state_dict()), dict(trained.state_dict()))
    assert isinstance(names["_"], DigitPad)


def test_a_training_is_kept_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = NetMini()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    given = {"utils": utils, "model": model, "optimizer": optimizer}
    given |= dict.fromkeys(["device", "train_loader", "test_loader", "criterion"])
    given |= {"train": lambda *_: optimizer.step() or (90.0, 0.5), "test": lambda *_: (80.0, 0.6)}
    given |= {"scheduler": optim.lr_scheduler.StepLR(optimizer, 15)}
    names = run_example("docs/training.md", "After an interruption", **given)
    assert names["history"].done == 20
    kept = utils.load_weights("drive/MyDrive/Net.pt", NetMini())
    assert same(dict(kept.state_dict()), dict(model.state_dict()))


# --- Settings and messages ----------------------------------------------------------------------


def test_the_four_settings_are_listed_and_act(monkeypatch):
    rows = table_rows(section("README.md", "Settings and data"))[2:]
    settings = dict(row[0].split("=") for row in rows)
    assert sorted(settings) == ["DEVICE", "EPOCHS", "MNIST_ROOT", "SMOKE_TEST"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv("SMOKE_TEST", settings["SMOKE_TEST"])
    assert utils.get_epochs(20) == 1
    for name in ["DEVICE", "EPOCHS", "MNIST_ROOT"]:
        monkeypatch.setenv(name, settings[name])
    assert utils.get_device().type == "cpu"
    assert utils.get_epochs(20) == 3
    assert utils.get_root() == "/some/folder"


def batches(size=10):
    return [(torch.randn(size, 1, 28, 28), torch.arange(size))] * 10


def network(*end):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), *end)


def train(model, make_optimizer=sgd, make_scheduler=lambda optimizer: None, size=10):
    optimizer = make_optimizer(model)
    scheduler = make_scheduler(optimizer)
    utils.train(model, "cpu", batches(size), optimizer, nn.CrossEntropyLoss(), scheduler)


def pruned():
    model = nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten())
    prune.l1_unstructured(model[0], "weight", 0.5)
    model(torch.randn(2, 1, 28, 28))
    insight.print_receptive_fields(model)


def folder_is_gone():
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()
    os.getcwd()


def second_training():
    with FileLock(".a.pt.lock"), checkpoints.locked(Path("a.pt")):
        pass


def unknown_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEVICE", "tpu")
        utils.get_device()


def cannot_write():
    Path("file").write_text("")
    run_lessons.check_settings(SimpleNamespace(in_place=False, folder=Path("file")))


PROVOKED = {  # messages in the table of docs/troubleshooting.md, and how to get them
    "MNIST is unavailable:": lambda: utils.ensure_mnist("."),
    "nothing can be written to": cannot_write,
    "is not a device of this machine": unknown_device,
    "expected images of shape [N, 1, 28, 28]": lambda: NetMini()(torch.zeros(1, 28, 28)),
    "expected normalised float images": lambda: NetMini()(torch.zeros(1, 1, 28, 28).byte()),
    "because the loss became": lambda: train(NetMini(), lambda model: sgd(model, 1e30)),
    "nll_loss needs log-probabilities": lambda: utils.test(network(), "cpu", batches()),
    "this optimizer belongs to another network": lambda: train(network(), lambda _: sgd(network())),
    "this scheduler belongs to another optimizer": lambda: train(
        network(), make_scheduler=lambda _: optim.lr_scheduler.StepLR(sgd(network()), 1)
    ),
    "missing 1 required positional argument: 'closure'": lambda: train(
        network(), lambda model: optim.LBFGS(model.parameters())
    ),
    "missing 1 required positional argument: 'metrics'": lambda: train(
        network(), make_scheduler=optim.lr_scheduler.ReduceLROnPlateau
    ),
    "cross_entropy applies softmax itself": lambda: train(network(nn.Softmax(dim=1))),
    "all weights of this model are frozen": lambda: train(network().requires_grad_(False)),
    "Only Tensors created explicitly by the user": pruned,
    "No such file or directory": folder_is_gone,
    "another process is writing": second_training,
    "Tried to step": lambda: train(
        network(),
        make_scheduler=lambda optimizer: optim.lr_scheduler.OneCycleLR(optimizer, 1, total_steps=2),
    ),
    "Expected more than 1 value per channel when training": lambda: train(
        network(nn.BatchNorm1d(10)), size=1
    ),
    "can't allocate memory": lambda: torch.zeros(2**50),  # more than any machine has
}
OF_OTHERS = {  # of Python and PyTorch, where something is missing that is here
    "No module named 'course'",
    "cannot import name 'install_missing'",
    "CUDA out of memory",
    "expected scalar type Float but found Double",
    "Intel oneMKL FATAL ERROR",
    "No module named 'utils'",
    "'course'",
    "not currently implemented for the MPS device",
    "operator torchvision::nms does not exist",
}
OF_THE_PAD = {"No answer yet", "The kernel was restarted"}  # said in the browser: see tests/browser


@pytest.mark.filterwarnings("error:cross_entropy")
@pytest.mark.parametrize("message", PROVOKED)
def test_messages_are_worded_as_quoted(message, monkeypatch, tmp_path, no_mnist, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        PROVOKED[message]()
    except (Exception, SystemExit) as error:
        print(error)
    assert message in capsys.readouterr().out


def test_every_quoted_message_is_known():
    first_cells = re.findall(r"^\| (.*?) \|", text_of("docs/troubleshooting.md"), re.MULTILINE)
    quoted = re.findall(r"`([^`]+)`", "\n".join(first_cells))
    known = PROVOKED.keys() | OF_OTHERS | OF_THE_PAD
    assert {message.strip("… ") for message in quoted} == known
