"""Where a training stands, its variables and what was said, in one file that is never half."""

import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset.errors import Failure, first_line

if TYPE_CHECKING:
    import keras


def save_state(path: Path, said: Any, values: Iterable[np.ndarray]) -> None:
    """Write SAID, anything JSON knows, and VALUES to PATH: aside, synced, then renamed."""
    part = path.with_name(f".part-{path.name}")
    arrays = {f"v{number}": value for number, value in enumerate(values)}
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, said=np.array(json.dumps(said)), **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_state(path: Path, instead: str) -> tuple[Any, Sequence[np.ndarray]]:
    """What `save_state` wrote to PATH.

    Raises:
        Failure: the file is broken; its text ends with INSTEAD.
    """
    try:
        with np.load(path) as state:
            said = json.loads(str(state["said"]))
            return said, [state[f"v{number}"] for number in range(len(state.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Failure(f"--resume: {path} is broken ({first_line(error)}); {instead}") from error


def training_variables(network: "keras.Model") -> list["keras.Variable"]:
    """Return all that a resumed training needs: weights, random states, optimizer variables."""
    return [*network.variables, *network.optimizer.variables]


def assign(variables: Sequence["keras.Variable"], values: Sequence[np.ndarray]) -> None:
    """Give each of VARIABLES its value."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
