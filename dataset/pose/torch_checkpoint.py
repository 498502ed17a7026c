"""Read the tensors of PyTorch checkpoints without PyTorch and without executing their code.

A checkpoint is a pickle, either in a ZIP archive or in the older stream format. The standard
library's unpickler calls the functions that a pickle names; this reader interprets a short list of
operations, maps a few names to functions of its own, and ignores the states of objects.

Operations: https://github.com/python/cpython/blob/main/Lib/pickletools.py.
"""

import io
import math
import pickletools
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from dataset.errors import Failure, first_line, shorten_for_display

# Far more than any network's list of tensors (200 KB), and quick to read.
MAX_PICKLE_BYTES = 8 << 20
# A checkpoint with the optimizer's tensors takes a quarter of these operations.
MAX_STEPS = 1 << 19


class InvalidCheckpoint(ValueError):  # noqa: N818 - reads as what it is
    """The file is not a checkpoint, is broken, or is malicious; the message says why."""


class GlobalName(NamedTuple):
    """A function or class that a pickle names."""

    module: str
    name: str


Globals = Mapping[tuple[str, str], Callable[..., Any]]
# Operations that push their argument.
VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINUNICODE8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NO_EFFECT = {"PROTO", "FRAME"}


def read_pickle(stream: BinaryIO, known: Globals, outside: Callable[[Any], Any]) -> Any:
    """Read the pickle at the position of a stream.

    Args:
        stream: The stream; its position moves behind the pickle.
        known: Name -> function, for all names that may be called.
        outside: Converts a persistent id to a value.

    Raises:
        InvalidCheckpoint: The pickle is broken or too long, or uses another name or operation.
    """
    machine, start = _PickleMachine(known, outside), stream.tell()
    try:
        for step, argument, _ in pickletools.genops(stream):
            if stream.tell() - start > MAX_PICKLE_BYTES:
                raise InvalidCheckpoint("its pickle is absurdly long")
            if step.name == "STOP":
                return machine.stack[-1]
            machine.do(step.name, argument)
    except InvalidCheckpoint:
        raise
    except (ValueError, EOFError, LookupError, TypeError, struct.error, OverflowError) as error:
        raise InvalidCheckpoint(f"its pickle is broken ({first_line(error)})") from error
    raise InvalidCheckpoint("its pickle is cut off")


class _PickleMachine:
    """The stack, marks and memo of an unpickler."""

    def __init__(self, known: Globals, outside: Callable[[Any], Any]) -> None:
        self.known, self.outside = known, outside
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.work = 0

    def do(self, step: str, argument: Any) -> None:
        """Execute an operation of pickletools with its argument."""
        self._count(1)
        if step in VALUES:
            self.stack.append(argument)
        elif step in CONSTANTS:
            self.stack.append(CONSTANTS[step])
        elif step in TUPLES:
            self.stack.append(tuple(self._top(TUPLES[step])))
        elif step not in NO_EFFECT:
            action = getattr(self, f"_{step.lower()}", None)
            if action is None:
                raise InvalidCheckpoint(f"its pickle has the step {step}")
            action(argument)

    def _count(self, work: int) -> None:
        self.work += work
        if self.work > MAX_STEPS:
            raise InvalidCheckpoint("its pickle is absurdly long")

    def _top(self, count: int) -> list[Any]:
        """Pop the last values."""
        start = len(self.stack) - count
        if start < 0:
            raise InvalidCheckpoint("its pickle is broken (too few values)")
        top = self.stack[start:]
        del self.stack[start:]
        return top

    def _since_mark(self) -> list[Any]:
        return self._top(len(self.stack) - self.marks.pop())

    def _mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _empty_list(self, _: None) -> None:
        self.stack.append([])

    def _empty_dict(self, _: None) -> None:
        self.stack.append({})

    def _append(self, _: None) -> None:
        self._extend(self._top(1))

    def _appends(self, _: None) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise InvalidCheckpoint("its pickle appends to what is no list")
        self.stack[-1].extend(values)

    def _setitem(self, _: None) -> None:
        self._update(self._top(2))

    def _setitems(self, _: None) -> None:
        self._update(self._since_mark())

    def _update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if target is None:
            # An object that is not needed.
            return
        # Hashing a deeply nested tuple would overflow the stack.
        if not isinstance(target, dict) or not all(isinstance(k, str | int) for k in values[::2]):
            raise InvalidCheckpoint("its pickle fills what is no dictionary of names")
        target.update(zip(values[::2], values[1::2], strict=True))

    def _binput(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    _long_binput = _binput

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _binget(self, place: int) -> None:
        self.stack.append(self.memo[place])

    _long_binget = _binget

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: None) -> None:
        self._name(*self._top(2))

    def _name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise InvalidCheckpoint("its pickle names a function in an unknown way")
        if (module, name) not in self.known:
            raise InvalidCheckpoint(f"it references {module}.{name}, which no tensor needs")
        self.stack.append(GlobalName(module, name))

    def _reduce(self, _: None) -> None:
        function, arguments = self._top(2)
        if not isinstance(function, GlobalName) or not isinstance(arguments, tuple):
            raise InvalidCheckpoint("its pickle calls an object that is not a function")
        # A pickle may pass one long list to a thousand calls.
        self._count(sum(len(value) for value in arguments if isinstance(value, list | tuple)))
        self.stack.append(self.known[function](*arguments))

    _newobj = _reduce

    def _build(self, _: None) -> None:
        """Ignore the state of an object: only objects that are not needed have one."""
        self._top(1)

    def _binpersid(self, _: None) -> None:
        (pid,) = self._top(1)
        self.stack.append(self.outside(pid))


