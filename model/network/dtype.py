"""Choose the dtype policy of a network: bfloat16 where the machine supports it natively."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from dataset.pose.estimator import has_bfloat16, keeps_outputs

# Values of --precision -> Keras dtype policies. Weights are float32 in all of them.
POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
# Images on which the outputs of two precisions are compared.
BATCH_SIZE = 4


@dataclass(frozen=True)
class PrecisionChoice:
    """A dtype policy and the reason for it."""

    policy: str
    reason: str


def choose_precision(
    reference: keras.Model, build: Callable[[str], keras.Model], precision: str
) -> tuple[keras.Model, PrecisionChoice]:
    """Return a network in the precision that suits this machine.

    `auto` depends on the machine and the weights only, not on the machine's load: mixed bfloat16
    where the processor or GPU supports it and the outputs for fixed inputs stay near float32's.

    Args:
        reference: A network in float32, (batch, size, size, channels) in [0, 255] -> outputs.
        build: Policy -> an equal network in that policy.
        precision: A key of POLICIES, or `auto`.
    """
    if precision != "auto":
        choice = PrecisionChoice(POLICIES[precision], f"{precision}, by option")
        return build(POLICIES[precision]), choice
    if not has_bfloat16():
        reason = "float32: this machine has no native bfloat16"
        return build("float32"), PrecisionChoice("float32", reason)
    candidate = build(POLICIES["bfloat16"])
    pixels = _fixed_pixels(reference.input.shape[1:])
    is_near, difference = keeps_outputs(reference, candidate, pixels)
    if is_near:
        reason = f"bfloat16, which is native to this machine; outputs differ by {difference:.1%}"
        return candidate, PrecisionChoice(POLICIES["bfloat16"], reason)
    reason = f"float32: outputs in bfloat16 would differ by {difference:.1%}"
    return build("float32"), PrecisionChoice("float32", reason)


def _fixed_pixels(shape: Sequence[int]) -> np.ndarray:
    """Return random patches with sharp edges, uint8 array of shape (BATCH_SIZE, *shape)."""
    size, _, channels = shape
    patches = (BATCH_SIZE, 20, 20, channels)
    small = np.random.default_rng(0).integers(0, 256, patches, dtype=np.uint8)
    repeats = -(-size // 20)
    return small.repeat(repeats, axis=1).repeat(repeats, axis=2)[:, :size, :size]
