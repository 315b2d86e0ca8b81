"""What nbval compares: the printed text and tables of tagged cells, but not their stderr."""

import os


def pytest_collectstart(collector):
    # Progress bars and warnings go to stderr, and differ from run to run.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
        # Each notebook runs in its own folder, but all use the same digits.
        os.environ["MNIST_ROOT"] = os.path.abspath(
            os.path.expanduser(os.environ.get("MNIST_ROOT") or "data")
        )
