"""Loads the fixtures of the browser tests where the file of this name one folder up loads its."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if config.pluginmanager.has_plugin("common_fixtures"):
        config.pluginmanager.import_plugin("browser_fixtures")
