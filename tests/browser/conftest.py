"""Loads the fixtures of the browser tests, like the file of this name one folder up."""


def pytest_configure(config):
    is_worker = hasattr(config, "workerinput")
    is_alone = config.getoption("dist", "no") == "no"
    if is_worker or is_alone:
        config.pluginmanager.import_plugin("browser_fixtures")
