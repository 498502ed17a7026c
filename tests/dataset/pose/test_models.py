"""The list of models, and the files beside weights."""

import json
import shutil
from pathlib import Path

import pytest

from dataset.errors import BadInput
from dataset.pose.models import (
    COCO,
    HERE,
    architecture_names,
    cache_key,
    description_path,
    find_model,
    model_entries,
    model_names,
)
from dataset.pose.network import ARCHITECTURES


def test_every_entry_is_whole() -> None:
    assert set(architecture_names()) == set(ARCHITECTURES)
    for name in model_names():
        model = find_model(name)
        assert model.architecture in ARCHITECTURES and 0 < model.gate < 1
        if model.published:
            assert model.joints == COCO and len(COCO.names) == 17
            assert model.published.digest.partition(":")[2] in model.published.name
            assert model_entries()[name]["licence"] and 0.7 < model_entries()[name]["ap"] < 0.8
        else:
            assert model.weights and model.weights.is_file()
            assert model.weights.stat().st_size <= 10_000_000


def test_keys_tell_weights_apart(tmp_path: Path) -> None:
    ours = find_model("hrnet-small")
    assert ours.weights
    for file in (ours.weights, description_path(ours.weights)):
        shutil.copy(file, tmp_path)
    same = find_model("hrnet-small", tmp_path / ours.weights.name)
    assert cache_key(same) == cache_key(ours)
    with (tmp_path / ours.weights.name).open("ab") as grown:
        grown.write(b"more")
    assert cache_key(same) != cache_key(ours)


def test_weights_without_their_description(tmp_path: Path) -> None:
    path = tmp_path / "my.weights.h5"
    path.write_bytes(b"x")
    with pytest.raises(BadInput, match=r"my\.json is missing.*--pose hrnet-w32"):
        find_model("hrnet-small", path)
    assert find_model("hrnet-w32", path).joints == COCO
    path = tmp_path / "their.pth"
    path.write_bytes(b"x")
    with pytest.raises(BadInput, match=r"their\.pth: name the published network") as error:
        find_model("hrnet-small", path)
    assert "json" not in str(error.value)


@pytest.mark.parametrize(
    "changed", [{"architecture": "resnet"}, {"size": 5}, {"gate": "x"}, {"bones": [[1]]}]
)
def test_a_broken_description(changed: dict[str, object], tmp_path: Path) -> None:
    said = json.loads((HERE / "weights" / "hrnet-small.json").read_text()) | changed
    (tmp_path / "my.json").write_text(json.dumps(said))
    (tmp_path / "my.weights.h5").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"my\.json does not describe"):
        find_model("hrnet-small", tmp_path / "my.weights.h5")
