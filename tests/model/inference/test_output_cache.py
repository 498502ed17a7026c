"""The cache of network outputs: what is stored and what is returned."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dataset.pose.crop import Crop
from dataset.selection.crops import PoseOptions
from model.inference.output_cache import OutputCache, PhotoOutputs, view_name


@pytest.fixture
def cache(tmp_path: Path) -> OutputCache:
    return OutputCache("key", 3, tmp_path)


def photo(seed: int) -> PhotoOutputs:
    rng = np.random.default_rng(seed)
    return PhotoOutputs(*(rng.normal(size=n).astype(np.float32) for n in (8, 3)))


def test_put_returns_what_get_returns(cache: OutputCache) -> None:
    stored = cache.put({"a": photo(1), "b": photo(2)})
    loaded = cache.get(["a", "b", "missing"])
    assert stored.keys() == loaded.keys() == {"a", "b"}
    for view, outputs in stored.items():
        for own, other in zip(outputs, loaded[view], strict=True):
            assert own.dtype == other.dtype == np.float32
            assert (own == other).all()
    # A stored value is stored again as it is.
    assert (cache.put({"a": stored["a"]})["a"].features == stored["a"].features).all()


def test_logits_are_exact_and_features_nearly(cache: OutputCache) -> None:
    features, logits = photo(1)
    stored = cache.put({"a": PhotoOutputs(features, logits)})["a"]
    assert (stored.logits == logits).all()
    assert stored.features == pytest.approx(features, abs=2e-3)


def test_features_beyond_float16_are_clipped(cache: OutputCache) -> None:
    huge = PhotoOutputs(np.full(8, 1e6, np.float32), np.full(3, -1e6, np.float32))
    cache.put({"a": huge})
    stored = cache.get(["a"])["a"]
    assert np.isfinite(stored.features).all()
    assert (stored.logits == huge.logits).all()


def test_names_differ_by_photo_and_crop() -> None:
    crops = [None, Crop("person", (0, 0, 10, 10), 1.0), Crop("person", (0, 0, 10, 11), 1.0)]
    names = {view_name(sha256, crop) for sha256 in ("a", "b") for crop in crops}
    assert len(names) == 6


def test_other_pose_weights_at_the_same_path_have_a_cache_of_their_own(tmp_path: Path) -> None:
    weights = tmp_path / "pose.pth"
    keys = set()
    for content in (b"first", b"second"):
        weights.write_bytes(content)
        run = SimpleNamespace(crop=PoseOptions("hrnet-w32", weights), build_options={})
        predictor = SimpleNamespace(cache_key="network", labels=("polo",))
        keys.add(OutputCache.of_run(run, predictor, tmp_path).key)  # type: ignore[arg-type]
    assert len(keys) == 2