# Bytes per read. The central directory is one read: 200 KB for the largest network here.
BLOCK_BYTES = 2 << 20


class LimitedFile(io.FileIO):
    """A file with limited reads: `zipfile` would read a central directory of any length."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most a number of bytes.

        Raises:
            InvalidCheckpoint: There are more than `BLOCK_BYTES`.
        """
        read_size = BLOCK_BYTES + 1 if size is None or size < 0 else min(size, BLOCK_BYTES + 1)
        data = super().read(read_size) or b""
        if len(data) > BLOCK_BYTES:
            raise InvalidCheckpoint("its central directory is absurdly long")
        return data


def read_entry(archive: zipfile.ZipFile, name: str, longest: int) -> bytes:
    """Read an entry of an archive.

    Args:
        archive: The archive.
        name: Name of the entry.
        longest: Largest size in bytes.

    Raises:
        InvalidCheckpoint: The entry is larger.
    """
    if archive.getinfo(name).file_size > longest:
        raise InvalidCheckpoint(f"its part {name} is too long")
    with archive.open(name) as part:
        return b"".join(iter(lambda: part.read(BLOCK_BYTES), b""))


def check_entries(entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Check the entries of an archive: PyTorch stores them uncompressed and without duplicates.

    Args:
        entries: Entries of the archive.
        size: Size of the file in bytes.

    Raises:
        InvalidCheckpoint: It is not an archive of PyTorch.
    """
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise InvalidCheckpoint("it is a compressed archive")
    if sum(entry.file_size for entry in entries) > size:
        raise InvalidCheckpoint("its parts are larger than the file")
    names = Counter(entry.filename for entry in entries)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InvalidCheckpoint(f"it has two parts {twice[0]!r}")


MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
# 1 GiB of tensors: four times the largest network here.
MAX_TENSOR_BYTES = 1 << 30
MAX_DIMENSIONS = 8
# NumPy's arithmetic of shapes and strides would overflow beyond this.
MAX_OFFSET = 1 << 40
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
    """Read the tensors of a checkpoint by name, those of its `state_dict` if it has one.

    Raises:
        Failure: The file can't be read, is truncated, or contains anything but tensors.
    """
    try:
        with path.open("rb") as file:
            read = _read_zip if zipfile.is_zipfile(file) else _read_stream
            file.seek(0)
            return read(file, path.stat().st_size)
    except InvalidCheckpoint as error:
        why = shorten_for_display(str(error))
        raise Failure(
            f"{path} is rejected: {why}; download the complete file from its publisher"
        ) from error
    except OSError as error:
        raise Failure(f"{path} can't be read: {error.strerror or error}") from error


def _read_zip(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(LimitedFile(file.fileno(), closefd=False)) as archive:
            check_entries(archive.infolist(), size)
            names = set(archive.namelist())
            roots = [name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise InvalidCheckpoint(f"it has {len(roots) or 'no'} data.pkl")
            root = roots[0]
            order = f"{root}byteorder"
            if order in names and read_entry(archive, order, BLOCK_BYTES) != b"little":
                raise InvalidCheckpoint("its numbers are big-endian")

            def numbers(storage: _Storage) -> bytes:
                name = f"{root}data/{storage.key}"
                if name not in names:
                    raise InvalidCheckpoint(f"the numbers {name} are missing")
                return read_entry(archive, name, storage.size)

            data = read_entry(archive, f"{root}data.pkl", MAX_PICKLE_BYTES)
            content = read_pickle(io.BytesIO(data), GLOBALS, _storage)
            return _arrays(_tensors(content, size), numbers)
    except InvalidCheckpoint:
        raise
    # zipfile raises these for inconsistent archives.
    except (
        *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError),
        *(ValueError, OverflowError, struct.error),
    ) as error:
        raise InvalidCheckpoint(first_line(error)) from error


def _read_stream(file: BinaryIO, size: int) -> dict[str, np.ndarray]:  # noqa: C901
    """Read the older format: magic number, protocol, machine, content, storage keys, numbers."""
    stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    if read_pickle(stream, GLOBALS, _storage) != MAGIC:
        raise InvalidCheckpoint("it is not a .pth file")
    if read_pickle(stream, GLOBALS, _storage) != PROTOCOL:
        raise InvalidCheckpoint("its protocol is not known")
    machine = read_pickle(stream, GLOBALS, _storage)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise InvalidCheckpoint("its numbers are not little-endian")
    storages: dict[str, _Storage] = {}

    def outside(pid: Any) -> _Storage:
        storage = _storage(pid)
        return storages.setdefault(storage.key, storage)

    tensors = _tensors(read_pickle(stream, GLOBALS, outside), size)
    keys = read_pickle(stream, GLOBALS, _storage)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InvalidCheckpoint("its list of storages is broken")
    wanted = {tensor.storage.key for tensor in tensors.values()}
    found: dict[str, bytes] = {}
    file.seek(stream.tell())
    for key in keys:
        (count,) = struct.unpack("<q", _exactly(file, 8))
        if key not in storages or count != storages[key].length or key in found:
            raise InvalidCheckpoint(f"storage {key!r} is not the one that its tensors name")
        if key in wanted:
            found[key] = _exactly(file, storages[key].size)
        else:
            # For example of an optimizer.
            file.seek(storages[key].size, io.SEEK_CUR)
    if file.tell() > size:
        raise InvalidCheckpoint("it is cut off")
    if missing := sorted(wanted - set(found)):
        raise InvalidCheckpoint(f"storage {missing[0]!r} is missing")
    return _arrays(tensors, lambda storage: found[storage.key])


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise InvalidCheckpoint("it is cut off")
    return data


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _storage(pid: Any) -> _Storage:
    """Return the storage of a persistent id: ("storage", type, key, location, count)."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
        raise InvalidCheckpoint("it names a storage in an unknown way")
    kind, key, count = pid[1], pid[2], pid[4]
    if not isinstance(kind, GlobalName) or kind.name not in STORAGES or not isinstance(key, str):
        raise InvalidCheckpoint("it names a storage in an unknown way")
    if not _is_count(count) or count * STORAGES[kind.name].itemsize > MAX_TENSOR_BYTES:
        raise InvalidCheckpoint(f"storage {key!r} is absurdly long")
    if len(pid) > 5 and pid[5] is not None:
        raise InvalidCheckpoint("it has views of storages, as files before torch 0.4 do")
    return _Storage(kind.name, key, count)


def _rebuilt(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    for value in (shape, strides):
        if not isinstance(value, tuple) or len(value) > MAX_DIMENSIONS:
            raise InvalidCheckpoint("a tensor has no shape")
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise InvalidCheckpoint("a tensor has no storage, or no strides for its shape")
    if (
        not all(_is_count(value) for value in (offset, *shape, *strides))
        or max(math.prod(max(n, 1) for n in shape), *strides, 0) > MAX_OFFSET
    ):
        raise InvalidCheckpoint("a tensor has an absurd shape")
    # Index of the last number of the tensor; an empty one has none.
    reach = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and reach >= storage.length:
        raise InvalidCheckpoint(f"a tensor of shape {shape} reaches beyond its storage")
    return _Tensor(storage, offset, shape, strides)


def _dictionary(items: Any = ()) -> dict[str, Any]:
    if not isinstance(items, list | tuple) or any(
        not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str)
        for pair in items
    ):
        raise InvalidCheckpoint("its pickle has a dictionary of no names")
    return dict(items)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _nothing(*_: Any) -> None:
    """Ignore objects that are not needed, such as colours of joints in checkpoints of mmpose."""


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
    """Return the tensors by name."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise InvalidCheckpoint("it holds no tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise InvalidCheckpoint(f"it holds something else than a tensor by the name {name!r}")
    # Steps of 0, or many views of one storage, could ask for more than the file has.
    if sum(tensor.size for tensor in content.values()) > min(size, MAX_TENSOR_BYTES):
        raise InvalidCheckpoint("its tensors are absurdly large")
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
                raise InvalidCheckpoint(f"storage {storage.key!r} is cut off or too long")
            kept[storage] = np.frombuffer(data, storage.dtype)
        strides = tuple(step * storage.dtype.itemsize for step in tensor.strides)
        start = kept[storage][tensor.offset :]
        result[name] = np.lib.stride_tricks.as_strided(start, tensor.shape, strides)
    return result
