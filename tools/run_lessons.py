"""Run both notebooks from top to bottom and print the accuracies of their networks.

    python -m tools.run_lessons              executed copies go to runs/, pictures to runs/Test_Images/
    python -m tools.run_lessons S6           only that lesson
    python -m tools.run_lessons --out DIR    executed copies and pictures go to the folder DIR instead
    python -m tools.run_lessons --in-place   update the notebooks themselves, Test_Images/, the website's film

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

HERE = Path(__file__).resolve().parent.parent
LESSONS = {
    "S5": 12,
    "S6": 10,
}  # and the minutes they take on two CPU cores with bfloat16, MNIST, all epochs


class Unfinished(Exception):
    """A lesson did not come to its end; the message says why, and where it is."""


class LiveClient(NotebookClient):
    """Runs a notebook, and shows in the terminal what its cells print, except the extra last one."""

    def output(self, outs, msg, display_id, cell_index):
        if msg["msg_type"] == "stream" and cell_index < len(self.nb.cells) - 1:
            sys.stdout.write(msg["content"]["text"])
            sys.stdout.flush()
        return super().output(outs, msg, display_id, cell_index)

    def show_place(self, cell, cell_index):
        """Print the heading that stands before a code cell, if there is one."""
        above = (
            self.nb.cells[cell_index - 1].source if 0 < cell_index < len(self.nb.cells) - 1 else ""
        )
        for heading in re.findall(r"^#+ (.+)$", above, re.MULTILINE):
            print(
                f"\n{time.strftime('%H:%M')}  {heading}  (cell {cell_index + 1} of {len(self.nb.cells) - 1})"
            )


def run_notebook(lesson, folder):
    """Execute a notebook with `folder` as its working directory; return it, its results and its film."""
    notebook = nbformat.read(HERE / f"{lesson}.ipynb", as_version=4)
    # One more cell, neither shown nor kept, hands over what the notebook collected.
    last = (
        "import json; print(json.dumps([results, film.state() if 'film' in globals() else None]))"
    )
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    client = LiveClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}})
    client.on_cell_start = client.show_place
    client.extra_arguments = [
        "--log-level=CRITICAL"
    ]  # the kernel's own warnings are not about the lesson
    try:
        client.execute()
    except CellExecutionError as error:
        raise unfinished(lesson, notebook, folder, str(error)) from None
    except (
        AssertionError,
        KeyboardInterrupt,
    ):  # nbclient's ways to say that a signal has stopped the kernel
        raise unfinished(lesson, notebook, folder, "\n\nStopped.") from None
    except DeadKernelError:
        reason = "The process that ran the notebook has died, perhaps for lack of memory."
        raise unfinished(lesson, notebook, folder, reason) from None
    results, film = json.loads("".join(output.text for output in notebook.cells.pop().outputs))
    return notebook, results, film


def unfinished(lesson, notebook, folder, reason):
    """Save what a lesson has reached, and return what to say about it."""
    notebook.cells.pop()
    place = keep(notebook, folder / f"{lesson}.failed.ipynb")
    where = f"; see {place.name} in {place.parent}" if place else ""
    return Unfinished(f"{reason}\n{lesson}.ipynb stopped there{where}")


def keep(notebook, path):
    """Save a notebook, among the temporary files if need be; return where it is, or None if it is lost."""
    for is_temporary in (False, True):
        try:
            place = (Path(tempfile.mkdtemp()) if is_temporary else path.parent) / path.name
            save(notebook, place)
            return place
        except OSError as error:
            print(f"{path.name} could not be written: {error.strerror}.")


def tidy(notebook):
    """Keep what can be read without a kernel: final progress bars, no widgets, little metadata."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        merged = []
        for output in cell.outputs:
            if output.output_type == "stream" and merged and merged[-1].get("name") == output.name:
                merged[-1].text += output.text
            else:
                merged.append(output)
        for output in merged:
            # Without a kernel a widget shows an error; the picture or text beside it stays.
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            if output.output_type == "stream":
                output.text = "\n".join(line.split("\r")[-1] for line in output.text.split("\n"))
        cell.outputs = merged
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def save(notebook, path):
    """Replace the file in one step."""
    write_text(path, nbformat.writes(tidy(notebook)) + "\n")


def how_long(lessons):
    """What to expect, in one sentence."""
    minutes, verb = (
        sum(LESSONS[lesson] for lesson in lessons),
        "take" if len(lessons) > 1 else "takes",
    )
    return (
        f"{' and '.join(lessons)} {verb} about {minutes} minutes with MNIST on two CPU cores that have "
        "bfloat16, up to twice as long on others, and less with a GPU, without MNIST, or with EPOCHS=1."
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help="S5 or S6 (default: both)")
    parser.add_argument(
        "--in-place", action="store_true", help="update the notebooks and their pictures"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where copies go (default: runs)")
    args = parser.parse_args()
    sys.stdout.reconfigure(
        errors="replace"
    )  # a Windows terminal may lack the progress bars' blocks
    folder = HERE if args.in_place else (args.out or HERE / "runs").resolve()
    if args.out and folder == HERE:
        parser.error(
            "the lessons themselves are there: name another folder, or use --in-place without --out"
        )
    for lesson in args.lessons:
        if lesson not in LESSONS:
            parser.error(f"there is no lesson {lesson}: choose from {', '.join(LESSONS)}")
    try:
        import utils  # refuses a DEVICE that is not there

        utils.get_epochs(1)
    except ValueError as error:
        sys.exit(str(error))
    if args.in_place and (utils.is_smoke_test() or utils.why_no_mnist(utils.get_root())):
        sys.exit("The saved notebooks show a full run on MNIST: without it, leave out --in-place.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # fail now, not after half an hour
    except OSError as error:
        sys.exit(
            f"nothing can be written to {folder} ({error.strerror}): name another folder with --out"
        )

    # So the notebooks find the course's files and data wherever they run.
    others = [path for path in [os.environ.get("PYTHONPATH")] if path]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *others])
    os.environ["MNIST_ROOT"] = str((HERE / utils.get_root()).resolve())

    lessons = args.lessons or list(LESSONS)
    print(how_long(lessons))
    results = []
    try:
        for lesson in lessons:
            print(f"\n===== {lesson}.ipynb =====\n", flush=True)
            notebook, reached, film = run_notebook(lesson, folder)
            results += [row | {"network": f"{row['network']} ({lesson})"} for row in reached]
            place = keep(notebook, folder / f"{lesson}.ipynb")
            if place != folder / f"{lesson}.ipynb":
                where = (
                    f"the complete {lesson}.ipynb is in {place.parent}"
                    if place
                    else f"{lesson}.ipynb is lost"
                )
                raise Unfinished(f"Free some space; {where}.")
            if film and args.in_place:
                write_text(HERE / "website" / "film.json", json.dumps(film) + "\n")
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
