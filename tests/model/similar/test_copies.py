"""Groups of copies among items without a catalogue."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dataset.images.io import sha256_of
from model.data.feature_cache import FeatureCache
from model.similar.copies import group_copies, signature_cache
from model.similar.index_file import IndexItem
from tests.dataset.duplicates.test_verification import photo
from tests.support.catalogue_data import jpeg_of


def bordered(shown: Image.Image) -> Image.Image:
    return ImageOps.expand(shown.resize((210, 270)), 20, "white")


FILES = {
    "a": jpeg_of(photo(1)),
    "a small": jpeg_of(photo(1).resize((210, 270)), 70),
    "a bordered": jpeg_of(bordered(photo(1)), 80),
    "a mirrored": jpeg_of(ImageOps.mirror(photo(1)), 80),
    "b": jpeg_of(photo(2)),
    "b bordered": jpeg_of(bordered(photo(2)), 80),
    "c": jpeg_of(photo(3)),
    "d": jpeg_of(photo(4)),
}
A, B = [name for name in FILES if name[0] == "a"], [name for name in FILES if name[0] == "b"]


def item(name: str, cluster: str = "", data: bytes | None = None) -> IndexItem:
    return IndexItem(name, sha256_of(data or FILES[name]), name, cluster=cluster)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return signature_cache(FeatureCache(tmp_path, "outputs"))


def group(
    cache: FeatureCache,
    items: Sequence[IndexItem],
    new: Sequence[str] = tuple(FILES),
    files: Mapping[str, bytes] = FILES,
    unread: int | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Return the cluster of each item by its id, and the ids of the files that were read."""
    opened: list[str] = []

    def read(number: int) -> bytes:
        opened.append(items[number].id)
        if items[number].id not in files:
            raise FileNotFoundError
        return files[items[number].id]

    groups = group_copies(items, [one.id in new for one in items], read, cache)
    assert unread is None or groups.unread == unread
    return dict(zip((one.id for one in items), groups.clusters, strict=True)), opened


def members(clusters: Mapping[str, str]) -> set[frozenset[str]]:
    return {
        frozenset(name for name in clusters if clusters[name] == cluster)
        for cluster in set(clusters.values()) - {""}
    }


def test_copies_are_grouped_whatever_their_order(tmp_path: Path, cache: FeatureCache) -> None:
    clusters, _ = group(cache, [item(name) for name in FILES])
    assert members(clusters) == {frozenset(A), frozenset(B)}
    for seed in range(3):
        names = np.random.default_rng(seed).permutation(list(FILES)).tolist()
        other = signature_cache(FeatureCache(tmp_path / str(seed), "outputs"))
        assert group(other, [item(name) for name in names])[0] == clusters


def test_a_new_item_joins_the_group_of_a_known_one(cache: FeatureCache) -> None:
    names = [name for name in FILES if name not in ("a bordered", "b bordered")]
    before, _ = group(cache, [item(name) for name in names])
    (cluster,) = set(before.values()) - {""}
    items = [item(name, before.get(name, "")) for name in FILES]
    after, opened = group(cache, items, ("a bordered", "b bordered"))
    assert members(after) == {frozenset(A), frozenset(B)}
    assert {after[name] for name in A} == {cluster}
    # Known photos are read only to compare their pixels.
    assert not {"c", "d"} & set(opened)


def test_a_new_item_merges_known_groups_and_known_ones_are_kept(cache: FeatureCache) -> None:
    # The photos of the third group are gone and were never copies.
    items = [
        item("a", "copies-7"),
        item("a small", "copies-10"),
        item("gone", "copies-3", b"gone"),
        item("gone too", "copies-3", b"gone too"),
        item("a bordered"),
    ]
    clusters, _ = group(cache, items, ["a bordered"])
    assert {clusters[name] for name in ("a", "a small", "a bordered")} == {"copies-7"}
    assert clusters["gone"] == clusters["gone too"] == "copies-3"


def test_equal_files_have_the_group_of_their_copies(cache: FeatureCache) -> None:
    files = {"a": FILES["a"], "twin": FILES["a"], "a small": FILES["a small"], "c": FILES["c"]}
    items = [item(name, data=data) for name, data in files.items()]
    clusters, _ = group(cache, items, list(files), files)
    assert members(clusters) == {frozenset({"a", "twin", "a small"})}


def test_items_of_a_catalogue_keep_its_clusters(cache: FeatureCache) -> None:
    items = [item("a", "5"), item("a small", "6"), item("b"), item("b bordered")]
    clusters, opened = group(cache, items)
    assert clusters["a"] == "5" and clusters["a small"] == "6"
    assert clusters["b"] == clusters["b bordered"] != ""
    assert not {"a", "a small"} & set(opened)


def test_missing_changed_and_broken_photos_are_not_compared(cache: FeatureCache) -> None:
    items = [
        item("a"),
        item("a small"),
        item("a bordered"),
        item("b"),
        item("broken", data=b"no photo"),
    ]
    files = {
        "a": FILES["a"],
        "a bordered": FILES["a bordered"],
        "b": FILES["c"],
        "broken": b"no photo",
    }
    clusters, _ = group(cache, items, [one.id for one in items], files, unread=3)
    assert members(clusters) == {frozenset({"a", "a bordered"})}


def test_groups_of_few_or_equal_photos_read_nothing(cache: FeatureCache) -> None:
    assert group(cache, []) == ({}, [])
    assert group(cache, [item("a")]) == ({"a": ""}, [])
    items = [item("a", "copies-1"), item("a small", "copies-1")]
    assert group(cache, items, []) == ({"a": "copies-1", "a small": "copies-1"}, [])
