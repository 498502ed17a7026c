"""Save and load the state of a training in one file, atomically."""

import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset.errors import Failure, first_line
from dataset.utils.files import atomic_path

if TYPE_CHECKING:
    import keras


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
