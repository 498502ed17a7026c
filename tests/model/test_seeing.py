"""How photos reach the model: read side by side, shown once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dataset.poses import PoseOptions
from model.seeing import CHUNK, Eyes, Shown, Wanted
from tests.dataset.filling import photo_bytes

EYES = Eyes(PoseOptions(pose="none"), {}, 75)


def given(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def test_a_photo_that_comes_again_is_shown_once_for_each_zone() -> None:
    one, other = photo_bytes(1, (90, 120)), photo_bytes(2, (90, 120))
    wanted = [
        *(Wanted(given(one)), Wanted(given(other)), Wanted(given(one))),
        *(Wanted(given(one), "upper"), Wanted(given(b"no photo")), Wanted(given(b"no photo"))),
        *[Wanted(given(other))] * CHUNK,
    ]
    seen = [each for some in EYES.see(wanted, Shown()) for each in some]
    first = [True, True, False, True, True, False, *[False] * CHUNK]
    assert [not each.again for each in seen] == first
    assert [each.pixels is not None for each in seen[:5]] == [True, True, False, True, False]
    assert seen[4].problem.startswith("broken") and seen[0].sha256 == seen[2].sha256
    assert all(each.pixels is None for each in seen[5:])


def test_without_a_memory_each_is_shown() -> None:
    wanted = [Wanted(given(photo_bytes(1, (90, 120))))] * 2
    ((first, second),) = EYES.see(wanted)
    assert first.pixels is not None and second.pixels is not None
    assert np.array_equal(first.pixels, second.pixels)


def test_what_can_not_be_read_says_why(tmp_path: Path) -> None:
    ((seen,),) = EYES.see([Wanted((tmp_path / "gone.jpg").read_bytes)], Shown())
    assert (seen.problem, seen.pixels, seen.again) == ("no such file", None, False)
