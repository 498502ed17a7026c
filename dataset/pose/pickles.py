"""Pickles read as data: plain values, and calls of the few functions that an allow-list maps.

The standard library's unpickler calls what a pickle names and sets what it says on the results;
this reader does neither: steps outside a short list end it, and objects' states are dropped.
The steps: pickletools.py of the standard library.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

from dataset.errors import first_line

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
