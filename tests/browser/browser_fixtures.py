"""A headless Chromium, and a Jupyter server on this machine with a copy of the course."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest
from browsing import PATIENCE, PICTURES, SITE, WIDE, open_page, served
from filelock import FileLock
from helpers import HERE

import utils

CHROMIUM = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
QUIET = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {  # of JupyterLab; Notebook 7 reads the same
    # All cells are on the page at all times, not only those in view.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},  # a test saves with a key
    "apputils-extension/themes": {"adaptive-theme": True},  # light or dark, as the browser asks
}
OPTIONS = [
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--IdentityProvider.token=",
    "--LabApp.expose_app_in_browser=True",
    "--JupyterNotebookApp.expose_app_in_browser=True",
]
COPIED_FILES = ["model.py", "utils.py", "train.py"]
COPIED_FOLDERS = ["course", "checkpoints", "Test_Images", "benchmarks"]


@pytest.fixture(scope="session")
def chromium():
    """Playwright and the path of a Chromium. On Debian, root installs it if it is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with FileLock(PICTURES / ".lock"):  # one of the processes that test installs it for all
        found = find_chromium()
        if found is None and shutil.which("apt-get") and os.geteuid() == 0:
            for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
                subprocess.run(["apt-get", "-qq", *command], stdout=subprocess.DEVNULL)
            found = find_chromium()
    if found is None:
        how = "`sudo apt install chromium`" if shutil.which("apt-get") else "Chromium or Chrome"
        pytest.skip(f"no browser to test with: install {how}, then run this again")
    return playwright, found


def find_chromium():
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


@pytest.fixture(scope="session")
def browser(chromium):
    playwright, path = chromium
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=[*QUIET, *root])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tab(browser):
    """A page that tests use one after another: a new one costs more than most of what they do."""
    page = open_page(browser)
    yield page
    page.close()


@pytest.fixture
def page(tab):
    """A page that is empty, as if it were new. Who stops its clock needs another: that stays."""
    usual = {"media": "null", "color_scheme": "null", "forced_colors": "null"}
    tab.unroute_all()
    tab.goto("about:blank")
    tab.emulate_media(**usual, reduced_motion="reduce")
    tab.set_viewport_size(WIDE)
    tab.set_default_timeout(PATIENCE)
    return tab


@pytest.fixture(scope="module")
def blank(browser):
    """A page that the tests of a module share: what they do to its window stays."""
    page = open_page(browser)
    yield page
    page.close()


@pytest.fixture(scope="session")
def address():
    """Where the website is served, which `make site` has built."""
    with served(SITE) as address:
        yield address


@contextmanager
def watched(page, address, expected):
    """While a page is used, nothing but what is expected may go wrong; no other host is asked."""
    complaints = []

    def check_request(request):
        if not request.url.startswith((address, "data:", f"blob:{address}")):
            complaints.append(request.url)

    def check_message(message):
        if message.type == "error":
            complaints.append(message.text)

    def check_error(error):
        complaints.append(str(error))

    checks = {"request": check_request, "console": check_message, "pageerror": check_error}
    for event, check in checks.items():
        page.on(event, check)
    yield
    for event, check in checks.items():
        page.remove_listener(event, check)
    assert [text for text in complaints if not any(part in text for part in expected)] == []


@pytest.fixture
def visit(browser, address, page):
    """Opens a page of the website, and watches it.

    A test that needs another kind of browser (`options`), or two pages at once, or leaves
    something behind (`alone`), gets a page of its own. A file can be missing (`without`).
    """
    with ExitStack() as stack:

        def open_website(
            name, width=1400, theme="light", expected=(), alone=False, without=None, **options
        ):
            size = {"width": width, "height": 900}
            media = {"color_scheme": theme, "reduced_motion": "reduce"}
            if alone or options:
                context = browser.new_context(**{"viewport": size} | media | options)
                visited = stack.enter_context(context).new_page()
            else:
                visited = page
                visited.set_viewport_size(size)
                visited.emulate_media(**media)
            visited.set_default_timeout(20_000)
            if without:
                visited.route(without, lambda route: route.fulfill(content_type="text/javascript"))
            stack.enter_context(watched(visited, address, expected))
            visited.goto(address + name, wait_until="networkidle")
            return visited

        yield open_website


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """If a test fails, a picture of its page may show why."""
    report = yield
    if report.failed and report.when == "call" and "page" in item.funcargs:
        item.funcargs["page"].screenshot(path=PICTURES / f"failed-{item.name}.png")
    return report


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory):
    """A running Jupyter server, which has JupyterLab and Notebook 7: its address and folder."""
    place = tmp_path_factory.mktemp("jupyter")
    course = place / "course"
    course.mkdir()
    for name in COPIED_FILES:
        shutil.copy(HERE / name, course)
    for name in COPIED_FOLDERS:
        shutil.copytree(HERE / name, course / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, values in SETTINGS.items():
        path = place / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "SMOKE_TEST": "1",
        "MNIST_ROOT": str((HERE / utils.get_root()).resolve()),
        "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(place / "config"),
        "JUPYTER_RUNTIME_DIR": str(place / "runtime"),
        "IPYTHONDIR": str(place / "ipython"),
    }
    command = [sys.executable, "-m", "jupyter", "lab", f"--ServerApp.port={port}", *OPTIONS]
    with open(place / "server.log", "w") as log:
        server = subprocess.Popen(command, cwd=course, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address + "/api/status", server, place / "server.log")
        yield address, course
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
