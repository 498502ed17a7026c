"""Compare HRNet here, in PyTorch and in ONNX Runtime: same network, weights and photos.

    pip install -r benchmarks/requirements.txt
    python benchmarks/pose.py --model hrnet-w32 --input-size 256x192

Each runtime has its own process and takes its turn in every round, so that a noisy machine affects
all alike. Outputs are compared before a time counts.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np

from dataset.pose.cli import InputSize
from dataset.pose.models import DEFAULT, architecture_names
from dataset.utils.cli_options import format_table

JOINTS = 17
OURS = "fashion-tagger"
# Largest relative difference of heat maps by rounding, for float32 and bfloat16.
ROUNDING = {"float32": 1e-3, "bfloat16": 0.2}
PEAK_SIDE, PEAK_TIMES = 2048, 5
PAUSE = 0.3


def keras_network(model: str, size: tuple[int, int], precision: str) -> Any:
    """Build this project's folded network with fixed weights."""
    import keras

    from dataset.pose.checkpoints import fold_batch_norms
    from dataset.pose.network import ARCHITECTURES, build_hrnet

    keras.utils.set_random_seed(0)
    network = build_hrnet(ARCHITECTURES[model], size, JOINTS)
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Statistics that keep the activations of a network with many sums near 1.
            means, variances = layer.moving_mean, layer.moving_variance
            layer.gamma.assign(rng.uniform(0.4, 0.6, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.1, layer.beta.shape))
            means.assign(rng.normal(0, 0.1, means.shape))
            variances.assign(rng.uniform(0.9, 1.1, variances.shape))
    folded = build_hrnet(ARCHITECTURES[model], size, JOINTS, True, precision)
    fold_batch_norms(network, folded)
    return folded


def multiply_adds(network: Any) -> int:
    """Count the multiply-adds of the convolutions for one photo."""
    import keras

    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            total += int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3]))
    return total


