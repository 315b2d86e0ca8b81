"""Make the copy of the course that Sphinx turns into the website, and export its networks.

    python -m website.build FOLDER
    python -m website.build FOLDER --deploy    for visitors: the links must lead somewhere

`make site` runs this, and then Sphinx on FOLDER. The lessons themselves are not changed.
"""

import argparse
import base64
import io
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_output
from PIL import Image

import model
from benchmarks import report
from course import LESSONS
from course.checkpoints import get_trained
from course.exercises import NUMBERS
from course.spreadsheet import write_spreadsheet
from course.widgets.bench import BackpropBench
from course.widgets.look import Widget
from tools.publish import PLACEHOLDER, current
from tools.publish import website as home_of
from website.digits import export_digits
from website.drawing import draw_blocks
from website.networks import export
from website.quiz import quiz_page, read_quiz

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "website"
PAGES = {  # of the repository, and what they are called on the website
    **{f"{lesson}.ipynb": f"{lesson}.ipynb" for lesson in LESSONS},
    "GLOSSARY.md": "glossary.md",
    "benchmarks/README.md": "benchmarks.md",
    "docs/teaching.md": "teaching.md",
}
QUIZ = "docs/quiz.md"  # becomes a page for each lesson
SPREADSHEET = "Backpropagation.xlsx"  # as lesson 6 calls it
WIDGETS = {
    "DigitPad": "pad",
    "BackpropBench": "bench",
    "ConvolutionLens": "lens",
    "TrainingFilm": "film",
}
NETWORK = "NetGAP"  # that the pad and the lens start with: its weights are the smallest part
NOTES = {  # below a widget
    "lens": "On this page, the lens starts with <code>NetGAP</code> ({NetGAP}). For "
    "<code>conv1</code>, choose <code>Net</code> ({Net}), with the weights that come with the "
    "course, not those trained above.",
    "pad": "On this page, the pad starts with <code>NetGAP</code>. "
    "The list has <code>Net</code>, too.",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write the copy")
    parser.add_argument("--deploy", action="store_true", help="refuse links to the placeholder")
    args = parser.parse_args()
    if args.deploy and current() == PLACEHOLDER:
        sys.exit(
            f"The links lead to {PLACEHOLDER}, which nobody can have: run `make publish "
            "REPO=owner/name` first."
        )
    build(args.folder)


def build(folder):
    """Write the whole copy, in place of an earlier one."""
    if folder.exists() and not (folder / "_static").exists():  # the first thing that a copy gets
        sys.exit(f"{folder} holds something else: name a new folder, or that of an earlier copy")
    shutil.rmtree(folder, ignore_errors=True)
    static = folder / "_static"
    shutil.copytree(SITE / "static", static)
    for name in ["Test_Images", "website/badges"]:
        shutil.copytree(ROOT / name, folder / name)
    for name in ["play.md", "404.md", "kernels.ts"]:
        shutil.copy(SITE / name, folder)
    settings = (SITE / "conf.py").read_text(encoding="utf-8")
    (folder / "conf.py").write_text(settings.replace("{{home}}", home_of(current())))
    copy_widgets(static)
    (static / "stills").mkdir()
    sizes = export_networks(static / "networks")
    export_digits(static / "digits.bin.gz")
    export_numbers(static / "answers.json")
    (static / "lessons").mkdir()
    for source in PAGES:
        if source.endswith(".ipynb"):
            copy_lesson(source, folder, sizes)
        else:
            copy_page(source, folder)
    write_quizzes(folder)
    write_landing_page(folder)
    write_example(static / "lessons" / SPREADSHEET)


def copy_widgets(static):
    """Copy the widgets' scripts, their styles in one file, and the values they start with.

    host.js and the engine import the scripts that the widgets share.
    """
    widgets = static / "widgets"
    widgets.mkdir()
    folder = ROOT / "course" / "widgets"
    for name in ["look.js", "layers.js"]:
        shutil.copy(folder / name, static)
    styles = [folder / "look.css"]
    for name in WIDGETS.values():
        script = Widget.script(folder / name / f"{name}.js")
        (widgets / f"{name}.js").write_text(script, encoding="utf-8")
        styles.append(folder / name / f"{name}.css")
    (static / "widgets.css").write_text(
        "".join(path.read_text(encoding="utf-8") for path in styles)
    )
    (widgets / "bench.json").write_text(json.dumps(BackpropBench().state()))
    shutil.copy(SITE / "film.json", widgets)


def export_networks(folder):
    """Export the trained networks, and a list of them; return the size of each in bytes."""
    folder.mkdir()
    listed = []
    sizes = {}
    for name in report.NETWORKS:
        network = get_trained(getattr(model, name))
        export(network, folder)
        sizes[name] = (folder / f"{name}.bin").stat().st_size
        count = sum(weight.numel() for weight in network.parameters())
        text = f"{name}: {count:,} parameters, {megabytes(sizes[name])}"
        listed.append({"name": name, "text": text})
    (folder / "index.json").write_text(json.dumps(listed))
    return sizes


def megabytes(size):
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


# --- Pages and lessons ---------------------------------------------------------------------------


def copy_page(source, folder):
    """Copy a page, with links for the website and anchors as Sphinx writes them."""
    text = (ROOT / source).read_text(encoding="utf-8")
    text = re.sub(r'<a id="([\w-]+)"></a>', r"[]{#\1}", text)
    (folder / PAGES[source]).write_text(relink(text, source), encoding="utf-8")


def relink(text, source):
    """Lead links to the pages of the website, and links to other files to the repository."""
    return re.sub(r"\]\(([^)\s]+)\)", lambda match: f"]({new_link(match[1], source)})", text)


def new_link(link, source):
    """Where a link of the page `source` leads on the website."""
    home = home_of(current())
    if link.startswith(home):  # to a page that only the website has
        return link.removeprefix(home).replace(".html", ".md")
    if "://" in link:
        return link
    if link.startswith("#"):
        return link.lower()
    name, hash_, anchor = link.partition("#")
    path = (ROOT / source).parent.joinpath(name).resolve()
    place = path.relative_to(ROOT).as_posix()
    if place in PAGES:
        return f"{PAGES[place]}{hash_}{anchor.lower()}"
    if place == QUIZ and anchor.startswith("lesson-"):
        return anchor.replace("lesson-", "quiz") + ".md"
    if place.startswith(("Test_Images/", "website/badges/")):
        return place
    kind = "tree" if path.is_dir() else "blob"
    return f"https://github.com/{current()}/{kind}/main/{place}{hash_}{anchor}"


def write_quizzes(folder):
    """Write the page with the questions of each lesson."""
    questions = read_quiz(relink((ROOT / QUIZ).read_text(encoding="utf-8"), QUIZ))
    for lesson in {question.lesson for question in questions}:
        page = quiz_page([question for question in questions if question.lesson == lesson])
        (folder / f"quiz{lesson}.md").write_text(page, encoding="utf-8")


def copy_lesson(source, folder, sizes):
    """Copy a notebook as it is, for visitors to download, and once more as a page with widgets."""
    shutil.copy(ROOT / source, folder / "_static" / "lessons")
    notebook = nbformat.read(ROOT / source, as_version=4)
    notebook.metadata.language_info.pygments_lexer = "ipython3"  # which knows `!git clone`
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            plots = re.sub(r"(!\[.*?\]\(Test_Images/\S+\))", r"\1{.dark-light .plot}", cell.source)
            cell.source = relink(plots, source)
            continue
        if cell.metadata.get("jupyter", {}).get("outputs_hidden"):  # an answer, or a long log
            cell.metadata.setdefault("tags", []).append("hide-output")
        if "write_spreadsheet(" in cell.source:
            link = f'<a href="_static/lessons/{SPREADSHEET}" download>Download the spreadsheet</a>'
            cell.outputs = [new_output("display_data", {"text/html": link})]
        check = find_check(cell)
        if check:
            html = f'<div class="answers" data-check="{check}"></div>'
            cell.outputs = [new_output("display_data", {"text/html": html})]
        for output in cell.outputs:
            widget = find_widget(output)
            if widget:
                save_picture(widget, output, folder)
                output.data = {"text/html": live(widget, cell, sizes)}
            elif "image/png" in output.get("data", {}):
                cell.metadata.mystnb.image["classes"] = classes_of(output.data["image/png"])
    demote(notebook.cells)
    first = notebook.cells[0]
    download = f'<a href="_static/lessons/{source}" download>Download this notebook</a>'
    last_badge = r"(\n\[!\[.*\n)(?!\[!\[)"
    first.source = re.sub(last_badge, rf"\1{download}\n", first.source, count=1)
    nbformat.write(notebook, folder / source)


def write_example(path):
    """Write the spreadsheet that lesson 6 makes, for visitors to download."""
    bench = BackpropBench()
    write_spreadsheet(path, bench.inputs, bench.weights, bench.targets, bench.learning_rate)


def classes_of(picture):
    """A picture's classes: a plot on white paper may turn dark with the page, a digit may not."""
    pixels = Image.open(io.BytesIO(base64.b64decode(picture))).convert("L")
    dark = sum(pixels.histogram()[:60]) / (pixels.width * pixels.height)
    return "dark-light plot" if dark < 0.1 else "dark-light"


def find_check(cell):
    """The name of the check that a cell calls, if its answers are numbers; else None."""
    call = re.search(r"^(check_\w+)\(", cell.source, re.MULTILINE)
    return call[1] if call and call[1] in NUMBERS else None


def export_numbers(path):
    """Write what the exercises' checks know about numbers, for answers.js."""
    checks = {}
    for check, numbers in NUMBERS.items():
        checks[check] = {
            name: {"cases": number.cases(), "hint": number.hint} for name, number in numbers.items()
        }
    path.write_text(json.dumps(checks))


def demote(cells):
    """Keep one title on the page: from the second one on, lower every heading by one level."""
    titles = 0
    for cell in cells:
        if cell.cell_type != "markdown":
            continue
        if re.search("^# ", cell.source, re.MULTILINE):
            titles += 1
        if titles > 1:
            cell.source = re.sub(r"^#", "##", cell.source, flags=re.MULTILINE)


# --- Widgets in a page ---------------------------------------------------------------------------


def find_widget(output):
    """The name of the widget that an output shows; None if it shows something else."""
    text = output.get("data", {}).get("text/plain", "")
    kind, _, _ = text.partition("(")
    return WIDGETS.get(kind)


def save_picture(widget, output, folder):
    """Save the still picture that a visitor sees until the widget starts."""
    picture = base64.b64decode(output.data["image/png"])
    (folder / "_static" / "stills" / f"{widget}.png").write_bytes(picture)


def live(widget, cell, sizes):
    """The HTML for a widget: its still picture until host.js starts it."""
    attributes = f'id="{widget}" class="live live-{widget}" data-widget="{widget}"'
    alt = cell.metadata.mystnb.image.alt
    picture = f'<img src="_static/stills/{widget}.png" alt="{alt}">'
    note = ""
    if widget in NOTES:
        attributes += f' data-network="{NETWORK}"'
        text = NOTES[widget].format(**{name: megabytes(size) for name, size in sizes.items()})
        note = f'<p class="live-note">{text}</p>'
    return f"<div {attributes}>{picture}</div>{note}"


# --- The landing page ----------------------------------------------------------------------------


def write_landing_page(folder):
    """Fill the landing page with the measured accuracies, and with a drawing of each network."""
    values = {
        "repository": current(),
        "lessons": "\n".join(f"Lesson {lesson[1:]} <{lesson}>" for lesson in LESSONS),
        "Net-plain.accuracy": mean_accuracy(report.read("accuracy-Net-plain")),
    }
    for name in report.NETWORKS:
        record = report.read(f"accuracy-{name}")
        table = json.loads((folder / "_static" / "networks" / f"{name}.json").read_text())
        values[f"{name}.parameters"] = f"{record['parameters']:,}"
        values[f"{name}.accuracy"] = mean_accuracy(record)
        values[f"{name}.seeds"] = str(len(record["runs"]))
        values[f"{name}.drawing"] = draw_blocks(table["layers"], name)
    text = (SITE / "index.md").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    (folder / "index.md").write_text(text, encoding="utf-8")


def mean_accuracy(record):
    return report.mean_and_spread(report.accuracies(record))


if __name__ == "__main__":
    main()
