"""Order doubtful items so that people's decisions on the first ones teach a model most.

Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds" (BADGE), ICLR
2020, https://arxiv.org/abs/1906.03671: k-means++ on the gradients of the loss by the head's
weights, whose lengths say how uncertain a prediction is and whose directions how items differ.
"""

import numpy as np


def squared_distances(errors: np.ndarray, features: np.ndarray, row: int) -> np.ndarray:
    """Return the squared distances of all gradients to one, shape (n,).

    A gradient is the outer product of an error and features, which need not be computed.

    Args:
        errors: Probabilities less the one-hot prediction, float64 array of shape (n, classes).
        features: Features, float64 array of shape (n, width).
        row: The item.
    """
    products = (errors @ errors[row]) * (features @ features[row])
    lengths = squared_lengths(errors, features)
    return np.maximum(lengths + lengths[row] - 2 * products, 0.0)


def squared_lengths(errors: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the squared lengths of the gradients, shape (n,)."""
    return (errors**2).sum(axis=1) * (features**2).sum(axis=1)


def learning_order(probabilities: np.ndarray, features: np.ndarray, seed: int) -> np.ndarray:
    """Return all rows in the order in which people should decide them.

    Args:
        probabilities: Probabilities of the classes, array of shape (n, classes).
        features: Features that the head reads, array of shape (n, width).
        seed: Random seed.

    Returns:
        Int64 array of shape (n,); the first row is that of the longest gradient.
    """
    errors = np.array(probabilities, np.float64)
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    features = np.asarray(features, np.float64)
    rng = np.random.default_rng(seed)
    lengths = squared_lengths(errors, features)
    chosen: list[int] = []
    nearest = lengths.copy()
    for _ in range(len(errors)):
        if not chosen:
            row = int(lengths.argmax())
        elif (total := float(nearest.sum())) > 0:
            row = int(rng.choice(len(nearest), p=nearest / total))
        else:
            break
        chosen.append(row)
        nearest = np.minimum(nearest, squared_distances(errors, features, row))
        nearest[chosen] = 0.0
    # Items equal to a chosen one teach nothing more: they come last, the most uncertain first.
    rest = np.setdiff1d(np.arange(len(errors)), chosen)
    rest = rest[np.argsort(-lengths[rest], kind="stable")]
    return np.concatenate([np.array(chosen, np.int64), rest])
