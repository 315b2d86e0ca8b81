"""What a maintainer runs: the lessons from top to bottom, and a move to another repository."""
