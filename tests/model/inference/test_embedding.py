"""Embeddings are unit vectors, similar for similar features and logits."""

import numpy as np
import pytest

from model.inference.embedding import LABEL_WEIGHT, MAX_DIMENSIONS, Embedding, fit_embedding


def network_outputs(
    count: int, width: int, classes: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return features and logits of photos of five kinds in turn."""
    rng = np.random.default_rng(seed)
    kinds = np.random.default_rng(1).standard_normal((5, width))
    # Outputs differ in spread by a thousand, as those of a backbone do.
    scale = np.geomspace(1e-2, 10, width)
    outputs = (kinds[np.arange(count) % 5] + rng.standard_normal((count, width))) * scale
    logits = 4 * np.eye(classes)[np.arange(count) % 5 % classes]
    logits = logits + rng.standard_normal((count, classes))
    return outputs.astype(np.float32), logits.astype(np.float32)


@pytest.mark.parametrize(
    ("count", "width", "classes"), [(400, 300, 10), (400, 40, 2), (60, 500, 100), (1, 8, 3)]
)
def test_vectors_have_unit_length_and_few_dimensions(count: int, width: int, classes: int) -> None:
    outputs, logits = network_outputs(count, width, classes)
    embedding = fit_embedding(outputs, logits)
    vectors = embedding.vectors(outputs, logits)
    assert vectors.shape == (count, embedding.dimensions)
    assert embedding.dimensions <= MAX_DIMENSIONS
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_the_nearest_are_of_the_same_kind() -> None:
    outputs, logits = network_outputs(500, 200, 10)
    embedding = fit_embedding(*network_outputs(500, 200, 10, seed=7))
    vectors = embedding.vectors(outputs, logits)
    products = vectors @ vectors.T - 2 * np.eye(500)
    best = np.argsort(-products, axis=1)[:, :10]
    assert (best % 5 == np.arange(500)[:, None] % 5).mean() > 0.98


def test_the_similarity_is_a_weighted_mean_of_features_and_labels() -> None:
    outputs, logits = network_outputs(80, 20, 4)
    embedding = fit_embedding(outputs, logits)
    probabilities = np.array([[0.6, 0.4, 0, 0], [0.6, 0, 0.4, 0], [0, 0, 0.5, 0.5]])
    vectors = embedding.vectors(np.repeat(outputs[:1], 3, axis=0), np.log(probabilities + 1e-12))
    same = 1 - LABEL_WEIGHT
    # The Bhattacharyya coefficients are 0.6, 0 and, of the last two, the root of 0.4 times 0.5.
    wanted = [same + LABEL_WEIGHT * coefficient for coefficient in (0.6, 0, 0.2**0.5)]
    found = [vectors[0] @ vectors[1], vectors[0] @ vectors[2], vectors[1] @ vectors[2]]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_constant_in_all_logits_has_no_effect() -> None:
    outputs, logits = network_outputs(50, 30, 6)
    embedding = fit_embedding(outputs, logits)
    moved = logits + np.arange(50, dtype=np.float32)[:, None]
    np.testing.assert_allclose(
        embedding.vectors(outputs, moved), embedding.vectors(outputs, logits), atol=1e-4
    )


def test_an_embedding_is_reproducible_and_can_be_saved() -> None:
    outputs, logits = network_outputs(200, 300, 10)
    one, other = fit_embedding(outputs, logits), fit_embedding(outputs, logits)
    kept = Embedding.from_arrays(one.to_arrays())
    vectors = one.vectors(outputs, logits)
    assert (other.vectors(outputs, logits) == vectors).all()
    assert (kept.vectors(outputs, logits) == vectors).all()
