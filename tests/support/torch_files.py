"""Write .pth checkpoints without PyTorch: valid ones and hostile ones."""

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class FloatStorage:
    pass


def _rebuild_tensor_v2() -> None:
    pass


class Storage:
    """The values of a tensor, stored under a key of the file."""

    def __init__(self, key: str, count: int) -> None:
        self.key, self.count = key, count


class Tensor:
    """A tensor as PyTorch pickles it; its sizes may be wrong on purpose."""

    def __init__(
        self,
        storage: Storage,
        shape: tuple[Any, ...],
        strides: tuple[Any, ...],
        offset: Any = 0,
    ) -> None:
        self.parts: tuple[Any, ...] = (storage, offset, shape, strides, False, OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Storage):
            return ("storage", FloatStorage, obj.key, "cpu", obj.count)
        return None

    def reducer_override(self, obj: Any) -> Any:
        return (_rebuild_tensor_v2, obj.parts) if isinstance(obj, Tensor) else NotImplemented


@contextmanager
def _as_torch() -> Iterator[None]:
    """Register the classes of this module under the names of PyTorch for the pickler."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2  # type: ignore[attr-defined]
    FloatStorage.__module__, _rebuild_tensor_v2.__module__ = "torch", "torch._utils"
    original = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield
    finally:
        for name, module in original.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def pickled(content: Any) -> bytes:
    """Return content with tensors as a pickle of protocol 2."""
    out = io.BytesIO()
    with _as_torch():
        Pickler(out, 2).dump(content)
    return out.getvalue()


def tensors_of(
    arrays: Mapping[str, np.ndarray],
) -> tuple["OrderedDict[str, Tensor]", dict[str, bytes]]:
    """Convert arrays to tensors.

    Returns:
        The tensors by name, and the bytes of their storages by key.
    """
    tensors, numbers = OrderedDict(), {}
    for index, (name, values) in enumerate(arrays.items()):
        array = np.ascontiguousarray(values, np.float32)
        strides = tuple(step // 4 for step in array.strides)
        tensors[name] = Tensor(Storage(str(index), array.size), array.shape, strides)
        numbers[str(index)] = array.tobytes()
    return tensors, numbers


def write_zip(path: Path, content: Any, numbers: Mapping[str, bytes], how: int = 0) -> Path:
    """Write a checkpoint in the zip format (since PyTorch 1.6).

    Args:
        path: The file to write.
        content: The object to pickle, or the pickle itself.
        numbers: The bytes of the storages by key.
        how: Compression method of `zipfile`.

    Returns:
        The path.
    """
    with zipfile.ZipFile(path, "w", how) as archive:
        data = content if isinstance(content, bytes) else pickled(content)
        archive.writestr("archive/data.pkl", data)
        for key, value in numbers.items():
            archive.writestr(f"archive/data/{key}", value)
        archive.writestr("archive/version", b"3\n")
    return path


def write_stream(path: Path, content: Any, numbers: Mapping[str, bytes]) -> Path:
    """Write a checkpoint in the format before PyTorch 1.6: five pickles and the storages."""
    machine = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(MAGIC, 2), pickle.dumps(PROTOCOL, 2), pickle.dumps(machine, 2)]
    parts += [pickled(content), pickle.dumps(list(numbers), 2)]
    parts += [struct.pack("<q", len(value) // 4) + value for value in numbers.values()]
    path.write_bytes(b"".join(parts))
    return path
