"""An HRNet of few layers: most of a test's time is Keras' and TensorFlow's, to make them."""

from dataset.pose.network import Architecture

# Every branch, stage and exchange between branches, each once.
THIN = Architecture((8, 8), (1, 4), (1, 1, 1), 1, (4, 8, 16, 32))