def torch_network(model: str, weights: dict[str, np.ndarray]) -> Any:
    """Build the same folded network in PyTorch for photos (batch, 3, height, width)."""
    import torch
    from torch import nn
    from torch.nn import functional

    from dataset.pose.network import ARCHITECTURES

    design = ARCHITECTURES[model]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = nn.ModuleDict()
            for name, kernel in weights.items():
                if not name.endswith("/bias"):
                    self.convolutions[name] = self.convolution(kernel, weights[f"{name}/bias"])
            # The published strides: the stem, new branches, and downsampling terms.
            for name, one in self.convolutions.items():
                down = name in ("conv1", "conv2") or goes_down(name)
                one.stride = (2, 2) if down else (1, 1)

        @staticmethod
        def convolution(kernel: np.ndarray, bias: np.ndarray) -> nn.Conv2d:
            side, _, inputs, outputs = kernel.shape
            made = nn.Conv2d(inputs, outputs, side, padding=side // 2)
            with torch.no_grad():
                made.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
                made.bias.copy_(torch.from_numpy(bias))
            return made

        def forward(self, photos: Any) -> Any:
            conv, relu = self.convolutions, functional.relu

            def has(name: str) -> bool:
                return name in conv

            def block(x: Any, name: str, count: int) -> Any:
                y = x
                for k in range(1, count + 1):
                    y = conv[f"{name}-conv{k}"](y)
                    y = relu(y) if k < count else y
                short = f"{name}-downsample-0"
                return relu(y + (conv[short](x) if has(short) else x))

            def unit(xs: list[Any], name: str, outputs: int) -> list[Any]:
                for i in range(len(xs)):
                    for b in range(design.blocks):
                        xs[i] = block(xs[i], f"{name}-branches-{i}-{b}", 2)
                fused = []
                for i in range(outputs):
                    total: Any = 0
                    for j, x in enumerate(xs):
                        to = f"{name}-fuse_layers-{i}-{j}"
                        if j > i:
                            x = functional.interpolate(
                                conv[f"{to}-0"](x), scale_factor=2 ** (j - i)
                            )
                        for k in range(i - j):
                            x = conv[f"{to}-{k}-0"](x)
                            x = x if k == i - j - 1 else relu(x)
                        total = total + x
                    fused.append(relu(total))
                return fused

            x = relu(conv["conv2"](relu(conv["conv1"](photos))))
            for b in range(design.first[0]):
                x = block(x, f"layer1-{b}", 3)
            xs = [x]
            for stage, modules in enumerate(design.modules, start=2):
                for i in range(stage):
                    to = f"transition{stage - 1}-{i}"
                    if i == len(xs):
                        xs.append(relu(conv[f"{to}-0-0"](xs[-1] if stage > 2 else x)))
                    elif has(f"{to}-0"):
                        xs[i] = relu(conv[f"{to}-0"](xs[i]))
                for m in range(modules):
                    last = stage == 4 and m == modules - 1
                    xs = unit(xs, f"stage{stage}-{m}", 1 if last else stage)
            return conv["final_layer"](xs[0])

    return Network().eval().to(memory_format=torch.channels_last)


def goes_down(name: str) -> bool:
    """Return whether a convolution has stride 2."""
    parts = name.split("-")
    # Layers of existing branches, such as transition1-0-0, have one number fewer and stride 1.
    if parts[0].startswith("transition"):
        return len(parts) == 4
    return "fuse_layers" in parts and len(parts) == 7


def our_side(model: str, size: tuple[int, int], precision: str, folder: Path) -> Callable[..., Any]:
    """Run Keras on its backend."""
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    network = keras_network(model, size, precision)
    return lambda photos: np.asarray(network.predict_on_batch(photos), np.float32)


def torch_side(
    model: str, size: tuple[int, int], precision: str, folder: Path
) -> Callable[..., Any]:
    """Run PyTorch on the CPU: channels last, autocast for bfloat16."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    network = torch_network(model, dict(np.load(folder / "weights.npz")))

    def answer(photos: np.ndarray) -> np.ndarray:
        seen = torch.from_numpy(photos).permute(0, 3, 1, 2)
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            maps: np.ndarray = network(seen).float().permute(0, 2, 3, 1).numpy()
            return maps

    return answer


def onnx_side(
    model: str, size: tuple[int, int], precision: str, folder: Path
) -> Callable[..., Any]:
    """Run ONNX Runtime on the graph that PyTorch exports."""
    import onnxruntime
    import torch

    network = torch_network(model, dict(np.load(folder / "weights.npz")))
    graph = folder / "network.onnx"
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, *size),),
        graph,
        dynamo=False,
        input_names=["photos"],
        dynamic_axes={"photos": {0: "batch"}},
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def answer(photos: np.ndarray) -> np.ndarray:
        seen = np.ascontiguousarray(photos.transpose(0, 3, 1, 2))
        maps: np.ndarray = session.run(None, {"photos": seen})[0].transpose(0, 2, 3, 1)
        return maps

    return answer


SIDES = {
    (OURS, "float32"): our_side,
    ("PyTorch", "float32"): torch_side,
    ("ONNX Runtime", "float32"): onnx_side,
    (OURS, "bfloat16"): our_side,
    ("PyTorch", "bfloat16"): torch_side,
}


def serve(
    pipe: Connection, which: tuple[str, str], model: str, size: tuple[int, int], folder: Path
) -> None:
    """Run one runtime's process: receive batches, send durations, and the first output."""
    # TensorFlow and PyTorch log what they load.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    answer = SIDES[which](model, size, which[1], folder)
    while True:
        asked = pipe.recv()
        if asked is None:
            return
        batches, entire = asked
        before = time.perf_counter()
        maps = [answer(batch) for batch in batches]
        spent = time.perf_counter() - before
        pipe.send((spent, np.concatenate(maps) if entire else None))


def measured_peak() -> float:
    """Return billions of multiply-adds per second in large float32 matrix products on all cores."""
    one = np.random.default_rng(0).random((PEAK_SIDE, PEAK_SIDE), np.float32)
    best = 0.0
    for _ in range(PEAK_TIMES):
        before = time.perf_counter()
        one @ one
        best = max(best, PEAK_SIDE**3 / (time.perf_counter() - before) / 1e9)
    return best


@click.command()
@click.option(
    "--model", type=click.Choice(architecture_names()), default=DEFAULT, show_default=True
)
@click.option(
    "--input-size", "size", type=InputSize(), default=(128, 128), help="Height x width, [128x128]."
)
@click.option("--photos", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
def main(model: str, size: tuple[int, int], photos: int, batch_size: int, rounds: int) -> None:
    """Measure photos per second in each runtime."""
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(photos, *size, 3)).astype(np.float32)
    batches = [seen[start : start + batch_size] for start in range(0, photos, batch_size)]
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    network = keras_network(model, size, "float32")
    work = multiply_adds(network) / 1e9
    named = {}
    for layer in network.layers:
        if layer.get_weights():
            named[layer.name], named[f"{layer.name}/bias"] = layer.get_weights()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        np.savez(Path(name) / "weights.npz", **named)
        pipes, workers = {}, []
        for which in SIDES:
            pipes[which], other = context.Pipe()
            worker = context.Process(
                target=serve, args=(other, which, model, size, Path(name)), daemon=True
            )
            worker.start()
            workers.append(worker)
        times = take_turns(pipes, batches, rounds)
        for pipe in pipes.values():
            pipe.send(None)
        for worker in workers:
            worker.join()
    peak = measured_peak()
    click.echo(
        f"{model} at {size[0]}x{size[1]}, {work:.2f} billion multiply-adds a photo, batches of"
        f" {batch_size}, {os.cpu_count()} cores; matrix products: {peak:.0f} billion a second"
    )
    click.echo(report(times, photos, work, peak))


def take_turns(
    pipes: dict[tuple[str, str], Connection], batches: Sequence[np.ndarray], rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Return durations of each runtime for each round, after checking the outputs."""
    right: np.ndarray | None = None
    for which, pipe in pipes.items():
        pipe.send((batches, True))
        _, maps = pipe.recv()
        right = maps if right is None else right
        distance = float(np.linalg.norm(maps - right) / np.linalg.norm(right))
        if not distance <= ROUNDING[which[1]]:
            raise click.ClickException(f"{which} answers something else: off by {distance:.2g}")
    times: dict[tuple[str, str], list[float]] = {which: [] for which in pipes}
    for _ in range(rounds):
        for which, pipe in pipes.items():
            # Threads of the previous runtime still spin for a moment.
            time.sleep(PAUSE)
            pipe.send((batches, False))
            times[which].append(pipe.recv()[0])
    return times


def report(times: dict[tuple[str, str], list[float]], photos: int, work: float, peak: float) -> str:
    """Format the medians over the rounds and the ratios as a table."""
    ours = {kind: statistics.median(times[OURS, kind]) for kind in ROUNDING}
    rows = []
    for (name, kind), seconds in times.items():
        middle = statistics.median(seconds)
        each = middle / photos
        rows.append(
            (
                name,
                kind,
                f"{1 / each:.1f}",
                f"{1000 * each / work:.2f}",
                f"{work / each / peak:.0%}",
                f"{middle / ours[kind]:.2f} x",
            )
        )
    heads = ("runtime", "precision", "photos/s", "ms per G", "of peak", "ours is as fast")
    return format_table(heads, rows)


if __name__ == "__main__":
    main()
