"""Read .pth files: real ones exactly, malicious ones not at all."""

import contextlib
import os
import pickle
import resource
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.errors import Failure
from dataset.pose.torch_checkpoint import read_tensors
from tests.support.torch_files import Storage, Tensor, pickled, tensors_of, write_stream, write_zip

ARRAYS = {
    "conv1.weight": np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
    "bn1.bias": np.array([0.5, -1], np.float32),
    "empty": np.empty((0, 4), np.float32),
}


def assert_arrays(found: dict[str, np.ndarray]) -> None:
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_both_formats_give_the_numbers_back(write: Any, tmp_path: Path) -> None:
    tensors, numbers = tensors_of(ARRAYS)
    assert_arrays(read_tensors(write(tmp_path / "a.pth", tensors, numbers)))


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_what_stands_beside_a_state_dict_is_not_read(write: Any, tmp_path: Path) -> None:
    tensors, numbers = tensors_of(ARRAYS)
    meta = {"sigmas": np.array([0.1]), "epoch": 210, "colours": {1, 2}, "score": np.float64(0.7)}
    content = {"meta": meta, "state_dict": tensors}
    assert_arrays(read_tensors(write(tmp_path / "a.pth", content, numbers)))


def test_a_view_with_strides_and_an_offset(tmp_path: Path) -> None:
    numbers = np.arange(20, dtype=np.float32)
    view = Tensor(Storage("0", 20), (3, 2), (1, 5), 4)
    path = write_zip(tmp_path / "a.pth", {"t": view}, {"0": numbers.tobytes()})
    np.testing.assert_array_equal(read_tensors(path)["t"], [[4, 9], [5, 10], [6, 11]])


class Command:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


