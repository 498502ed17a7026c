"""Keras' backend, imported without the chatter of its start-up."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
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


def import_backend() -> None:
    """Import Keras and its backend; an import that fails still raises its own error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silence_stderr():
        import keras

        # It calls photos of many shapes a waste of time; each shape is seen once.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)

        # The first tensor starts the backend, which has more to say.
        keras.ops.zeros(1)


def has_gpu() -> bool:
    """Whether the backend sees a GPU."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    return any("gpu" in name or "cuda" in name for name in keras.distribution.list_devices())


def gpu_has_bfloat16() -> bool:
    """Return whether all GPUs multiply bfloat16 themselves; NVIDIA's do since capability 8.0."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return all(one.get("compute_capability", (8, 0)) >= (8, 0) for one in details)


def jit_compile() -> bool | str:
    """What `Model.compile` is to be told: Keras' own choice, but on a processor not XLA.

    There TensorFlow's oneDNN trains convolutions in less than half of XLA's time.
    """
    import keras

    return False if keras.backend.backend() == "tensorflow" and not has_gpu() else "auto"
