"""What a maintainer runs: both lessons, and the move of all links to another repository."""
