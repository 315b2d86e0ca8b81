"""A headless Chromium, and Jupyter servers on this machine with a copy of the course."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from browsing import PICTURES, open_page
from helpers import HERE

import utils

CHROMIUM = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]

SETTINGS = {  # of JupyterLab; Notebook 7 reads the same
    # All cells are on the page at all times, not only those in view.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
THEMES = {"lab": "JupyterLab Light", "notebook": "JupyterLab Dark"}  # to test both
COPIED_FILES = ["model.py", "utils.py", "train.py"]
COPIED_FOLDERS = ["course", "checkpoints", "Test_Images", "benchmarks"]


@pytest.fixture(scope="session")
def chromium():
    """Playwright and the path of a Chromium. On Debian, root installs it if it is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "-qq", *command], stdout=subprocess.DEVNULL)
        found = shutil.which("chromium")
    if found is None:
        how = "`sudo apt install chromium`" if shutil.which("apt-get") else "Chromium or Chrome"
        pytest.skip(f"no browser to test with: install {how}, then run this again")
    return playwright, found


@pytest.fixture(scope="session")
def browser(chromium):
    playwright, path = chromium
    quiet = [
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    PICTURES.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=[*quiet, *root])
        yield browser
        browser.close()


def copy_course(folder):
    """Copy the course as a learner has it, without outputs: a test must see only its own."""
    for name in COPIED_FILES:
        shutil.copy(HERE / name, folder)
    for name in COPIED_FOLDERS:
        shutil.copytree(HERE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in HERE.glob("S?.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / path.name)


@pytest.fixture(scope="session", params=["lab", "notebook"])
def jupyter(request, tmp_path_factory):
    """A running JupyterLab or Notebook 7: its kind, address and folder."""
    place = tmp_path_factory.mktemp(request.param)
    course = place / "course"
    course.mkdir()
    copy_course(course)
    settings = SETTINGS | {"apputils-extension/themes": {"theme": THEMES[request.param]}}
    for name, values in settings.items():
        path = place / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "SMOKE_TEST": "1",
        "MNIST_ROOT": str((HERE / utils.get_root()).resolve()),
        "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(place / "config"),
        "JUPYTER_RUNTIME_DIR": str(place / "runtime"),
        "IPYTHONDIR": str(place / "ipython"),
    }
    command = [sys.executable, "-m", "jupyter", request.param, "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token="]
    with open(place / "server.log", "w") as log:
        server = subprocess.Popen(command, cwd=course, env=environment, stdout=log, stderr=log)
    try:
        wait_for(address + "/api/status", server, place / "server.log")
        yield request.param, address, course
    finally:
        server.terminate()
        server.wait(timeout=60)


def wait_for(address, server, log, patience=120):
    deadline = time.monotonic() + patience
    while True:
        try:
            return urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Jupyter did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.3)


@pytest.fixture
def page(browser):
    page = open_page(browser)
    yield page
    page.close()


@pytest.fixture(scope="module")
def blank(browser):
    """A page that the tests of a module share: what they do to its window stays."""
    page = open_page(browser)
    yield page
    page.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """If a test fails, a picture of its page may show why."""
    report = yield
    if report.failed and report.when == "call" and "page" in item.funcargs:
        item.funcargs["page"].screenshot(path=PICTURES / f"failed-{item.name}.png")
    return report
