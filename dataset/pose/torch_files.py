"""Tensors from a .pth file, read without torch and without running anything that the file says.

A .pth file is a pickle beside raw numbers, in a zip archive (torch 1.6 and later) or one after the
other (before). Pickles can call any function: ours may name only what rebuilds a tensor.
Format: torch/serialization.py and torch/_utils.py in https://github.com/pytorch/pytorch.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from dataset.errors import Failure, first_line, printable
from dataset.pose.archives import BLOCK, Frugal, read_part, refuse_bombs
from dataset.pose.pickles import LONGEST, Hostile, Named, read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
# 1 GiB of tensors: four times the largest network here.
TENSOR_BYTES = 1 << 30
DIMENSIONS = 8
# Beyond this many numbers NumPy's own arithmetic of shapes and strides would overflow.
FARTHEST = 1 << 40
STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Storage(NamedTuple):
    kind: str
    key: str
    length: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return STORAGES[self.kind]

    @property
    def size(self) -> int:
        return self.length * self.dtype.itemsize


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.storage.dtype.itemsize


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of PATH by name: those of its `state_dict` if it has one, else its own.

    Raises:
        Failure: it can't be read, is cut off, or asks for anything but tensors.
    """
    try:
        with path.open("rb") as file:
            read = _read_zip if zipfile.is_zipfile(file) else _read_stream
            file.seek(0)
            return read(file, path.stat().st_size)
    except Hostile as error:
        why = printable(str(error))
        raise Failure(
            f"{path} is refused: {why}. Take the file that its publisher names, whole"
        ) from error
    except OSError as error:
        raise Failure(f"{path} can't be read: {error.strerror or error}") from error


