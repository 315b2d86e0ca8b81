"""Make the copy of the course that Sphinx turns into the website, and export the networks that its pages run.

    python -m website.build FOLDER

`make site` runs this, and then Sphinx on FOLDER. The lessons themselves are not changed.
"""

import base64
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat

import model
from benchmarks import report
from course.widgets.bench import BackpropBench
from course.checkpoints import get_trained
from course.widgets.look import Widget
from tools.publish import current
from website.drawing import draw_network
from website.networks import export

HERE = Path(__file__).resolve().parent.parent
SITE = HERE / "website"
PAGES = {  # of the repository, and what they are called on the website
    "S5.ipynb": "S5.ipynb",
    "S6.ipynb": "S6.ipynb",
    "GLOSSARY.md": "glossary.md",
    "benchmarks/README.md": "benchmarks.md",
}
WIDGETS = {
    "DigitPad": "pad",
    "BackpropBench": "bench",
    "ConvolutionLens": "lens",
    "TrainingFilm": "film",
}
NOTES = {  # below a widget
    "lens": "On this page, the lens shows the network that comes with the course, not the one trained above.",
    "pad": "On this page, the pad starts with <code>NetGAP</code>. The list has <code>Net</code>, too.",
}
HEAVY = 1_000_000  # bytes: a network of this size waits until a visitor asks for it


def main():
    if len(sys.argv) != 2:
        sys.exit("name the folder to write to: python -m website.build FOLDER")
    build(Path(sys.argv[1]))


def build(folder):
    """Write the whole copy, in place of an earlier one."""
    if folder.exists() and not (folder / "_static").exists():  # the first thing that a copy gets
        sys.exit(f"{folder} holds something else: name a new folder, or that of an earlier copy")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SITE / "static", folder / "_static")
    for name in ["Test_Images", "website/badges"]:
        shutil.copytree(HERE / name, folder / name)
    shutil.copy(SITE / "conf.py", folder)
    copy_widgets(folder / "_static")
    (folder / "_static" / "stills").mkdir()
    shutil.copy(HERE / "Test_Images" / "digit_pad.png", folder / "_static" / "stills")
    sizes = export_networks(folder / "_static" / "networks")
    for source, target in PAGES.items():
        if source.endswith(".ipynb"):
            copy_lesson(source, folder, sizes)
        else:
            text = (HERE / source).read_text(encoding="utf-8")
            text = re.sub(r'<a id="([\w-]+)"></a>', r"[]{#\1}", text)
            if (
                source == "benchmarks/README.md"
            ):  # the README, which is not on the website, has the results
                results = "\n".join(report.accuracy_table())
                text = text.replace(
                    "## How the recipes were found", f"{results}\n\n## How the recipes were found"
                )
            (folder / target).write_text(relink(text, source), encoding="utf-8")
    write_landing_page(folder)


def copy_widgets(static):
    """Copy the widgets' scripts, their styles in one file, and the values they start with.

    host.js and the engine import the scripts that the widgets share.
    """
    widgets = static / "widgets"
    widgets.mkdir()
    folder = HERE / "course" / "widgets"
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
    listed, sizes = [], {}
    for name in report.NETWORKS:
        network = get_trained(getattr(model, name))
        export(network, folder)
        sizes[name] = (folder / f"{name}.bin").stat().st_size
        count = sum(weight.numel() for weight in network.parameters())
        listed.append(
            {"name": name, "text": f"{name}: {count:,} parameters, {megabytes(sizes[name])}"}
        )
    (folder / "index.json").write_text(json.dumps(listed))
    return sizes


def megabytes(size):
    return f"{size / 1e6:.1f} MB" if size >= HEAVY else f"{size / 1e3:.0f} kB"


def relink(text, source):
    """Lead links to the pages of the website, and links to other files to the repository."""
    depth = (HERE / source).parent

    def follow(match):
        name, hash_, anchor = match[1].partition("#")
        if "://" in name or not name:
            return f"]({name}{hash_}{anchor.lower() if not name else anchor})"
        path = (depth / name).resolve()
        place = path.relative_to(HERE).as_posix()
        if place in PAGES:
            return f"]({PAGES[place]}{hash_}{anchor})"
        if place.startswith(("Test_Images/", "website/badges/")):
            return f"]({place})"
        kind = "tree" if path.is_dir() else "blob"
        return f"](https://github.com/{current()}/{kind}/main/{place}{hash_}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", follow, text)


def copy_lesson(source, folder, sizes):
    """Copy a notebook: links lead to the website, widgets run, and it can be downloaded as it is."""
    (folder / "_static" / "lessons").mkdir(exist_ok=True)
    shutil.copy(HERE / source, folder / "_static" / "lessons")
    notebook = nbformat.read(HERE / source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = relink(cell.source, source)
        else:
            for output in cell.outputs:
                widget = WIDGETS.get(output.get("data", {}).get("text/plain", "").partition("(")[0])
                if widget:
                    output.data = {"text/html": live(widget, cell, output, folder, sizes)}
    demote(notebook.cells)
    first = notebook.cells[0]
    download = f'<a href="_static/lessons/{source}" download>Download this notebook</a>'
    first.source = re.sub(r"(\n\[!\[.*\n)(?!\[!\[)", rf"\1{download}\n", first.source, count=1)
    nbformat.write(notebook, folder / source)


def demote(cells):
    """Keep one title on the page: from the second one on, lower every heading by one level."""
    texts = [cell for cell in cells if cell.cell_type == "markdown"]
    titles = [n for n, cell in enumerate(texts) if re.search("^# ", cell.source, re.MULTILINE)]
    for cell in texts[titles[1] :] if len(titles) > 1 else []:
        cell.source = re.sub(r"^#", "##", cell.source, flags=re.MULTILINE)


def live(widget, cell, output, folder, sizes):
    """The HTML for a widget: a still picture until host.js starts the widget."""
    stills = folder / "_static" / "stills"
    (stills / f"{cell.id}.png").write_bytes(base64.b64decode(output.data["image/png"]))
    network = {"pad": "NetGAP", "lens": "Net"}.get(widget)
    asks = network and sizes[network] >= HEAVY
    button = f"<button>Wake it up ({megabytes(sizes[network])})</button>" if asks else ""
    attribute = f' data-network="{network}"' if network else ""
    alt = cell.metadata.mystnb.image.alt
    note = f'<p class="live-note">{NOTES[widget]}</p>' if widget in NOTES else ""
    return (
        f'<div class="live live-{widget}" data-widget="{widget}"{attribute}>'
        f'<img src="_static/stills/{cell.id}.png" alt="{alt}">{button}</div>{note}'
    )


def write_landing_page(folder):
    """Fill the landing page with the measured accuracies, and with a drawing of each network."""
    text = (SITE / "index.md").read_text(encoding="utf-8")
    for name in report.NETWORKS:
        record = report.read(f"accuracy-{name}")
        table = json.loads((folder / "_static" / "networks" / f"{name}.json").read_text())
        values = {
            "parameters": f"{record['parameters']:,}",
            "accuracy": report.mean_and_spread(report.accuracies(record)),
            "seeds": len(record["runs"]),
            "drawing": draw_network(table["layers"], name),
        }
        for key, value in values.items():
            text = text.replace(f"{{{{{name}.{key}}}}}", str(value))
    plain = report.mean_and_spread(report.accuracies(report.read("accuracy-Net-plain")))
    text = text.replace("{{Net-plain.accuracy}}", plain).replace("{{repository}}", current())
    (folder / "index.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
