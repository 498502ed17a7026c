"""Pickles read as data: plain values, and calls of the few functions that an allow-list maps.

The standard library's unpickler calls what a pickle names and sets what it says on the results;
this reader does neither: steps outside a short list end it, and objects' states are dropped.
The steps: pickletools.py of the standard library.
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

# Far above any network's list of tensors (200 KB), far below what would take long to read.
LONGEST = 8 << 20
# A checkpoint with its optimizer's tensors takes a quarter of these.
STEPS = 1 << 19


class Hostile(ValueError):  # noqa: N818 - reads as what it is
    """The data is no such file, or a broken or dangerous one; the message says why."""


class Named(NamedTuple):
    """A function or class that a pickle names."""

    module: str
    name: str


Globals = Mapping[tuple[str, str], Callable[..., Any]]
# Steps that push the value they carry.
VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINUNICODE8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NO_EFFECT = {"PROTO", "FRAME"}


def read_pickle(stream: BinaryIO, known: Globals, outside: Callable[[Any], Any]) -> Any:
    """The value of the pickle at STREAM's place, which moves behind it.

    KNOWN gives a function for each name that may be called; OUTSIDE turns a persistent id into a
    value.

    Raises:
        Hostile: the pickle is broken or too long, or asks for a name or a step that is not allowed.
    """
    machine, start = _Machine(known, outside), stream.tell()
    try:
        for step, argument, _ in pickletools.genops(stream):
            if stream.tell() - start > LONGEST:
                raise Hostile("its pickle is absurdly long")
            if step.name == "STOP":
                return machine.stack[-1]
            machine.do(step.name, argument)
    except Hostile:
        raise
    except (ValueError, EOFError, LookupError, TypeError, struct.error, OverflowError) as error:
        raise Hostile(f"its pickle is broken ({first_line(error)})") from error
    raise Hostile("its pickle is cut off")


class _Machine:
    """The unpickler's stack, its marks and its memo."""

    def __init__(self, known: Globals, outside: Callable[[Any], Any]) -> None:
        self.known, self.outside = known, outside
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.work = 0

    def do(self, step: str, argument: Any) -> None:
        """Carry out STEP, a name of pickletools, with what it carries."""
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
                raise Hostile(f"its pickle has the step {step}")
            action(argument)

    def _count(self, work: int) -> None:
        self.work += work
        if self.work > STEPS:
            raise Hostile("its pickle is absurdly long")

    def _top(self, count: int) -> list[Any]:
        """The last COUNT values, taken away."""
        start = len(self.stack) - count
        if start < 0:
            raise Hostile("its pickle is broken (too few values)")
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
            raise Hostile("its pickle appends to what is no list")
        self.stack[-1].extend(values)

    def _setitem(self, _: None) -> None:
        self._update(self._top(2))

    def _setitems(self, _: None) -> None:
        self._update(self._since_mark())

    def _update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if target is None:
            # An object that is not wanted.
            return
        # Hashing a deep tuple would overflow the stack.
        if not isinstance(target, dict) or not all(isinstance(k, str | int) for k in values[::2]):
            raise Hostile("its pickle fills what is no dictionary of names")
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
            raise Hostile("its pickle names a function in an unknown way")
        if (module, name) not in self.known:
            raise Hostile(f"it asks for {module}.{name}, which is no part of a tensor")
        self.stack.append(Named(module, name))

    def _reduce(self, _: None) -> None:
        function, arguments = self._top(2)
        if not isinstance(function, Named) or not isinstance(arguments, tuple):
            raise Hostile("its pickle calls what is no function")
        # The same long list may be given to a call a thousand times.
        self._count(sum(len(one) for one in arguments if isinstance(one, list | tuple)))
        self.stack.append(self.known[function](*arguments))

    _newobj = _reduce

    def _build(self, _: None) -> None:
        """An object's state: only those that are not wanted have one."""
        self._top(1)

    def _binpersid(self, _: None) -> None:
        (pid,) = self._top(1)
        self.stack.append(self.outside(pid))


# What is read at once. The list of parts is: it takes 200 KB for the largest network here.
BLOCK = 2 << 20


class Frugal(io.FileIO):
    """A file that gives little at once: `zipfile` would read a list of parts of any length."""

    def read(self, size: int | None = -1, /) -> bytes:
        """SIZE bytes, or those that are left.

        Raises:
            Hostile: they are more than BLOCK.
        """
        asked = BLOCK + 1 if size is None or size < 0 else min(size, BLOCK + 1)
        data = super().read(asked) or b""
        if len(data) > BLOCK:
            raise Hostile("its list of parts is absurdly long")
        return data


def read_part(archive: zipfile.ZipFile, name: str, longest: int) -> bytes:
    """The part NAME of ARCHIVE, which is refused if it is longer than LONGEST bytes.

    Raises:
        Hostile: it is.
    """
    if archive.getinfo(name).file_size > longest:
        raise Hostile(f"its part {name} is too long")
    with archive.open(name) as part:
        return b"".join(iter(lambda: part.read(BLOCK), b""))


def refuse_bombs(entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Torch stores without compression: what unpacks to more than the file is no file of its.

    Raises:
        Hostile: it is no archive of torch.
    """
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise Hostile("it is a compressed archive")
    if sum(entry.file_size for entry in entries) > size:
        raise Hostile("its parts are larger than the file")
    names = Counter(entry.filename for entry in entries)
    if twice := [name for name, count in names.items() if count > 1]:
        raise Hostile(f"it has two parts {twice[0]!r}")


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
        why = shorten_for_display(str(error))
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


def _read_stream(file: BinaryIO, size: int) -> dict[str, np.ndarray]:  # noqa: C901
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
