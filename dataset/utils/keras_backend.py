"""Import Keras' backend without its log messages, and query its devices."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Discard output to file descriptor 2, including that of C++ code."""
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
    """Import Keras and its backend; a failed import still raises its error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silence_stderr():
        import keras

        # TensorFlow warns of retracing for images of many shapes.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)

        # The first tensor initializes the backend, which logs as well.
        keras.ops.zeros(1)


def has_gpu() -> bool:
    """Return whether the backend has a GPU."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    return any("gpu" in name or "cuda" in name for name in keras.distribution.list_devices())


def gpu_has_bfloat16() -> bool:
    """Return whether all GPUs multiply bfloat16 natively, as NVIDIA's do since capability 8.0."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return all(one.get("compute_capability", (8, 0)) >= (8, 0) for one in details)


def jit_compile() -> bool | str:
    """Return the argument of `Model.compile`: Keras' default, but no XLA on CPUs.

    On CPUs TensorFlow's oneDNN trains convolutions in less than half of XLA's time.
    """
    import keras

    return False if keras.backend.backend() == "tensorflow" and not has_gpu() else "auto"
