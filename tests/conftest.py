"""Loads the fixtures, but not where a process only hands out the tests to others.

There PyTorch is not needed, and takes several seconds to import.
"""


def pytest_configure(config):
    is_worker = hasattr(config, "workerinput")
    is_alone = config.getoption("dist", "no") == "no"
    if is_worker or is_alone:
        config.pluginmanager.import_plugin("common_fixtures")
