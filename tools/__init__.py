"""What a maintainer runs: the lessons from top to bottom, and the links' move to another repository."""
