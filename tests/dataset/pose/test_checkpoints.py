"""Weights of a pose network: a .pth file is converted once."""

from pathlib import Path

import numpy as np
import pytest

from dataset.pose import checkpoints, estimator
from dataset.pose.checkpoints import load_estimator, named_variables, torch_shape
from dataset.pose.models import COCO, PoseModel
from dataset.pose.network import ARCHITECTURES, build_hrnet
from tests.support.small_pose_network import THIN
from tests.support.torch_files import tensors_of, write_zip


def weights_of(model: PoseModel) -> list[np.ndarray]:
    return load_estimator(model).network.get_weights()


@pytest.mark.slow
def test_a_pth_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "hrnet-w32", THIN)
    monkeypatch.setattr(estimator, "has_bfloat16", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    shapes = {
        name: torch_shape(value)
        for name, value in named_variables(build_hrnet(THIN, (64, 64), len(COCO.names)))
    }
    tensors = {name: rng.uniform(0.5, 1, s).astype(np.float32) for name, s in shapes.items()}
    path = write_zip(tmp_path / "own.pth", *tensors_of(tensors))
    model = PoseModel("hrnet-w32", "hrnet-w32", COCO, (64, 64), weights=path)
    first = weights_of(model)
    monkeypatch.setattr(checkpoints, "read_tensors", lambda _: pytest.fail("read again"))
    again = weights_of(model)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    kernel = tensors["final_layer.weight"].transpose(2, 3, 1, 0)
    assert any(np.array_equal(one, kernel) for one in first)
