"""The dtype policy of a network: bfloat16 where the machine multiplies it and outputs stay."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from dataset.pose.estimator import has_bfloat16, keeps_outputs

# Choices of --precision -> Keras' dtype policies. Weights are float32 in all of them.
POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
# Photos that both precisions see.
BATCH = 4


@dataclass(frozen=True)
class Chosen:
    """A policy, and in words why."""

    policy: str
    why: str


def choose(build: Callable[[str], keras.Model], asked: str) -> tuple[keras.Model, Chosen]:
    """Return a network in the precision that suits this machine, and why that one.

    `auto` depends on the machine and the weights only, not on the machine's load: mixed bfloat16
    where the processor or GPU multiplies it and the outputs for fixed inputs stay near float32's.

    Args:
        build: Returns the network, (batch, size, size, 3) in [0, 255] -> outputs, in a policy.
        asked: A name of POLICIES, or `auto`.
    """
    if asked != "auto":
        return build(POLICIES[asked]), Chosen(POLICIES[asked], f"{asked}, as asked for")
    network = build("float32")
    if not has_bfloat16():
        return network, Chosen("float32", "float32: this machine does not multiply bfloat16")
    twin = build(POLICIES["bfloat16"])
    is_near, difference = keeps_outputs(network, twin, _fixed_pixels(int(network.input.shape[1])))
    if is_near:
        why = f"bfloat16, which this machine multiplies; outputs differ by {difference:.1%}"
        return twin, Chosen(POLICIES["bfloat16"], why)
    why = f"float32: outputs in bfloat16 would differ by {difference:.1%}"
    return network, Chosen("float32", why)


def _fixed_pixels(size: int) -> np.ndarray:
    """Return (BATCH, SIZE, SIZE, 3) uint8 of noise in patches, whose edges the network answers."""
    small = np.random.default_rng(0).integers(0, 256, (BATCH, 20, 20, 3), dtype=np.uint8)
    sides = -(-size // 20)
    return small.repeat(sides, axis=1).repeat(sides, axis=2)[:, :size, :size]
