"""HRNet compared with the official networks: names, shapes and the output of one."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from dataset.errors import Failure
from dataset.pose.checkpoints import (
    assign_tensors,
    fold_batch_norms,
    load_weights,
    named_variables,
    save_weights,
    torch_shape,
)
from dataset.pose.network import ARCHITECTURES, build_hrnet, is_box_layer
from tests.support.small_pose_network import THIN
from tests.support.torch_files import tensors_of, write_zip

FACTS = Path(__file__).parents[4] / "shared" / "pose"
needs_facts = pytest.mark.skipif(not FACTS.exists(), reason="../shared/pose is not here")
PARAMETERS = {"hrnet-w32": 28_536_113, "hrnet-w48": 63_595_745}


def by_formula(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Return the weights of the reference output; see ../shared/pose/README.md."""
    tensors = {}
    names = sorted(name for name in shapes if not name.endswith("num_batches_tracked"))
    for k, name in enumerate(names):
        shape = shapes[name]
        s = np.sin(0.7 * np.arange(np.prod(shape)) + 1.3 * k)
        if len(shape) == 4:
            value = s * np.sqrt(0.4 / np.prod(shape[1:]))
        elif name.endswith(("bias", "running_mean")):
            value = 0.1 * s
        elif name.endswith("running_var"):
            value = 1 + 0.5 * s**2
        else:
            value = 0.5 + 0.1 * s
        tensors[name] = value.astype(np.float32).reshape(shape)
    return tensors


def shapes_of(name: str) -> dict[str, list[int]]:
    return json.loads((FACTS / f"{name.replace('-', '_')}_state_dict.json").read_text())


@pytest.fixture(scope="module")
def official() -> Callable[[str], keras.Model]:
    """Return a published network, which is built on first use."""
    return cache(lambda name: build_hrnet(ARCHITECTURES[name], (256, 192), 17))


@needs_facts
@pytest.mark.slow
@pytest.mark.parametrize("name", ["hrnet-w32", "hrnet-w48"])
def test_every_name_and_shape_of_the_official_networks(
    official: Callable[[str], keras.Model], name: str
) -> None:
    network = official(name)
    ours = {known: list(torch_shape(value)) for known, value in named_variables(network)}
    theirs = {n: s for n, s in shapes_of(name).items() if not n.endswith("num_batches_tracked")}
    assert ours == theirs
    learned = {n: s for n, s in ours.items() if "running" not in n}
    assert sum(int(np.prod(shape)) for shape in learned.values()) == PARAMETERS[name]


@needs_facts
@pytest.mark.slow
def test_the_golden_answer_through_a_file_of_mmpose(
    official: Callable[[str], keras.Model], tmp_path: Path
) -> None:
    tensors = by_formula(shapes_of("hrnet-w32"))
    renamed = {
        f"head.{n}" if n.startswith("final_layer") else f"backbone.{n}": v
        for n, v in tensors.items()
    }
    path = write_zip(tmp_path / "a.pth", *tensors_of(renamed))
    network = official("hrnet-w32")
    load_weights(network, path)
    folded = build_hrnet(ARCHITECTURES["hrnet-w32"], (256, 192), 17, folded=True)
    fold_batch_norms(network, folded)
    down, across = np.indices((256, 192))
    photo = np.sin(0.05 * down[..., None] + 0.03 * across[..., None] + np.arange(3))
    golden = np.load(FACTS / "golden_w32_256x192.npz")["heatmaps"].transpose(0, 2, 3, 1)
    for one in (network, folded):
        answer = np.asarray(one(photo[None].astype(np.float32)))
        assert np.linalg.norm(answer - golden) / np.linalg.norm(golden) < 1e-4


