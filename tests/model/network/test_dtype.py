"""A precision is taken where it is faster and the outputs stay."""

import time
from pathlib import Path

import keras
import numpy as np
import pytest

from model.network import dtype


class Network:
    """Outputs a mean of its pixels, OFF by a factor, after SECONDS of a processor's work."""

    def __init__(self, seconds: float, off: float = 1.0) -> None:
        self.seconds, self.off = seconds, off
        self.input = keras.KerasTensor((None, 40, 40, 3))

    def predict_on_batch(self, pixels: np.ndarray) -> np.ndarray:
        over = time.process_time() + self.seconds
        while time.process_time() < over:
            pass
        return pixels.mean(axis=(1, 2)) * self.off


def chosen(monkeypatch: pytest.MonkeyPatch, rival: Network, memory: Path) -> dtype.Chosen:
    monkeypatch.setattr(dtype, "_rivals", lambda: ["bfloat16"])
    networks = {"float32": Network(0.05), "mixed_bfloat16": rival}
    return dtype.choose(lambda policy: networks[policy], "auto", memory)


def test_a_faster_one_with_the_same_outputs_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = chosen(monkeypatch, Network(0.001, off=1.01), tmp_path / "new" / "memory.json")
    assert found.policy == "mixed_bfloat16"
    assert "times as fast" in found.why


def test_other_outputs_or_a_slower_one_keep_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for place, rival in enumerate((Network(0.001, off=1.1), Network(0.2))):
        assert chosen(monkeypatch, rival, tmp_path / str(place)).policy == "float32"


def test_a_machine_is_measured_once_and_a_broken_memory_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    memory = tmp_path / "memory.json"
    memory.write_text("{")
    first = chosen(monkeypatch, Network(0.001), memory)
    assert chosen(monkeypatch, Network(0.2), memory) == first


def test_what_is_asked_for_is_not_tried(tmp_path: Path) -> None:
    def never(policy: str) -> Network:
        raise AssertionError(policy)

    assert dtype.choose(never, "float16", tmp_path / "none").policy == "mixed_float16"


def test_a_processor_without_bfloat16_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dtype, "_rivals", list)
    found = dtype.choose(lambda policy: Network(0), "auto", tmp_path / "memory")
    assert found.policy == "float32"
    assert "does not multiply" in found.why