FLAT = Storage("0", 6)
NUMBERS = {"0": np.arange(6, dtype=np.float32).tobytes()}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"t": Command()}, "system"),
        ({"state_dict": {"t": Tensor(FLAT, (6,), (1,))}, "x": Command()}, "system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "eval"),
        (b"\x80\x02cos\nsystem\n.", "os.system"),
        ({"t": Tensor(FLAT, (7,), (1,))}, "beyond its storage"),
        ({"t": Tensor(FLAT, (2,), (1,), 5)}, "beyond its storage"),
        ({"t": Tensor(FLAT, (2,), (1 << 40,))}, "beyond its storage"),
        ({"t": Tensor(FLAT, (1 << 40,), (0,))}, "absurdly large"),
        ({"t": Tensor(FLAT, (3,), (-1,), 3)}, "absurd shape"),
        ({"t": Tensor(FLAT, (-3,), (1,))}, "absurd shape"),
        ({"t": Tensor(FLAT, (2.5,), (1,))}, "absurd shape"),
        ({"t": Tensor(FLAT, ("a",), (1,))}, "absurd shape"),
        ({"t": Tensor(FLAT, (6,), (1, 1))}, "no strides"),
        ({"t": Tensor(Storage("0", 1 << 50), (6,), (1,))}, "absurdly long"),
        ({"t": Tensor(Storage("0", -6), (0,), (1,))}, "absurdly long"),
        ({"t": Tensor(Storage("9", 6), (6,), (1,))}, "missing"),
        ({"t": Tensor(Storage("../0", 6), (6,), (1,))}, "missing"),
        ({"t": Tensor(Storage("0", 5), (5,), (1,))}, "too long"),
        ({"t": 5}, "something else"),
        ({}, "no tensors"),
        ([1, 2], "no tensors"),
        (b"", "cut off|broken"),
        (pickled({"t": Tensor(FLAT, (6,), (1,))})[:-20], "broken|cut off"),
        # The standard unpickler makes room for memo 4,294,967,295 at once.
        (b"\x80\x02Nr\xff\xff\xff\xff.", "no tensors"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", "broken|no tensors"),
        (b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".", "no tensors"),
        (b"\x80\x02}(" + b"(" * 100_000 + b"t" * 100_000 + b"Nu.", "dictionary"),
        (b"\x80\x02" + b"]" + b"q\x00h\x00a" * 3 + b".", "no tensors"),
        (b"\x80\x02}" + b"N" * (7 << 20) + b".", "absurdly long"),
        (b"\x80\x02}" + b"N" * (9 << 20) + b".", "too long"),
        ({"t": Tensor(FLAT, (1 << 29,), (0,))}, "absurdly large"),
        ({n: Tensor(FLAT, (6, 50), (1, 0)) for n in "abcdef"}, "absurdly large"),
        ({"t": Tensor(FLAT, (1,), (1 << 61,))}, "absurd shape"),
        ({"t": Tensor(FLAT, (0, 1 << 61), (1, 1))}, "absurd shape"),
        (b"\x80\x02K\x01K\x02R.", "not a function"),
        (b"\x80\x02a.", "broken"),
    ],
)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_hostile_pickles(content: Any, why: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", content, NUMBERS)
    with pytest.raises(Failure, match=why) as error:
        read_tensors(path)
    assert str(path) in str(error.value)
    assert not Path("owned").exists()


def test_a_list_that_is_used_a_thousand_times(tmp_path: Path) -> None:
    """Each call of OrderedDict would create another dictionary of 20,000 names."""
    names = b"".join(b"X" + struct.pack("<I", 5) + b"%05d" % n + b"N\x86" for n in range(20_000))
    listed = b"](" + names + b"e\x85q\x01"
    function = b"ccollections\nOrderedDict\nq\x02"
    data = b"\x80\x02" + function + listed + b"h\x02h\x01R" * 20_000 + b"."
    with pytest.raises(Failure, match="absurdly long"):
        read_tensors(write_zip(tmp_path / "a.pth", data, NUMBERS))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02c" + b"a" * 1_000_000 + b"\nb\n.",
        {"t": Tensor(Storage("\x1b[31m\nrefused: no\n" * 1000, 6), (6,), (1,))},
        {"\x1b[31m\n" * 1000: 5},
    ],
)
def test_messages_are_one_short_line(content: Any, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", content, NUMBERS)
    with pytest.raises(Failure) as error:
        read_tensors(path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < len(str(path)) + 300


def test_huge_files_are_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for start in (b"", pickle.dumps(0x1950A86A20F9469CFC6C, 2), b"\x80\x02c"):
        with path.open("wb") as file:
            file.write(start)
            file.truncate(3 << 30)
        with pytest.raises(Failure, match="broken"):
            read_tensors(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 300_000


def test_a_name_in_an_archive_that_is_no_text(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", {"t": Tensor(FLAT, (6,), (1,))}, NUMBERS | {"é": b""})
    path.write_bytes(path.read_bytes().replace("data/é".encode(), b"data/\xff\xff"))
    with pytest.raises(Failure, match="rejected"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["archive/data.pkl", "other/data.pkl", "archive/data/0"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_there_twice(name: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", {"t": Tensor(FLAT, (6,), (1,))}, NUMBERS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    with pytest.raises(Failure, match=r"it has (two parts|2 data\.pkl)"):
        read_tensors(path)


def test_an_archive_of_a_hundred_thousand_parts(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", {}, {f"{n:0500d}": b"" for n in range(4000)})
    with pytest.raises(Failure, match="central directory"):
        read_tensors(path)


def test_an_optimizer_beside_the_weights_of_the_older_format(tmp_path: Path) -> None:
    tensors, numbers = tensors_of(ARRAYS)
    steps = Tensor(Storage("steps", 4), (4,), (1,))
    content = {"state_dict": tensors, "optimizer": {"state": {0: steps}}}
    for order in ({"steps": bytes(16), **numbers}, {**numbers, "steps": bytes(16)}):
        path = write_stream(tmp_path / "a.pth", content, order)
        assert_arrays(read_tensors(path))
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(Failure, match="cut off"):
            read_tensors(path)


def test_states_are_never_set(tmp_path: Path) -> None:
    """A pickle that changes a tensor's shape after it was checked."""
    data = pickled({"t": Tensor(FLAT, (6,), (1,))})
    state = pickle.dumps({"shape": (1000,)}, 2)[2:-1]
    # BUILD on the tensor: after its REDUCE, before SETITEM.
    place = data.rindex(b"R") + 1
    path = write_zip(tmp_path / "a.pth", data[:place] + state + b"b" + data[place:], NUMBERS)
    with contextlib.suppress(Failure):
        assert read_tensors(path)["t"].shape == (6,)


def test_compressed_and_overlapping_archives(tmp_path: Path) -> None:
    tensors, numbers = tensors_of({"t": np.zeros(1 << 16, np.float32)})
    path = write_zip(tmp_path / "a.pth", tensors, numbers, zipfile.ZIP_DEFLATED)
    with pytest.raises(Failure, match="compressed"):
        read_tensors(path)


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_cut_off_anywhere(write: Any, tmp_path: Path) -> None:
    tensors, numbers = tensors_of(ARRAYS)
    data = write(tmp_path / "a.pth", tensors, numbers).read_bytes()
    for end in [*range(0, len(data) - 1, 37), len(data) - 1]:
        (tmp_path / "b.pth").write_bytes(data[:end])
        with pytest.raises(Failure, match=r"b\.pth is rejected"):
            read_tensors(tmp_path / "b.pth")


def test_changed_bytes_never_show_a_traceback(tmp_path: Path) -> None:
    tensors, numbers = tensors_of(ARRAYS)
    for write in (write_zip, write_stream):
        data = bytearray(write(tmp_path / "a.pth", tensors, numbers).read_bytes())
        rng = np.random.default_rng(0)
        for _ in range(300):
            changed = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                changed[place] = rng.integers(256)
            (tmp_path / "b.pth").write_bytes(changed)
            try:
                read_tensors(tmp_path / "b.pth")
            except Failure:
                continue


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="can't be read"):
        read_tensors(tmp_path / "none.pth")


def test_ordered_dictionaries_may_carry_their_metadata(tmp_path: Path) -> None:
    tensors, numbers = tensors_of(ARRAYS)
    tensors._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
    assert_arrays(read_tensors(write_zip(tmp_path / "a.pth", tensors, numbers)))
