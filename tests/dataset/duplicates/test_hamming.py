"""Near hashes among many, compared with a scan of all."""

import numpy as np

from dataset.duplicates.hamming import (
    MAX_BANDED_BITS,
    MAX_EQUAL_PAIRS,
    HashIndex,
    pairs_by_bands,
    pairs_within,
    scan,
)
from dataset.utils.threads import map_in_threads


def hashes_with_copies(count: int, copies: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    hashes = draw.integers(0, 1 << 64, count, dtype=np.uint64)
    for place in range(copies):
        flips = np.bitwise_or.reduce(
            np.uint64(1) << draw.integers(0, 64, draw.integers(1, 13), dtype=np.uint64)
        )
        hashes[place] = hashes[place + copies] ^ flips
    return hashes


def pairs(hashes: np.ndarray, within: int) -> list[tuple[int, int, int]]:
    found = pairs_within(hashes, within)
    return [
        (int(one), int(other), int(bits))
        for part in found
        for one, other, bits in zip(part.first, part.second, part.distance, strict=True)
    ]


def test_all_pairs_are_found_once_and_no_others() -> None:
    hashes = hashes_with_copies(1500, 300)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None])
    for within in (0, 4, 10):
        wanted = {
            (int(i), int(j), int(apart[i, j]))
            for i, j in zip(*np.nonzero(np.triu(apart <= within, 1)), strict=True)
        }
        found = pairs(hashes, within)
        assert len(found) == len(set(found))
        assert set(found) == wanted


def test_pairs_by_bands_are_those_within_5_bits_and_most_others() -> None:
    hashes = np.concatenate([hashes_with_copies(20_000, 2000), hashes_with_copies(20_000, 2000)])
    found = {
        (int(first), int(second)): int(bits)
        for part in pairs_by_bands(hashes)
        for first, second, bits in zip(part.first, part.second, part.distance, strict=True)
    }
    exact = {(first, second): bits for first, second, bits in pairs(hashes, MAX_BANDED_BITS)}
    assert found.items() <= exact.items()
    assert {pair for pair, bits in exact.items() if bits <= 5} <= found.keys()
    for bits, recall in ((6, 0.85), (7, 0.65)):
        near = {pair for pair, its_bits in exact.items() if its_bits == bits}
        assert len(near & found.keys()) > recall * len(near)
    assert list(pairs_by_bands(np.zeros(0, np.uint64))) == []
    many = list(pairs_by_bands(np.full(1000, 7, np.uint64)))
    assert sum(len(part.first) for part in many) <= MAX_EQUAL_PAIRS * 1000


def test_only_neighbours_of_many_equal_hashes_are_paired() -> None:
    hashes = np.full(1000, 7, np.uint64)
    found = pairs(hashes, 10)
    assert len(found) <= MAX_EQUAL_PAIRS * len(hashes)
    assert {place for pair in found for place in pair[:2]} == set(range(1000))


def test_no_hash_and_one_hash_have_no_pairs() -> None:
    assert pairs(np.zeros(0, np.uint64), 10) == []
    assert pairs(np.zeros(1, np.uint64), 10) == []


def test_a_scan_finds_near_hashes_and_their_distances() -> None:
    hashes = np.array([0, 0xFF, 1 << 63], np.uint64)
    places, bits = scan(hashes, np.uint64(0x0F), 4)
    assert (places.tolist(), bits.tolist()) == ([0, 1], [4, 4])


def test_the_index_grows() -> None:
    index = HashIndex(np.array([5], np.uint64))
    for value in range(3000):
        index.add(value << 20)
    assert len(index) == len(index.hashes) == 3001
    assert index.hashes[3000] == 2999 << 20


def test_the_index_finds_what_a_scan_finds() -> None:
    hashes = hashes_with_copies(60_000, 500)
    index = HashIndex(hashes[:50_000])
    # Queries at most 10 bits away, which differ in one word, in two, and in all four.
    draw = np.random.default_rng(1)
    queries = [
        *hashes[:300],
        *hashes[400:420] ^ np.uint64(0x3FF),
        *hashes[:20] ^ np.uint64(0x3E001F),
    ]
    for value in hashes[1000:1300]:
        flips = draw.choice(64, draw.integers(0, 11), replace=False).astype(np.uint64)
        queries.append(np.bitwise_xor.reduce(np.uint64(1) << flips, initial=value))
    found = 0
    for turn, value in enumerate(queries):
        if turn == len(queries) // 2:
            for late in hashes[50_000:].tolist():
                index.add(late)
        _, places, bits = index.query(np.array([value], np.uint64))
        wanted, its_bits = scan(index.hashes, value, 10)
        assert (places.tolist(), bits.tolist()) == (wanted.tolist(), its_bits.tolist())
        found += len(places)
    assert found > len(queries)
    which, places, bits = index.query(np.array(queries, np.uint64))
    for number, value in enumerate(queries):
        wanted, its_bits = scan(index.hashes, value, 10)
        assert places[which == number].tolist() == wanted.tolist()
        assert bits[which == number].tolist() == its_bits.tolist()


def test_equal_hashes_are_scanned() -> None:
    index = HashIndex(np.full(40_000, 7, np.uint64))
    assert len(index.query(np.array([6], np.uint64))[1]) == 40_000
    which, _, bits = index.query(np.array([6, 1 << 40, 7], np.uint64))
    assert [np.bincount(which).tolist(), bits[which == 2].max()] == [[40_000] * 3, 0]


def test_map_in_threads_keeps_the_order_and_starts_few_jobs_ahead() -> None:
    begun = []

    def work(job: int) -> int:
        begun.append(job)
        return job * 2

    results = map_in_threads(work, range(1000))
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    assert len(begun) < 100
    assert list(results) == [job * 2 for job in range(3, 1000)]
