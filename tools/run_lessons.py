"""Run the lessons from top to bottom and print the accuracies of their networks.

    python -m tools.run_lessons                copies with outputs go to runs/, with their pictures
    python -m tools.run_lessons S6             only that lesson
    python -m tools.run_lessons solutions/S6   the solutions of its exercises
    python -m tools.run_lessons --out DIR      copies and pictures go to the folder DIR instead
    python -m tools.run_lessons --in-place     update notebooks, Test_Images/ and the website's film

    python -m tools.run_lessons S6 --cells s6-05 s6-07 --in-place
        Run the set-up and these cells, named by their ids; the outputs of all others stay.
        The set-up is all code above the second section. Name the cells that a cell needs, too.
    python -m tools.run_lessons S6 --accept
        After a change that changes no output: note that the saved outputs belong to the code.

The course's environment variables (EPOCHS, MNIST_ROOT, DEVICE, SMOKE_TEST) apply.
"""

import argparse
import copy
import hashlib
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

from course import LESSONS
from course.files import write_text
from tools import publish

try:
    import utils
except ValueError as error:  # DEVICE names a device that this machine lacks
    sys.exit(str(error))

ROOT = Path(__file__).resolve().parent.parent
# One more cell, neither shown nor kept, hands over what the notebook has collected.
HAND_OVER = """\
import json
film = film.state() if "film" in globals() else None
print(json.dumps([globals().get("results", []), film]))
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
        above = self.nb.cells[cell_index - 1]
        if not 0 < cell_index < last or above.cell_type == "code":
            return
        for heading in re.findall(r"^#+ (.+)$", above.source, re.MULTILINE):
            now = time.strftime("%H:%M")
            print(f"\n{now}  {heading}  (cell {cell_index + 1} of {last})")


def run_notebook(lesson, folder, ids=None):
    """Execute a notebook, or the cells with these ids; return it, its results and its film."""
    notebook = nbformat.read(ROOT / f"{lesson}.ipynb", as_version=4)
    cells = select_cells(notebook, ids) if ids else notebook.cells
    last = nbformat.v4.new_code_cell(HAND_OVER)
    to_run = nbformat.v4.new_notebook(cells=[*cells, last], metadata=notebook.metadata)
    target = folder / f"{lesson}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = ROOT / "runs" if folder == ROOT else folder  # the course itself gets no half lesson
    kept.mkdir(exist_ok=True)
    resources = {"metadata": {"path": str(target.parent)}}
    client = LiveClient(to_run, timeout=None, resources=resources)
    client.on_cell_start = client.show_place
    client.extra_arguments = ["--log-level=CRITICAL"]  # no warnings about the kernel itself
    problem = execute(client)
    if problem:
        path = save_somewhere(notebook, kept / f"failed-{target.name}")
        where = f"; see {path.name} in {path.parent}" if path else ""
        raise Unfinished(f"{problem}\n{lesson}.ipynb stopped there{where}")
    note_sources(cells)
    renumber(notebook)
    results, film = json.loads("".join(output.text for output in last.outputs))
    return notebook, results, film


def select_cells(notebook, ids):
    """The cells with these ids, and a copy of the set-up, whose saved outputs stay as they are."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    unknown = set(ids) - {cell.id for cell in code}
    if unknown:
        table = [f"{cell.id:<20} {cell.source.partition(chr(10))[0]}" for cell in code]
        missing = ", ".join(sorted(unknown))
        raise Unfinished("\n".join([f"There is no code cell {missing} among these:", *table]))
    setup = find_setup(notebook)
    selected = []
    for cell in code:
        if cell.id in ids:
            selected.append(cell)
        elif cell in setup:
            selected.append(copy.deepcopy(cell))
    return selected


def find_setup(notebook):
    """The code cells above the second section: up to the first heading that follows code."""
    setup = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            setup.append(cell)
        elif setup and re.search("^#+ ", cell.source, re.MULTILINE):
            break
    return setup


def renumber(notebook):
    """Count the cells from 1, as after a run of all; those that have never run stay without."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        if cell.execution_count:
            cell.execution_count = number
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = number


def execute(client):
    """Run all cells; return what went wrong, or an empty text."""
    try:
        client.execute()
    except CellExecutionError as error:
        return str(error)
    except (AssertionError, KeyboardInterrupt):  # nbclient, after a signal has stopped the kernel
        return "\n\nStopped."
    except DeadKernelError:
        if hasattr(
            client, "_async_cleanup_kernel_future"
        ):  # a signal made nbclient stop the kernel
            return "\n\nStopped."
        return "The process that ran the notebook has died, perhaps for lack of memory."
    return ""


# --- Which outputs belong to the code ------------------------------------------------------------


def fingerprint(cell):
    """A few letters and digits that change with the cell's code, not with the course's address."""
    code, _ = publish.replace_links(cell.source, publish.current(), publish.PLACEHOLDER)
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def note_sources(cells):
    """Note in each code cell which code its outputs belong to."""
    for cell in cells:
        if cell.cell_type == "code":
            cell.metadata["source_hash"] = fingerprint(cell)


def changed_cells(notebook):
    """The ids of code cells whose outputs belong to other code, or to none that was noted.

    A notebook without any notes has not been run by this command: nothing is known of its cells.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not any("source_hash" in cell.metadata for cell in code):
        return []
    return [cell.id for cell in code if cell.metadata.get("source_hash") != fingerprint(cell)]


