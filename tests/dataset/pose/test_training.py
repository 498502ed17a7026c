"""Trainings of pose networks: any joints, interruptions, broken images, no people."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from keras import Model

from dataset.errors import BadInput, Failure
from dataset.pose import training
from dataset.pose.checkpoints import load_weights, save_weights
from dataset.pose.models import find_model
from dataset.pose.network import (
    ARCHITECTURES,
    KEY_POINT_UNIT,
    MASK_UNIT,
    build_hrnet,
    is_box_layer,
    is_mask_layer,
    keras_name,
)
from dataset.pose.training import PoseTrainOptions, train_pose
from tests.support.catalogue_data import photo_bytes
from tests.support.small_pose_network import THIN

NAMES = ["l_ankle", "l_knee", "r_knee", "r_ankle", "pelvis"]


def write_people(folder: Path, count: int, first: int = 0, masks: bool = False) -> Path:
    """Write images of noise with five joints each, and masks if asked for."""
    rng = np.random.default_rng(first)
    images, people = [], []
    for i in range(first, first + count):
        (folder / f"{i}.jpg").write_bytes(photo_bytes(i))
        images.append({"id": i, "file_name": f"{i}.jpg", "width": 120, "height": 160})
        points = np.concatenate([rng.uniform(20, 100, (5, 2)), np.full((5, 1), 2)], axis=1)
        one = {"id": i, "image_id": i, "category_id": 1, "bbox": [10, 10, 100, 120]}
        one |= {"segmentation": [[10, 10, 110, 10, 110, 130, 10, 130]]} if masks else {}
        people.append(one | {"keypoints": points.ravel().tolist()})
    category = {"id": 1, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2], [2, 5]]}
    path = folder / f"people-{first}.json"
    content = {"images": images, "annotations": people, "categories": [category]}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PoseTrainOptions:
    # One exchange between branches is enough to be trained.
    monkeypatch.setitem(ARCHITECTURES, "hrnet-small", replace(THIN, modules=(0, 0, 1)))
    (tmp_path / "photos").mkdir()
    (tmp_path / "empty").mkdir()
    for n in range(200, 204):
        (tmp_path / "empty" / f"{n}.jpg").write_bytes(photo_bytes(n))
    return PoseTrainOptions(
        (write_people(tmp_path / "photos", 10),),
        (tmp_path / "photos",),
        tmp_path / "run",
        (write_people(tmp_path / "photos", 4, 100),),
        size=(64, 64),
        epochs=3,
        batch_size=4,
        without_people=tmp_path / "empty",
    )


def state_of(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / training.STATE) as state:
        return {name: state[name] for name in state.files}


@pytest.mark.slow
def test_stopped_and_gone_on_with_ends_as_if_never_stopped(
    options: PoseTrainOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("3.jpg", "101.jpg"):
        (options.images[0] / name).write_bytes(b"broken")
    done = train_pose(options)
    assert done["epochs"] == 3
    # Once, and not in each of three epochs; those to measure on too.
    said = capsys.readouterr().err
    assert said.count("3.jpg") == 1 and said.count("101.jpg") == 1

    kept = training.save_epoch

    class Killed(Exception):  # noqa: N818
        pass

    def dies(*arguments: object) -> None:
        kept(*arguments)  # type: ignore[arg-type]
        raise Killed

    second = replace(options, out=options.out.with_name("second"))
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        patched.setattr(training, "save_epoch", dies)
        train_pose(second)
    with pytest.raises(BadInput, match="--resume"):
        train_pose(second)
    with pytest.raises(BadInput, match="other options"):
        train_pose(replace(second, resume=True, batch_size=5))
    assert train_pose(replace(second, resume=True)) == done
    first, other = state_of(options.out), state_of(second.out)
    assert first.keys() == other.keys()
    for name in first.keys() - {"said"}:
        np.testing.assert_allclose(first[name], other[name], rtol=1e-4, atol=1e-5)

    assert {path.name for path in options.out.iterdir()} == {
        *("pose.weights.h5", "pose.json", "state.npz", "curves.png", "predictions-003.png")
    }
    # Weights alone: what the optimizer remembers is twice as large, and in the state.
    with h5py.File(options.out / "pose.weights.h5") as file:
        assert "optimizer" not in file and "layers" in file
    model = find_model("hrnet-small", options.out / "pose.weights.h5")
    assert model.joints.names == tuple(NAMES) and model.size == (64, 64)
    assert model.joints.bones == ((0, 1), (1, 4))


@pytest.mark.slow
def test_killed_before_the_first_state(options: PoseTrainOptions) -> None:
    again = replace(options, resume=True, epochs=1)
    with pytest.raises(BadInput, match=r"state\.npz is missing"):
        train_pose(again)
    options.out.mkdir()
    for name in ("pose.weights.h5", "pose.json", ".part-state.npz"):
        (options.out / name).write_bytes(b"half")
    (options.out / "other").touch()
    with pytest.raises(BadInput, match=r"state\.npz is missing"):
        train_pose(again)
    (options.out / "other").unlink()
    assert train_pose(again)["epochs"] == 1
    state = options.out / training.STATE
    state.write_bytes(state.read_bytes()[:3000])
    with pytest.raises(Failure, match=r"state\.npz is broken"):
        train_pose(again)


@pytest.mark.slow
def test_masks_only_leaves_the_key_points_as_they_are(
    options: PoseTrainOptions, tmp_path: Path
) -> None:
    once, joints = replace(options, epochs=1), len(NAMES)
    start = tmp_path / "start.weights.h5"
    plain = build_hrnet(ARCHITECTURES["hrnet-small"], (64, 64), joints)
    save_weights(plain, start, half=True)
    with pytest.raises(BadInput, match=r"--masks-only: no person in .* has a segmentation"):
        train_pose(replace(once, out=tmp_path / "none", masks_only=True))
    photos = options.images[0]
    masked = replace(
        once,
        annotations=(write_people(photos, 10, masks=True),),
        validation=(write_people(photos, 4, 100, masks=True),),
        out=tmp_path / "masks",
        start=start,
        masks_only=True,
    )
    train_pose(masked)

    def weights(path: Path, masks: bool) -> dict[str, list[np.ndarray]]:
        network = build_hrnet(ARCHITECTURES["hrnet-small"], (64, 64), joints, mask=masks)
        load_weights(network, path)
        return {layer.name: layer.get_weights() for layer in network.layers if layer.weights}

    before, after = weights(start, False), weights(masked.out / "pose.weights.h5", True)
    for name, values in before.items():
        assert all(map(np.array_equal, values, after[name])), name
    unit = {name for name in after if name not in before}
    assert unit and all(map(is_mask_layer, unit))
    copied = [name for name in unit if name.startswith(keras_name(MASK_UNIT))]
    changed = [
        name
        for name in copied
        if not np.array_equal(
            after[name][0],
            before[name.replace(keras_name(MASK_UNIT), keras_name(KEY_POINT_UNIT))][0],
        )
    ]
    assert changed


@pytest.mark.slow
def test_boxes_only_leaves_key_points_and_masks_as_they_are(
    options: PoseTrainOptions, tmp_path: Path
) -> None:
    once, joints = replace(options, epochs=1), len(NAMES)
    start = tmp_path / "start.weights.h5"
    masked = build_hrnet(ARCHITECTURES["hrnet-small"], (64, 64), joints, mask=True)
    save_weights(masked, start, half=True)
    boxes = replace(once, out=tmp_path / "boxes", start=start, boxes_only=True)
    with pytest.raises(BadInput, match=r"--boxes-only: .*start\.weights\.h5 finds no masks"):
        train_pose(boxes)
    description = {
        "architecture": "hrnet-small",
        "size": [64, 64],
        "joints": NAMES,
        "bones": [],
        "gate": 0.3,
        "mask": True,
    }
    (tmp_path / "start.json").write_text(json.dumps(description))
    done = train_pose(boxes)
    assert 0 < done["crop"] < 1
    trained = find_model("hrnet-small", boxes.out / "pose.weights.h5")
    assert trained.has_mask and trained.has_box

    def weights(network: Model, path: Path) -> dict[str, list[np.ndarray]]:
        load_weights(network, path)
        return {layer.name: layer.get_weights() for layer in network.layers if layer.weights}

    whole = build_hrnet(ARCHITECTURES["hrnet-small"], (64, 64), joints, mask=True, box=True)
    initial = {
        layer.name: layer.get_weights() for layer in whole.layers if is_box_layer(layer.name)
    }
    before, after = weights(masked, start), weights(whole, boxes.out / "pose.weights.h5")
    for name, values in before.items():
        assert all(map(np.array_equal, values, after[name])), name
    added = {name for name in after if name not in before}
    assert added and all(map(is_box_layer, added))
    assert any(not np.array_equal(after[name][0], initial[name][0]) for name in added)
    # Boxes are trained further, alone or with all else.
    again = replace(boxes, start=boxes.out / "pose.weights.h5", out=tmp_path / "again")
    assert train_pose(again)["epochs"] == 1
    everything = replace(again, boxes_only=False, out=tmp_path / "everything")
    assert 0 < train_pose(everything)["crop"] < 1
    trained = find_model("hrnet-small", everything.out / "pose.weights.h5")
    assert trained.has_mask and trained.has_box
    after = weights(whole, everything.out / "pose.weights.h5")
    assert all(not np.array_equal(after[name][0], before[name][0]) for name in before)
    # The box head is known from the output folder.
    assert train_pose(replace(everything, start=None, resume=True))["epochs"] == 1
    # Training masks drops the head, whose input would change.
    masks = replace(again, boxes_only=False, masks_only=True, out=tmp_path / "masks")
    photos = options.images[0]
    masks = replace(masks, annotations=(write_people(photos, 10, masks=True),))
    train_pose(masks)
    trained = find_model("hrnet-small", masks.out / "pose.weights.h5")
    assert trained.has_mask and not trained.has_box


def test_nobody_to_learn_from(options: PoseTrainOptions) -> None:
    content = json.loads(options.annotations[0].read_text()) | {"annotations": []}
    options.annotations[0].write_text(json.dumps(content))
    with pytest.raises(BadInput, match="has no people"):
        train_pose(options)


def test_held_back_photos_are_not_learned_from(options: PoseTrainOptions) -> None:
    people, held_out = training.read_split(replace(options, validation=()))
    photos, others = ({p.image for p in one.persons} for one in (people, held_out))
    assert len(photos) == 9 and len(others) == 1 and not photos & others


def test_rates_fall_as_published(options: PoseTrainOptions) -> None:
    long = replace(options, epochs=210)
    rates = [training.learning_rate_at(epoch, long) for epoch in (0, 169, 170, 199, 200, 209)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