def _read_zip(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(Frugal(file.fileno(), closefd=False)) as archive:
            refuse_bombs(archive.infolist(), size)
            names = set(archive.namelist())
            roots = [name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise Hostile(f"it has {len(roots) or 'no'} data.pkl")
            root = roots[0]
            order = f"{root}byteorder"
            if order in names and read_part(archive, order, BLOCK) != b"little":
                raise Hostile("its numbers are big-endian")

            def numbers(storage: _Storage) -> bytes:
                name = f"{root}data/{storage.key}"
                if name not in names:
                    raise Hostile(f"the numbers {name} are missing")
                return read_part(archive, name, storage.size)

            data = read_part(archive, f"{root}data.pkl", LONGEST)
            content = read_pickle(io.BytesIO(data), GLOBALS, _storage)
            return _arrays(_tensors(content, size), numbers)
    except Hostile:
        raise
    # What zipfile raises for archives that lie.
    except (
        *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError),
        *(ValueError, OverflowError, struct.error),
    ) as error:
        raise Hostile(first_line(error)) from error


def _read_stream(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """The older format: magic number, protocol, machine, content, storage keys, then numbers."""
    stream = io.BytesIO(file.read(LONGEST))
    if read_pickle(stream, GLOBALS, _storage) != MAGIC:
        raise Hostile("it is no .pth file")
    if read_pickle(stream, GLOBALS, _storage) != PROTOCOL:
        raise Hostile("its protocol is not known")
    machine = read_pickle(stream, GLOBALS, _storage)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Hostile("its numbers are not little-endian")
    storages: dict[str, _Storage] = {}

    def outside(pid: Any) -> _Storage:
        storage = _storage(pid)
        return storages.setdefault(storage.key, storage)

    tensors = _tensors(read_pickle(stream, GLOBALS, outside), size)
    keys = read_pickle(stream, GLOBALS, _storage)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Hostile("its list of storages is broken")
    wanted = {tensor.storage.key for tensor in tensors.values()}
    found: dict[str, bytes] = {}
    file.seek(stream.tell())
    for key in keys:
        (count,) = struct.unpack("<q", _exactly(file, 8))
        if key not in storages or count != storages[key].length or key in found:
            raise Hostile(f"storage {key!r} is not the one that its tensors name")
        if key in wanted:
            found[key] = _exactly(file, storages[key].size)
        else:
            # An optimizer's, say.
            file.seek(storages[key].size, io.SEEK_CUR)
    if file.tell() > size:
        raise Hostile("it is cut off")
    if missing := sorted(wanted - set(found)):
        raise Hostile(f"storage {missing[0]!r} is missing")
    return _arrays(tensors, lambda storage: found[storage.key])


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise Hostile("it is cut off")
    return data


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _storage(pid: Any) -> _Storage:
    """The storage that a pickle names from outside: ("storage", kind, key, place, count)."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
        raise Hostile("it names a storage in an unknown way")
    kind, key, count = pid[1], pid[2], pid[4]
    if not isinstance(kind, Named) or kind.name not in STORAGES or not isinstance(key, str):
        raise Hostile("it names a storage in an unknown way")
    if not _is_count(count) or count * STORAGES[kind.name].itemsize > TENSOR_BYTES:
        raise Hostile(f"storage {key!r} is absurdly long")
    if len(pid) > 5 and pid[5] is not None:
        raise Hostile("it has views of storages, as files before torch 0.4 do")
    return _Storage(kind.name, key, count)


def _rebuilt(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    for value in (shape, strides):
        if not isinstance(value, tuple) or len(value) > DIMENSIONS:
            raise Hostile("a tensor has no shape")
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise Hostile("a tensor has no storage, or no strides for its shape")
    if (
        not all(_is_count(value) for value in (offset, *shape, *strides))
        or max(math.prod(max(n, 1) for n in shape), *strides, 0) > FARTHEST
    ):
        raise Hostile("a tensor has an absurd shape")
    # The last number that the tensor reaches; an empty one reaches none.
    reach = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and reach >= storage.length:
        raise Hostile(f"a tensor of shape {shape} reaches beyond its storage")
    return _Tensor(storage, offset, shape, strides)


def _dictionary(items: Any = ()) -> dict[str, Any]:
    if not isinstance(items, list | tuple) or any(
        not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str)
        for pair in items
    ):
        raise Hostile("its pickle has a dictionary of no names")
    return dict(items)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _nothing(*_: Any) -> None:
    """For what is not wanted, such as the colours of joints that mmpose keeps beside tensors."""


GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _dictionary,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _nothing,
    ("builtins", "set"): _nothing,
    ("__builtin__", "set"): _nothing,
    ("numpy", "ndarray"): _nothing,
    ("numpy", "dtype"): _nothing,
    ("_codecs", "encode"): _nothing,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _nothing for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _nothing for core in ("core", "_core")},
    **{(module, kind): _nothing for module in ("torch", "torch.cuda") for kind in STORAGES},
}


def _tensors(content: Any, size: int) -> dict[str, _Tensor]:
    """The tensors by name in CONTENT of a file of SIZE bytes."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise Hostile("it holds no tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise Hostile(f"it holds something else than a tensor by the name {name!r}")
    # Steps of 0, or many views of one storage, could ask for more than the file has.
    if sum(tensor.size for tensor in content.values()) > min(size, TENSOR_BYTES):
        raise Hostile("its tensors are absurdly large")
    return content


def _arrays(
    tensors: Mapping[str, _Tensor], numbers: Callable[[_Storage], bytes]
) -> dict[str, np.ndarray]:
    kept: dict[_Storage, np.ndarray] = {}
    result = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage not in kept:
            data = numbers(storage)
            if len(data) != storage.size:
                raise Hostile(f"storage {storage.key!r} is cut off or too long")
            kept[storage] = np.frombuffer(data, storage.dtype)
        strides = tuple(step * storage.dtype.itemsize for step in tensor.strides)
        start = kept[storage][tensor.offset :]
        result[name] = np.lib.stride_tricks.as_strided(start, tensor.shape, strides)
    return result
