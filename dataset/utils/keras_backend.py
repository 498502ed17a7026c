"""Query the devices of Keras' backend, and save and load the state of a training.

Keras is imported without its backend's log messages.
"""

import contextlib
import ctypes
import json
import logging
import os
import platform
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset.errors import BadInput, Failure, first_line
from dataset.utils.files import atomic_path

if TYPE_CHECKING:
    import keras

# A parameter of glibc's `mallopt`.
M_ARENA_MAX = -8
# Keras imports them, if they are installed, for features that this project does not use. Without
# them the import takes two thirds of the time.
UNUSED_PACKAGES = ("matplotlib", "pandas", "sklearn")


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


def share_malloc_arena() -> None:
    """Let all threads that start from now on allocate from one arena of glibc's `malloc`.

    `Model.fit` runs its steps on TensorFlow's threads. The arenas of threads return large blocks to
    the operating system after each step, which costs a tenth of the time of a step on CPUs.
    https://www.man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


@contextlib.contextmanager
def hide_packages(names: Iterable[str]) -> Iterator[None]:
    """Let imports of packages fail that are not imported yet, as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        # https://docs.python.org/3/reference/import.html#the-module-cache
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def import_backend() -> None:
    """Import Keras and its backend; a failed import still raises its error."""
    share_malloc_arena()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow imports JAX for its converter.
    other = ["jax"] if os.environ.get("KERAS_BACKEND") == "tensorflow" else []
    with silence_stderr(), hide_packages([*UNUSED_PACKAGES, *other]):
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
    return all(gpu.get("compute_capability", (8, 0)) >= (8, 0) for gpu in details)


def start_processes() -> None:
    """Connect the processes of a training that are named in the environment, if there are any.

    Keras reads KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_NUM_PROCESSES and
    KERAS_DISTRIBUTION_PROCESS_ID. It must come before anything else that uses the backend.

    Raises:
        BadInput: The backend is not JAX.
        Failure: The processes can't be connected.
    """
    share_malloc_arena()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    if keras.backend.backend() != "jax":
        raise BadInput(
            "--distribute needs Keras' JAX backend: pip install 'fashion-tagger[jax]', and set"
            " KERAS_BACKEND=jax"
        )
    if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ:
        try:
            keras.distribution.initialize()
        except (RuntimeError, ValueError) as error:
            raise Failure(
                f"--distribute: the processes can't be connected: {first_line(error)}; check"
                " KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID"
            ) from error


def process_number() -> tuple[int, int]:
    """Return the number of this process among those of a training, and how many there are."""
    import keras

    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def from_first_process(values: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Broadcast arrays from the first process of a training to all of its processes.

    Results that each process computes for itself may differ by rounding.

    Args:
        values: Arrays, with the same shapes in all processes.
    """
    own = list(values)
    if process_number()[1] == 1:
        return own
    from jax.experimental import multihost_utils

    return [np.asarray(value) for value in multihost_utils.broadcast_one_to_all(own)]


@contextlib.contextmanager
def undistributed() -> Iterator[None]:
    """Let each process compute on its own data within the block."""
    import keras

    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def jit_compile() -> bool | str:
    """Return the argument of `Model.compile`: Keras' default, but no XLA on CPUs.

    On CPUs TensorFlow's oneDNN trains convolutions in less than half of XLA's time.
    """
    import keras

    return False if keras.backend.backend() == "tensorflow" and not has_gpu() else "auto"


def inference_function(network: "keras.Model") -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return a function that computes the outputs of a network for batches of any size.

    With TensorFlow, `Model.predict_on_batch` traces one graph for the first batch size and another
    one for all others, which takes twice as long, and their outputs differ by rounding.

    Args:
        network: A network with one input.

    Returns:
        Array of shape (batch, ...) -> the outputs, one or more.
    """
    import keras

    compute = network.predict_on_batch
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        shape = tf.TensorSpec(network.input.shape, network.input.dtype)
        compute = tf.function(network, input_signature=[shape], autograph=False)

    def outputs(batch: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(output) for output in keras.tree.flatten(compute(batch))]

    return outputs


def set_seed(seed: int) -> None:
    """Seed all random numbers, and let TensorFlow use deterministic operations only.

    Without this, some operations add numbers in the order in which threads finish.
    """
    import keras

    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def save_state(path: Path, metadata: Any, values: Iterable[np.ndarray]) -> None:
    """Write a state atomically.

    Args:
        path: File of the state.
        metadata: Metadata, anything that JSON can represent.
        values: Arrays.
    """
    arrays = {f"v{number}": value for number, value in enumerate(values)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, said=np.array(json.dumps(metadata)), **arrays)


def load_state(path: Path, remedy: str) -> tuple[Any, Sequence[np.ndarray]]:
    """Read a state.

    Args:
        path: File of the state.
        remedy: What the user can do about a broken file; ends the error message.

    Returns:
        Metadata and arrays.

    Raises:
        Failure: The file is broken.
    """
    try:
        with np.load(path) as state:
            metadata = json.loads(str(state["said"]))
            return metadata, [state[f"v{number}"] for number in range(len(state.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Failure(f"--resume: {path} is broken ({first_line(error)}); {remedy}") from error


def training_variables(network: "keras.Model") -> list["keras.Variable"]:
    """Return all variables of a training: weights, random states and optimizer variables."""
    return [*network.variables, *network.optimizer.variables]


def assign(variables: Sequence["keras.Variable"], values: Sequence[np.ndarray]) -> None:
    """Assign values to variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
