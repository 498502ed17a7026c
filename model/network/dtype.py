"""In which numbers a network works: tried on this machine, and only where it stays the same."""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from dataset.pose.estimator import has_bfloat16
from dataset.utils.files import write_atomically
from dataset.utils.keras_backend import has_gpu

# What a person says -> Keras' dtype policy. Weights are float32 in all of them.
POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
# Outputs may differ by so much of float32's, in the root mean square.
NEAR = 0.02
BATCH, ROUNDS = 16, 3


@dataclass(frozen=True)
class Chosen:
    """A policy, and in words why."""

    policy: str
    why: str


def choose(build: Callable[[str], keras.Model], asked: str, memory: Path) -> Chosen:
    """The fastest policy whose outputs are near float32's; ASKED is taken as it is but for `auto`.

    BUILD makes a network, (batch, size, size, 3) in [0, 255] -> outputs, that works in a policy.
    What was found is kept in the file MEMORY: a busy minute must not make kept outputs worthless.
    """
    if asked != "auto":
        return Chosen(POLICIES[asked], f"{asked}, as asked for")
    key = f"{_machine()}, {keras.backend.backend()} {keras.version()}"
    known = _remembered(memory)
    if key not in known:
        known[key] = asdict(_tried(build))
        write_atomically(memory, json.dumps(known, indent=2).encode())
    return Chosen(**known[key])


def _remembered(memory: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _machine() -> str:
    """What this machine computes with, in words."""
    if has_gpu():
        return "GPU"
    return f"{platform.machine()}, {os.cpu_count()} cores, bfloat16: {has_bfloat16()}"


def _tried(build: Callable[[str], keras.Model]) -> Chosen:
    rivals = _rivals()
    if not rivals:
        return Chosen("float32", "float32: this processor does not multiply bfloat16")
    network = build("float32")
    rng = np.random.default_rng(0)
    # Noise in patches: a trunk answers a photo's edges, and white noise it hardly answers.
    small = rng.integers(0, 256, (BATCH, 20, 20, 3), dtype=np.uint8)
    size = int(network.input.shape[1])
    pixels = small.repeat(-(-size // 20), axis=1).repeat(-(-size // 20), axis=2)
    pixels = pixels[:, :size, :size]
    exact, best = _timed(network, pixels)
    chosen = Chosen("float32", "float32, the fastest here")
    for name in rivals:
        quick, seconds = _timed(build(POLICIES[name]), pixels)
        off = float(np.sqrt(((quick - exact) ** 2).mean() / (exact**2).mean()))
        if off <= NEAR and seconds < best:
            why = f"{name}, {best / seconds:.1f} times as fast as float32 here, {off:.1%} off it"
            chosen, best = Chosen(POLICIES[name], why), seconds
    return chosen


def _rivals() -> list[str]:
    """What may be faster than float32 on this machine."""
    if has_gpu():
        return ["bfloat16", "float16"]
    return ["bfloat16"] if has_bfloat16() else []


def _timed(network: keras.Model, pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """NETWORK's outputs for PIXELS and the seconds they take once its graph is built.

    Those of processors where they work: a machine that is busy with others says the same.
    """
    clock = time.perf_counter if has_gpu() else time.process_time
    outputs = np.asarray(network.predict_on_batch(pixels), np.float32)
    seconds = []
    for _ in range(ROUNDS):
        began = clock()
        network.predict_on_batch(pixels)
        seconds.append(clock() - began)
    return outputs, min(seconds)
