"""Run both notebooks from top to bottom and print the accuracies of their networks.

    python -m tools.run_lessons              copies with outputs go to runs/, with their pictures
    python -m tools.run_lessons S6           only that lesson
    python -m tools.run_lessons --out DIR    copies and pictures go to the folder DIR instead
    python -m tools.run_lessons --in-place   update notebooks, Test_Images/ and the website's film

The course's environment variables (EPOCHS, MNIST_ROOT, DEVICE, SMOKE_TEST) apply.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from course.files import write_text

try:
    import utils
except ValueError as error:  # DEVICE names a device that this machine lacks
    sys.exit(str(error))

ROOT = Path(__file__).resolve().parent.parent
# How long each takes with MNIST and all epochs, on two CPU cores with bfloat16.
MINUTES = {"S5": 12, "S6": 10}
# One more cell, neither shown nor kept, hands over what the notebook has collected.
HAND_OVER = """\
import json
print(json.dumps([results, film.state() if "film" in globals() else None]))
"""


class Unfinished(Exception):
    """A lesson did not come to its end; the message says why, and where it is."""


# --- One lesson --------------------------------------------------------------------------------


class LiveClient(NotebookClient):
    """Runs a notebook, and shows what its cells print, except the extra last one."""

    def output(self, outs, msg, display_id, cell_index):
        is_last = cell_index == len(self.nb.cells) - 1
        if msg["msg_type"] == "stream" and not is_last:
            sys.stdout.write(msg["content"]["text"])
            sys.stdout.flush()
        return super().output(outs, msg, display_id, cell_index)

    def show_place(self, cell, cell_index):
        """Print the heading that stands before a code cell, if there is one."""
        last = len(self.nb.cells) - 1
        if not 0 < cell_index < last:
            return
        above = self.nb.cells[cell_index - 1].source
        for heading in re.findall(r"^#+ (.+)$", above, re.MULTILINE):
            now = time.strftime("%H:%M")
            print(f"\n{now}  {heading}  (cell {cell_index + 1} of {last})")


def run_notebook(lesson, folder):
    """Execute a notebook with this working directory; return it, its results and its film."""
    notebook = nbformat.read(ROOT / f"{lesson}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(HAND_OVER))
    client = LiveClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}})
    client.on_cell_start = client.show_place
    client.extra_arguments = ["--log-level=CRITICAL"]  # no warnings about the kernel itself
    problem = execute(client)
    last = notebook.cells.pop()
    if problem:
        path = save_somewhere(notebook, folder / f"{lesson}.failed.ipynb")
        where = f"; see {path.name} in {path.parent}" if path else ""
        raise Unfinished(f"{problem}\n{lesson}.ipynb stopped there{where}")
    results, film = json.loads("".join(output.text for output in last.outputs))
    return notebook, results, film


def execute(client):
    """Run all cells; return what went wrong, or an empty text."""
    try:
        client.execute()
    except CellExecutionError as error:
        return str(error)
    except (AssertionError, KeyboardInterrupt):  # nbclient, after a signal has stopped the kernel
        return "\n\nStopped."
    except DeadKernelError:
        return "The process that ran the notebook has died, perhaps for lack of memory."
    return ""


# --- Saving ------------------------------------------------------------------------------------


def save_somewhere(notebook, path):
    """Save a notebook, as a temporary file if need be; return its path, or None if it is lost."""
    try:
        save(notebook, path)
        return path
    except OSError as error:
        print(f"{path.name} could not be written: {error.strerror}.")
    try:
        spare = Path(tempfile.mkdtemp(), path.name)
        save(notebook, spare)
        return spare
    except OSError as error:
        print(f"{path.name} could not be written: {error.strerror}.")
    return None


def save(notebook, path):
    """Replace the file in one step."""
    write_text(path, nbformat.writes(tidy(notebook)) + "\n")


def tidy(notebook):
    """Keep what can be read without a kernel: final progress bars, no widgets, little metadata."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
            for output in cell.outputs:
                tidy_output(output)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def merge_streams(outputs):
    """Join pieces of text that follow each other on the same stream."""
    merged = []
    for output in outputs:
        is_stream = output.output_type == "stream"
        if is_stream and merged and merged[-1].get("name") == output.name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def tidy_output(output):
    if output.output_type == "stream":
        lines = output.text.split("\n")
        output.text = "\n".join(line.split("\r")[-1] for line in lines)
    # Without a kernel a widget shows an error; the picture or text beside it stays.
    output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


# --- The command -------------------------------------------------------------------------------


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help="S5 or S6 (default: both)")
    parser.add_argument(
        "--in-place", action="store_true", help="update the notebooks and their pictures"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where copies go (default: runs)")
    args = parser.parse_args()
    args.folder = ROOT if args.in_place else (args.out or ROOT / "runs").resolve()
    if args.out and args.folder == ROOT:
        parser.error(
            "the lessons themselves are there: name another folder, or use --in-place without --out"
        )
    for lesson in args.lessons:
        if lesson not in MINUTES:
            parser.error(f"there is no lesson {lesson}: choose from {', '.join(MINUTES)}")
    args.lessons = args.lessons or list(MINUTES)
    return args


def check_settings(args):
    """Stop now, and not after half an hour, if the environment or the folder is unsuitable."""
    try:
        utils.get_epochs(1)
    except ValueError as error:
        sys.exit(str(error))
    if args.in_place and (utils.is_smoke_test() or not utils.ensure_mnist(utils.get_root())):
        sys.exit("The saved notebooks show a full run on MNIST: without it, leave out --in-place.")
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.folder).close()
    except OSError as error:
        sys.exit(
            f"nothing can be written to {args.folder} ({error.strerror}): "
            "name another folder with --out"
        )


def set_environment():
    """Let the notebooks find the course's files and data wherever they run."""
    paths = [str(ROOT)]
    if os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["MNIST_ROOT"] = str((ROOT / utils.get_root()).resolve())


def how_long(lessons):
    """What to expect, in one sentence."""
    minutes = sum(MINUTES[lesson] for lesson in lessons)
    verb = "take" if len(lessons) > 1 else "takes"
    return (
        f"{' and '.join(lessons)} {verb} about {minutes} minutes with MNIST on two CPU cores that "
        "have bfloat16, up to twice as long on others, and less with a GPU, without MNIST, or with "
        "EPOCHS=1."
    )


def run_lesson(lesson, args, results):
    """Run a lesson, add its rows to the results, and save it."""
    print(f"\n===== {lesson}.ipynb =====\n", flush=True)
    notebook, rows, film = run_notebook(lesson, args.folder)
    for row in rows:
        results.append(row | {"network": f"{row['network']} ({lesson})"})
    path = save_somewhere(notebook, args.folder / f"{lesson}.ipynb")
    if path is None:
        raise Unfinished(f"Free some space; {lesson}.ipynb is lost.")
    if path.parent != args.folder:
        raise Unfinished(f"Free some space; the complete {lesson}.ipynb is in {path.parent}.")
    if film and args.in_place:
        write_text(ROOT / "website" / "film.json", json.dumps(film) + "\n")


def main():
    args = parse_arguments()
    sys.stdout.reconfigure(errors="replace")  # a Windows terminal may lack the bars' blocks
    check_settings(args)
    set_environment()
    print(how_long(args.lessons))
    results = []
    try:
        for lesson in args.lessons:
            run_lesson(lesson, args, results)
    except Unfinished as stop:
        if results:
            utils.print_results(results)
        sys.exit(str(stop))
    print("\n===== Results =====\n")
    utils.print_results(results)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
