"""What nbval compares: the printed text and tables of tagged cells, but not their stderr."""


def pytest_collectstart(collector):
    # Progress bars and warnings go to stderr, and differ from run to run.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
