"""A small HRNet, since building a large one takes most of a test's time."""

from dataset.pose.network import Architecture

# Each branch, stage and exchange between branches once.
THIN = Architecture((8, 8), (1, 4), (1, 1, 1), 1, (4, 8, 16, 32))