def accept(lesson):
    """Note that all saved outputs of a notebook belong to its present code."""
    path = ROOT / f"{lesson}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    changed = changed_cells(notebook)
    note_sources(notebook.cells)
    save(notebook, path)
    print(f"{lesson}.ipynb: the outputs stay as they are; changed:", ", ".join(changed) or "none")


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
    names = [*LESSONS, *(f"solutions/{lesson}" for lesson in LESSONS)]
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help=", ".join(names))
    parser.add_argument(
        "--in-place", action="store_true", help="update the notebooks and their pictures"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where copies go (default: runs)")
    parser.add_argument("--cells", nargs="+", metavar="ID", help="run only these, and the set-up")
    parser.add_argument("--accept", action="store_true", help="the saved outputs are still right")
    args = parser.parse_args()
    args.folder = ROOT if args.in_place else (args.out or ROOT / "runs").resolve()
    if args.out and args.folder == ROOT:
        parser.error(
            "the lessons themselves are there: name another folder, or use --in-place without --out"
        )
    for lesson in args.lessons:
        if lesson not in names:
            parser.error(f"there is no lesson {lesson}: choose from {', '.join(names)}")
    if args.cells and len(args.lessons) != 1:
        parser.error("--cells needs the one notebook that they are in: S5 --cells s5-36")
    args.lessons = args.lessons or list(LESSONS)
    return args


def check_settings(args):
    """Stop now, and not after half an hour, if the environment or the folder is unsuitable."""
    try:
        utils.get_epochs(1)
    except ValueError as error:
        sys.exit(str(error))
    if args.in_place:
        check_full_run()
    if os.pathsep in str(ROOT):
        sys.exit(
            f"the notebooks would not find the course in {ROOT}: Python splits its search path at "
            f"{os.pathsep!r}. Rename that folder"
        )
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.folder).close()
    except OSError as error:
        sys.exit(
            f"nothing can be written to {args.folder} ({error.strerror}): "
            "name another folder with --out"
        )


def check_full_run():
    """Refuse to save anything but a run with all digits and all epochs."""
    if os.environ.get("EPOCHS", "").strip() or utils.is_smoke_test():
        sys.exit("The saved notebooks show a full run: unset EPOCHS and SMOKE_TEST for --in-place.")
    if not utils.ensure_mnist(utils.get_root()):
        sys.exit("The saved notebooks show a full run on MNIST: without it, leave out --in-place.")


def set_environment():
    """Let the notebooks find the course's files and data wherever they run."""
    paths = [str(ROOT)]
    if os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["MNIST_ROOT"] = str((ROOT / utils.get_root()).resolve())


def how_long(lessons):
    """What to expect of whole lessons, in one sentence."""
    minutes = sum(LESSONS[lesson] for lesson in lessons)
    verb = "take" if len(lessons) > 1 else "takes"
    return (
        f"{' and '.join(lessons)} {verb} about {minutes} minutes with MNIST on two CPU cores that "
        "have bfloat16, several times as long on others, and less with a GPU, without MNIST, or "
        "with EPOCHS=1."
    )


def run_lesson(lesson, args, results):
    """Run a lesson, add its rows to the results, and save it."""
    print(f"\n===== {lesson}.ipynb =====\n", flush=True)
    notebook, rows, film = run_notebook(lesson, args.folder, args.cells)
    for row in rows:
        results.append(row | {"network": f"{row['network']} ({lesson})"})
    target = args.folder / f"{lesson}.ipynb"
    path = save_somewhere(notebook, target)
    if path is None:
        raise Unfinished(f"Free some space; {lesson}.ipynb is lost.")
    if path != target:
        raise Unfinished(f"Free some space; the complete {lesson}.ipynb is in {path.parent}.")
    if film and args.in_place:
        write_text(ROOT / "website" / "film.json", json.dumps(film) + "\n")


def main():
    args = parse_arguments()
    sys.stdout.reconfigure(errors="replace")  # a Windows terminal may lack the bars' blocks
    if args.accept:
        for lesson in args.lessons:
            accept(lesson)
        return
    check_settings(args)
    set_environment()
    if not args.cells and set(args.lessons) <= set(LESSONS):
        print(how_long(args.lessons))
    results = []
    try:
        for lesson in args.lessons:
            run_lesson(lesson, args, results)
    except Unfinished as stop:
        if results:
            utils.print_results(results)
        sys.exit(str(stop))
    if results:
        print("\n===== Results =====\n")
        utils.print_results(results)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
