"""What the figures of the README were measured with: `python -m benchmarks.accuracy --help`."""
