"""What the lessons use beside utils.py and model.py: a module for each of their subjects."""

import importlib.util
import subprocess
import sys

# The lessons, in order, and how many minutes each takes: with MNIST and all epochs, on two CPU
# cores with bfloat16. The commands, the website and the tests ask here which lessons there are.
LESSONS = {"S5": 12, "S6": 10}

# Pure Python and small. Torch is never installed here: Colab and Kaggle bring their own.
SMALL_PACKAGES = ["torchsummary", "mlxtend", "anywidget", "psygnal", "xlsxwriter"]


def install_missing():
    """Install the small packages that the lessons need and that Colab or Kaggle lack."""
    missing = [name for name in SMALL_PACKAGES if importlib.util.find_spec(name) is None]
    if not missing:
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *missing]
    if subprocess.run(command).returncode != 0:
        packages = " ".join(missing)
        raise ImportError(f"the lessons need more packages: run `pip install {packages}`")
