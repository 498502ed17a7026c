"""Imports Keras as the commands do; the tests' own imports of it take longer."""

from dataset.utils.keras_backend import import_backend

import_backend()
