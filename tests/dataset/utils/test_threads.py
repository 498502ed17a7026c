"""Items that a thread produces ahead of their consumer."""

import threading
from collections.abc import Iterator

import pytest

from dataset.utils.threads import prefetch


def test_items_are_produced_ahead_in_their_order() -> None:
    produced, second = [], threading.Event()

    def items() -> Iterator[int | None]:
        for number in range(4):
            produced.append(number)
            if number == 1:
                second.set()
            yield number or None

    prefetched = prefetch(items())
    assert next(prefetched) is None
    # The second item is produced while the first one is used, and no further one.
    assert second.wait(5) and produced == [0, 1]
    assert list(prefetched) == [1, 2, 3]


def test_an_error_of_the_items_is_raised_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    prefetched = prefetch(items(), depth=3)
    assert next(prefetched) == 1
    with pytest.raises(OSError, match="disk"):
        next(prefetched)
