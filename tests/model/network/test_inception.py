"""The network: folding, feature layers, frozen blocks, precision, and the model for raw photos."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from dataset.errors import Failure
from dataset.images.io import sha256_of
from model.data.loading import letterbox
from model.network import inception

SIZE = 75
# Mean output of the shipped backbone for a ramp.
GOLDEN_MEAN = 0.16759


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    """An Inception-v3 whose batch normalization has statistics of random images."""
    keras.utils.set_random_seed(1)
    network = inception.build_backbone(SIZE, "none")
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            beta, mean, variance = (value.shape for value in layer.get_weights())
            layer.set_weights(
                [rng.normal(0, 0.1, beta), rng.normal(0, 0.1, mean), rng.uniform(0.5, 2, variance)]
            )
    return network


@pytest.fixture(scope="module")
def folded(backbone: keras.Model) -> keras.Model:
    return inception.fold_batch_norms(backbone)


def pixels(count: int = 2) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.float32)


def test_a_folded_backbone_has_the_same_outputs(backbone: keras.Model, folded: keras.Model) -> None:
    inside = pixels() / 127.5 - 1
    exact = np.asarray(backbone(inside))
    norms = [x for x in folded.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert not norms
    assert np.asarray(folded(inside)) == pytest.approx(exact, rel=1e-3, abs=1e-4)


def test_features_are_concatenated_averages_of_the_blocks(backbone: keras.Model) -> None:
    feature_layers = ["mixed8", "mixed10"]
    found = np.asarray(inception.build_feature_network(backbone, feature_layers)(pixels()))
    assert found.shape == (2, 1280 + 2048)
    top = np.asarray(backbone(pixels() / 127.5 - 1)).mean(axis=(1, 2))
    assert found[:, 1280:] == pytest.approx(top, rel=1e-4, abs=1e-5)


def test_halves_are_parts_of_the_same_photo(backbone: keras.Model) -> None:
    short = inception.truncate(backbone, "mixed1")
    features = inception.build_feature_network(short, ["mixed0", "mixed1"], inception.HALVES)
    assert inception.parts_of(features) == inception.HALVES
    photo = np.random.default_rng(3).integers(0, 256, (1, 2 * SIZE, 2 * SIZE, 3))
    found = np.asarray(features(photo.astype(np.float32)))
    plain = inception.build_feature_network(short, ["mixed0", "mixed1"])
    assert inception.parts_of(plain) == inception.WHOLE
    left = SIZE // 2
    middle = photo[:, :, left : left + SIZE].astype(np.float32)
    whole = photo.reshape(1, SIZE, 2, SIZE, 2, 3).mean(axis=(2, 4)).astype(np.float32)
    views = [plain(view) for view in (whole, middle[:, :SIZE], middle[:, SIZE:])]
    expected = np.concatenate([np.asarray(view) for view in views], axis=1)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("parts", [inception.WHOLE, inception.HALVES])
def test_with_an_opacity_both_renderings_are_read(
    backbone: keras.Model, parts: str, tmp_path: Path
) -> None:
    short, rng = inception.truncate(backbone, "mixed0"), np.random.default_rng(3)
    features = inception.build_feature_network(short, ["mixed0"], parts, channels=4)
    features.save(tmp_path / "features.keras")
    features = keras.saving.load_model(tmp_path / "features.keras")
    side = inception.input_side(SIZE, parts)
    photo = rng.integers(0, 256, (2, side, side, 4)).astype(np.float32)
    colours, opacity = photo[..., :3], photo[..., 3:] / 255
    plain = inception.build_feature_network(short, ["mixed0"], parts)
    renderings = colours, colours * opacity + 255 * (1 - opacity)
    expected = np.concatenate([np.asarray(plain(pixels)) for pixels in renderings], axis=1)
    assert np.asarray(features(photo)) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert inception.parts_of(features) == parts


def test_a_quantized_backbone_is_loaded_exactly(
    backbone: keras.Model, folded: keras.Model, tmp_path: Path
) -> None:
    cut = inception.truncate(folded, "mixed2")
    inception.save_quantized(cut, tmp_path / "cut.npz")
    loaded = inception.load_quantized(backbone, tmp_path / "cut.npz")
    assert inception.backbone_blocks(loaded) == ("mixed0", "mixed1", "mixed2")
    # Quantized again, the weights are the same to the bit.
    inception.save_quantized(loaded, tmp_path / "again.npz")
    with np.load(tmp_path / "cut.npz") as first, np.load(tmp_path / "again.npz") as second:
        assert first.files == second.files
        assert all(np.array_equal(first[name], second[name]) for name in first.files)
    inside = pixels() / 127.5 - 1
    exact, near = np.asarray(cut(inside)), np.asarray(loaded(inside))
    assert np.sqrt(((near - exact) ** 2).mean() / (exact**2).mean()) < 0.03
    copy = inception.fold_batch_norms(loaded)
    assert np.array_equal(np.asarray(copy(inside)), near)


def test_a_broken_quantized_file_is_named(backbone: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(b"no weights")
    with pytest.raises(Failure, match=r"broken\.npz can't be read"):
        inception.load_quantized(backbone, path)


@pytest.mark.parametrize(("blocks", "last"), [(0, "mixed10"), (2, "mixed8"), (None, None)])
def test_only_the_top_blocks_are_trainable(
    folded: keras.Model, blocks: int | None, last: str | None
) -> None:
    # Nothing is frozen yet, as in a backbone that was just folded.
    for layer in folded.layers:
        layer.trainable = True
    features = inception.build_feature_network(folded, ["mixed10"])
    inception.unfreeze_blocks(features, blocks)
    inner = features.get_layer("backbone")
    frozen = {layer.name for layer in inner.layers if not layer.trainable}
    assert (last in frozen) == (last is not None)
    names = [f"mixed{number}" for number in range(11)]
    above = names[names.index(last) + 1 :] if last else names
    assert not frozen & set(above)
    assert bool(inner.trainable_variables) == (blocks != 0)


def test_a_head_standardizes_the_features() -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=6), np.array([1, 2, 3, 4, 5, 0.0])
    head = inception.build_head(6, 3, mean, std)
    standardize = keras.Model(head.input, head.get_layer("standardize").output)
    found = np.asarray(standardize((mean + std)[None].astype(np.float32)))
    assert found == pytest.approx(np.array([[1, 1, 1, 1, 1, 0]]), abs=1e-3)
    assert {variable.path.split("/")[-2] for variable in head.trainable_variables} == {"labels"}


def test_the_classifier_takes_photos_of_any_size_and_is_calibrated(
    backbone: keras.Model,
) -> None:
    features = inception.build_feature_network(inception.truncate(backbone, "mixed1"), ["mixed1"])
    network = inception.join_head(features, inception.build_head(288, 3))
    model = inception.build_classifier(inception.add_tta(network), temperature=2.0)
    for height, width in ((61, 200), (75, 75)):
        photo = np.random.default_rng(height).integers(0, 256, (1, height, width, 3), np.uint8)
        probabilities = np.asarray(model(photo))
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)
        mirrored = np.asarray(model(photo[:, :, ::-1]))
        assert mirrored == pytest.approx(probabilities, abs=0.02)
    assert np.asarray(model.predict_on_batch(photo)) == pytest.approx(probabilities, abs=1e-5)
    logits = np.asarray(inception.add_tta(network)(photo.astype(np.float32)))
    hot = np.exp(logits / 2)
    assert probabilities == pytest.approx(hot / hot.sum(), abs=1e-3)


def test_the_letterbox_equals_the_models_layer() -> None:
    layer = inception.letterbox_layer(SIZE)
    for size in ((200, 120), (50, 90), (75, 75), (301, 299)):
        smooth = np.random.default_rng(3).integers(0, 256, (9, 9, 3), np.uint8)
        photo = Image.fromarray(smooth).resize(size, Image.Resampling.BICUBIC)
        exact = np.asarray(layer(np.asarray(photo, np.float32)[None]))[0]
        inner = np.abs(letterbox(photo, SIZE).astype(float) - exact)
        assert np.median(inner) <= 1
        assert (inner <= 2).mean() > 0.97


def test_the_shipped_backbone_is_the_one_of_its_card() -> None:
    card = inception.GARMENTS_FILE.with_suffix(".md").read_text(encoding="utf-8")
    assert sha256_of(inception.GARMENTS_FILE.read_bytes()) in card
    shipped = inception.build_backbone(96, inception.GARMENTS)
    assert inception.backbone_blocks(shipped)[-1] == "mixed8"
    ramp = np.linspace(-1, 1, 96, dtype=np.float32)
    maps = np.asarray(shipped(np.broadcast_to(ramp[None, :, None, None], (1, 96, 96, 3))))
    assert maps.shape == (1, 1, 1, 1280)
    assert maps.mean() == pytest.approx(GOLDEN_MEAN, rel=1e-3)


class Network:
    """Returns the mean of its pixels times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.input = keras.KerasTensor((None, 40, 40, 3))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.mean(axis=(1, 2)) * self.factor


def chosen(
    monkeypatch: pytest.MonkeyPatch, candidate: Network, multiplies: bool = True
) -> tuple[Network, inception.PrecisionChoice]:
    monkeypatch.setattr(inception, "has_bfloat16", lambda: multiplies)
    networks = {"float32": Network(), "mixed_bfloat16": candidate}
    network, found = inception.choose_precision(Network(), lambda policy: networks[policy], "auto")
    assert network is networks[found.policy]
    return network, found


def test_bfloat16_with_the_same_outputs_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = chosen(monkeypatch, Network(1.01))
    assert found.policy == "mixed_bfloat16"
    assert "1.0%" in found.reason


@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_other_outputs_keep_float32(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    assert chosen(monkeypatch, Network(factor))[1].policy == "float32"


def test_a_given_precision_is_not_checked() -> None:
    built: list[str] = []

    def build(policy: str) -> Network:
        built.append(policy)
        return Network()

    assert inception.choose_precision(Network(), build, "float16")[1].policy == "mixed_float16"
    assert built == ["mixed_float16"]


def test_a_machine_without_bfloat16_uses_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, Network(), multiplies=False)[1]
    assert found.policy == "float32"
    assert "no native bfloat16" in found.reason