@pytest.fixture(scope="module")
def thin() -> keras.Model:
    """Return a small network for tests that fill its weights."""
    return build_hrnet(THIN, (64, 64), 14)


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (33, 32)])
def test_any_size_and_any_number_of_joints(size: tuple[int, int]) -> None:
    network = build_hrnet(THIN, size, 5)
    maps = network(np.zeros((2, *size, 3), np.float32))
    assert maps.shape == (2, -(-size[0] // 4), -(-size[1] // 4), 5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
def test_the_box_head_finds_what_it_is_made_to_find(size: tuple[int, int]) -> None:
    network = build_hrnet(THIN, size, 5, mask=True, box=True)
    for name in ("box_across", "box_down"):
        kernel, _ = network.get_layer(name).get_weights()
        network.get_layer(name).set_weights([np.zeros_like(kernel), np.zeros(2)])
    maps, logits, boxes = network(np.ones((2, *size, 3), np.float32))
    assert maps.shape[0] == logits.shape[0] == 2
    # All places are equally likely.
    np.testing.assert_allclose(boxes, np.full((2, 4), 0.5), atol=1e-5)
    names = [layer.name for layer in network.layers if is_box_layer(layer.name)]
    plain = build_hrnet(THIN, size, 5, mask=True)
    weights = {layer.name for layer in network.layers if layer.weights}
    assert weights - {layer.name for layer in plain.layers} == weights & set(names)
    folded = build_hrnet(THIN, size, 5, folded=True, mask=True, box=True)
    network.get_layer("box_down").set_weights([np.ones_like(kernel), np.zeros(2)])
    network.get_layer("box_across").set_weights([np.ones_like(kernel), np.zeros(2)])
    fold_batch_norms(network, folded)
    views = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    assert np.ptp(np.asarray(network(views)[2])) > 1e-3
    np.testing.assert_allclose(folded(views)[2], network(views)[2], atol=1e-4)


def test_weights_there_and_back_half_of_them_exact_enough(
    thin: keras.Model, tmp_path: Path
) -> None:
    weights = thin.get_weights()
    photo = np.random.default_rng(0).normal(size=(1, *thin.input.shape[1:])).astype(np.float32)
    answer = np.asarray(thin(photo))
    for half, tolerance in ((False, 0), (True, 5e-3)):
        path = tmp_path / f"{half}.weights.h5"
        thin.set_weights(weights)
        save_weights(thin, path, half)
        thin.set_weights([np.zeros_like(value) for value in weights])
        load_weights(thin, path)
        difference = np.asarray(thin(photo)) - answer
        assert np.linalg.norm(difference) <= tolerance * np.linalg.norm(answer)
    thin.set_weights(weights)
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "False.weights.h5",
        "True.weights.h5",
    ]


@pytest.mark.slow
def test_half_precision_takes_half_of_the_space(tmp_path: Path) -> None:
    network, sizes = build_hrnet(ARCHITECTURES["hrnet-small"], (64, 64), 14), []
    for half in (False, True):
        path = tmp_path / f"{half}.weights.h5"
        save_weights(network, path, half)
        sizes.append(path.stat().st_size)
    assert sizes[1] < min(8_000_000, 0.6 * sizes[0])


def test_what_does_not_fit_is_listed(thin: keras.Model, tmp_path: Path) -> None:
    tensors = {name: np.zeros(torch_shape(value)) for name, value in named_variables(thin)}
    tensors["stranger"] = tensors.pop("bn1.bias")
    tensors["conv1.weight"] = np.zeros((1, 2))
    with pytest.raises(Failure) as error:
        assign_tensors(thin, tensors, tmp_path / "x.pth")
    for part in ("x.pth", "bn1.bias is missing", "stranger is unexpected", "conv1.weight has"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("module.bn1.bias", np.zeros(8), "bn1.bias is there twice, as module.bn1.bias too"),
        ("bn1.bias", np.zeros(8, np.int64), "bn1.bias holds int64"),
        ("bn1.bias", np.full(8, 1e300), "bn1.bias holds numbers that are not finite"),
        ("stranger\n" * 1000, np.zeros(1), "stranger?stranger"),
    ],
)
def test_what_are_no_weights(
    thin: keras.Model, name: str, value: np.ndarray, why: str, tmp_path: Path
) -> None:
    tensors = {known: np.zeros(torch_shape(one)) for known, one in named_variables(thin)}
    with pytest.raises(Failure) as error:
        assign_tensors(thin, tensors | {name: value}, tmp_path / "x.pth")
    assert why in str(error.value)
    assert str(error.value).isprintable()


def test_names_of_every_framework(thin: keras.Model, tmp_path: Path) -> None:
    tensors = {name: np.ones(torch_shape(one)) for name, one in named_variables(thin)}
    for body, head in (("", ""), ("module.", "module."), ("backbone.", "keypoint_head.")):
        renamed = {(head if "final" in n else body) + n: v for n, v in tensors.items()}
        thin.get_layer("conv1").kernel.assign(np.zeros((3, 3, 3, 8)))
        assign_tensors(thin, renamed, tmp_path / "x.pth")
        assert np.asarray(thin.get_layer("conv1").kernel).min() == 1


@pytest.mark.filterwarnings("error:Skipping nested")
def test_keras_weights_of_another_network(thin: keras.Model, tmp_path: Path) -> None:
    save_weights(build_hrnet(THIN, (64, 64), 17), tmp_path / "a.weights.h5")
    with pytest.raises(Failure, match=r"a\.weights\.h5 doesn't fit"):
        load_weights(thin, tmp_path / "a.weights.h5")
    (tmp_path / "b.weights.h5").write_bytes(b"no weights")
    with pytest.raises(Failure, match=r"b\.weights\.h5 doesn't fit"):
        load_weights(thin, tmp_path / "b.weights.h5")
