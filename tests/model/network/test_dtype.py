"""The precision depends on the machine and on the outputs."""

import keras
import numpy as np
import pytest

from model.network import dtype


class Network:
    """Returns the mean of its pixels times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.input = keras.KerasTensor((None, 40, 40, 3))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.mean(axis=(1, 2)) * self.factor


def chosen(
    monkeypatch: pytest.MonkeyPatch, candidate: Network, multiplies: bool = True
) -> tuple[Network, dtype.PrecisionChoice]:
    monkeypatch.setattr(dtype, "has_bfloat16", lambda: multiplies)
    networks = {"float32": Network(), "mixed_bfloat16": candidate}
    network, found = dtype.choose_precision(Network(), lambda policy: networks[policy], "auto")
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

    assert dtype.choose_precision(Network(), build, "float16")[1].policy == "mixed_float16"
    assert built == ["mixed_float16"]


def test_a_machine_without_bfloat16_uses_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, Network(), multiplies=False)[1]
    assert found.policy == "float32"
    assert "no native bfloat16" in found.reason
