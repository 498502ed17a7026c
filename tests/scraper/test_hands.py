"""Work that would hold up an event loop, done in threads."""

import asyncio
import gc
import threading

import pytest

from scraper.hands import Hands


def test_one_does_what_it_is_given_in_turn() -> None:
    done: list[int] = []

    async def main() -> list[int]:
        hands = Hands(1)

        def work(number: int) -> int:
            done.append(number)
            return -number

        return await asyncio.gather(*(hands.do(work, number) for number in range(100)))

    assert asyncio.run(main()) == [-number for number in range(100)]
    assert done == list(range(100))


def test_several_work_side_by_side_and_no_more_than_are_needed() -> None:
    together = threading.Barrier(3)

    async def main() -> None:
        before, hands = threading.active_count(), Hands(3)
        for _ in range(5):
            await hands.do(int)
        assert threading.active_count() <= before + 1
        # None of them passes before all three are there.
        await asyncio.gather(*(hands.do(together.wait, 10) for _ in range(3)))
        assert threading.active_count() <= before + 3

    asyncio.run(main())


def test_what_fails_is_raised_where_it_was_given_and_ends_no_thread() -> None:
    async def main() -> None:
        hands = Hands(1)
        with pytest.raises(ValueError, match="invalid literal"):
            await hands.do(int, "x")
        assert await hands.do(int, "7") == 7

    asyncio.run(main())


def test_who_no_longer_waits_keeps_nobody_from_being_told() -> None:
    held = threading.Event()

    async def main() -> int:
        hands = Hands(1)
        hands.do(held.wait, 10).cancel()
        second = hands.do(int, "7")
        held.set()
        return await second

    assert asyncio.run(main()) == 7


def test_threads_end_with_who_gave_them_work() -> None:
    before = set(threading.enumerate())

    async def main() -> list[threading.Thread]:
        hands = Hands(2)
        await asyncio.gather(hands.do(int), hands.do(int))
        return [thread for thread in threading.enumerate() if thread not in before]

    begun = asyncio.run(main())
    assert begun
    gc.collect()
    for thread in begun:
        thread.join(10)
        assert not thread.is_alive()
