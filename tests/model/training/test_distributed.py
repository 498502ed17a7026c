"""Training on several devices and in several processes, with Keras' JAX backend."""

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from model.cli import train_model
from tests.support.drawn_splits import ENVIRONMENT, SHORT, arguments, draw_splits, random_backbone

CONFIG = (
    *("--feature-layers", "mixed4", "--epochs", "3", "--batch-size", "8", "--head-epochs", "6"),
    *("--time-budget", "none", "--mixup", "0.2", "--precision", "float32"),
)
SCRATCH = ("--weights", "none")
FINE_TUNING = ("--weights", "backbone.weights.h5", "--fine-tune", "1")
# Reads the metrics that a run wrote for TensorBoard.
READ = """
import glob, json, pathlib, sys
import tensorflow as tf
values = {}
for path in glob.glob(sys.argv[1] + "/logs/**/events*", recursive=True):
    stage = pathlib.Path(path).relative_to(sys.argv[1]).parent.as_posix()
    for event in tf.compat.v1.train.summary_iterator(path):
        for value in event.summary.value:
            values[f"{stage} {value.tag} {event.step}"] = float(tf.make_ndarray(value.tensor))
print(json.dumps(values))
"""


def start(folder: Path, out: str, *options: str, **environment: str) -> subprocess.Popen[str]:
    words = arguments(folder, "--out", out, *CONFIG, *options)
    return subprocess.Popen(
        [*SHORT, *words],
        cwd=folder,
        env=ENVIRONMENT | {"KERAS_BACKEND": "jax"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def curve(folder: Path, out: str, processes: Sequence[subprocess.Popen[str]]) -> dict[str, Any]:
    """Wait for a training, and return its metrics in each epoch."""
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    read = [SHORT[0], "-c", READ, out]
    done = subprocess.run(read, cwd=folder, capture_output=True, text=True, check=True)
    values: dict[str, Any] = json.loads(done.stdout)
    return values


@pytest.mark.slow
@pytest.mark.usefixtures("short_backbone")
@pytest.mark.parametrize("stages", [SCRATCH, FINE_TUNING], ids=["scratch", "fine-tuning"])
def test_two_devices_and_two_processes_train_as_one(tmp_path: Path, stages: Sequence[str]) -> None:
    pytest.importorskip("jax", reason="needs JAX: pip install 'fashion-tagger[jax]'")
    draw_splits(tmp_path / "splits", {"polo": "red", "dress": "blue"})
    random_backbone(tmp_path / "backbone.weights.h5")
    one = curve(tmp_path, "one", [start(tmp_path, "one", *stages)])
    assert any(name.endswith("val_loss 3") for name in one)
    flags = "--xla_force_host_platform_device_count=2"
    two = curve(tmp_path, "two", [start(tmp_path, "two", *stages, "--distribute", XLA_FLAGS=flags)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        start(
            tmp_path,
            "processes",
            *stages,
            "--distribute",
            KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]
    several = curve(tmp_path, "processes", processes)
    for other in (two, several):
        assert other.keys() == one.keys()
        assert [*other.values()] == pytest.approx([*one.values()], abs=1e-3)
    assert np.isfinite([*one.values()]).all()


def test_another_backend_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("KERAS_BACKEND") == "jax":
        pytest.skip("the backend is JAX")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(train_model, ["--distribute"])
    assert done.exit_code == 2
    assert "--distribute needs Keras' JAX backend" in done.output


def test_a_taken_folder_is_an_error_before_processes_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "metrics.json").touch()
    done = CliRunner().invoke(train_model, ["--distribute", "--out", str(tmp_path / "first")])
    assert (done.exit_code, "first already exists" in done.output) == (2, True)
    (tmp_path / "second.unfinished").mkdir()
    done = CliRunner().invoke(train_model, ["--distribute", "--out", str(tmp_path / "second")])
    assert (done.exit_code, "is an interrupted training" in done.output) == (2, True)
