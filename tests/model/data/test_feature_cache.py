"""The cache of features on disk."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dataset.errors import Failure
from model.data.feature_cache import EXACT_DTYPE, FeatureCache


def test_cached_outputs_are_returned_and_others_are_missing(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "new", "backbone")
    values = {f"view {n}": np.full(5, n / 8) for n in range(1200)}
    cache.put(values)
    found = FeatureCache(tmp_path / "new", "backbone").get([*values, "another"])
    assert found.keys() == values.keys()
    assert (found["view 9"] == np.float16(9 / 8)).all()


def test_keys_are_separate_and_later_values_replace_earlier_ones(tmp_path: Path) -> None:
    one, other = (FeatureCache(tmp_path, key, EXACT_DTYPE) for key in ("one", "other"))
    one.put({"photo": np.array([1.1])})
    one.put({"photo": np.array([2.2])})
    assert one.get(["photo"])["photo"].tolist() == [np.float32(2.2)]
    assert other.get(["photo"]) == {}


def test_a_broken_cache_is_reported_with_a_remedy(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "backbone")
    cache.path.write_bytes(b"no database at all" * 100)
    with pytest.raises(Failure, match=r"backbone\.sqlite can.t be used: .*--cache"):
        cache.get(["photo"])


def test_outputs_of_photos_that_were_read_in_another_way_are_removed(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "backbone")
    cache.put({"photo": np.array([1.0])})
    with closing(sqlite3.connect(cache.path)) as base:
        base.execute("PRAGMA user_version = 0")
    assert cache.get(["photo"]) == {}
