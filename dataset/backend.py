"""Keras' backend, imported without the chatter of its start-up."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def no_stderr() -> Iterator[None]:
    """Nothing reaches file 2, also not what C++ writes before any setting is read."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def load() -> None:
    """Import Keras and its backend; an import that fails still raises its own error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with no_stderr():
        import keras

        # It calls photos of many shapes a waste of time; each shape is seen once.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)

        # The first tensor starts the backend, which has more to say.
        keras.ops.zeros(1)
