# Runs a notebook's first cell twice, as Jupyter would: first_cell.py CELL MISSING_PACKAGES
# Prints what pip was asked for, which of Colab's own libraries were imported, and where files lie.
import importlib.util
import json
import subprocess
import sys

from IPython.core.interactiveshell import InteractiveShell

cell, missing = sys.argv[1], json.loads(sys.argv[2])
find_spec = importlib.util.find_spec
asked = []


def install(command):
    asked.append(command[1:])
    missing.clear()  # pip has installed them
    return subprocess.CompletedProcess(command, 0)


importlib.util.find_spec = lambda name: None if name in missing else find_spec(name)
subprocess.run = install
shell = InteractiveShell.instance()
for _ in range(2):
    shell.run_cell(cell).raise_error()
places = {name: find_spec(name).origin for name in ["course", "model", "utils"]}
heavy = [name for name in ("torch", "torchvision", "numpy") if name in sys.modules]
print(json.dumps([asked, heavy, places]))
