"""Load and save weights of pose networks: published .pth files and Keras files."""

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import h5py
import keras
import ml_dtypes
import numpy as np

from dataset.errors import Failure, first_line, shorten_for_display
from dataset.pose.estimator import PoseEstimator, choose_network
from dataset.pose.models import SUFFIX, PoseModel, cache_folder, cache_key
from dataset.pose.network import ARCHITECTURES, EPSILON, build_hrnet, keras_name, published_name
from dataset.pose.torch_checkpoint import read_tensors
from dataset.utils.downloads import fetch_published
from dataset.utils.files import atomic_path

# Prefixes of frameworks before the authors' names; "keypoint_head" is of mmpose 0.x.
PREFIXES = (
    ("module.", ""),
    ("backbone.", ""),
    ("keypoint_head.final_layer.", "final_layer."),
    ("head.final_layer.", "final_layer."),
)
MAX_PROBLEMS = 5


def load_weights(network: keras.Model, path: Path) -> None:
    """Load weights into a network whose batch normalization is not folded.

    Args:
        network: The network.
        path: A .pth file, or a Keras weights file of the same network.

    Raises:
        Failure: The file can't be read or belongs to another network.
    """
    if path.suffix == ".pth":
        assign_tensors(network, read_tensors(path), path)
        return
    try:
        with warnings.catch_warnings():
            # Keras warns about each layer before it raises.
            warnings.simplefilter("ignore")
            network.load_weights(path)
    # Keras raises these for files of another network or format.
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(
            f"{path} doesn't fit: {first_line(error)}; name weights of this network, a .pth file"
            f" or one that ends in {SUFFIX}"
        ) from error


def assign_tensors(network: keras.Model, tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Assign tensors that are named and shaped as by the paper's authors.

    Args:
        network: The network.
        tensors: Name -> tensor.
        path: The file of the tensors, for messages.

    Raises:
        Failure: A name or a shape is missing, unknown or different.
    """
    by_name, problems = _by_authors_name(tensors)
    variables = dict(named_variables(network))
    problems += [f"{name} is missing" for name in variables if name not in by_name]
    problems += [f"{name} is unexpected" for name in by_name if name not in variables]
    for name, variable in variables.items():
        if name in by_name and (problem := _describe_misfit(by_name[name], torch_shape(variable))):
            problems.append(f"{name} {problem}")
    if problems:
        more = f", and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        first = "; ".join(map(shorten_for_display, problems[:MAX_PROBLEMS]))
        raise Failure(f"{path} doesn't fit: {first}{more}")
    for name, variable in variables.items():
        value = by_name[name].astype(np.float32)
        variable.assign(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value)


def _by_authors_name(
    tensors: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the tensors by the authors' names, and problems with the names."""
    by_name: dict[str, np.ndarray] = {}
    problems = []
    for name, value in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        if (authors := authors_name(name)) in by_name:
            problems.append(f"{authors} is there twice, as {name} too")
        by_name[authors] = value
    return by_name, problems


def _describe_misfit(value: np.ndarray, shape: tuple[int, ...]) -> str:
    """Describe why a tensor can't be a weight of a shape; empty if it can."""
    if value.shape != shape:
        return f"has the shape {value.shape} instead of {shape}"
    # bfloat16 is not a floating type of NumPy.
    if not (np.issubdtype(value.dtype, np.floating) or value.dtype == ml_dtypes.bfloat16):
        return f"holds {value.dtype}, which are no weights"
    with np.errstate(over="ignore"):
        finite = np.isfinite(value.astype(np.float32)).all()
    return "" if finite else "holds numbers that are not finite"


def authors_name(name: str) -> str:
    """Return a tensor's name as the paper's authors write it."""
    for prefix, instead in PREFIXES:
        if name.startswith(prefix):
            name = instead + name.removeprefix(prefix)
    return name


def named_variables(network: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    """Yield the variables of a network with their names in published checkpoints."""
    for layer in network.layers:
        name = published_name(layer.name)
        if isinstance(layer, keras.layers.Conv2D):
            yield f"{name}.weight", layer.kernel
            if layer.use_bias:
                yield f"{name}.bias", layer.bias
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield f"{name}.weight", layer.gamma
            yield f"{name}.bias", layer.beta
            yield f"{name}.running_mean", layer.moving_mean
            yield f"{name}.running_var", layer.moving_variance


def torch_shape(variable: keras.Variable) -> tuple[int, ...]:
    """Return a variable's shape in PyTorch's order: kernels as (out, in, height, width)."""
    shape = tuple(int(side) for side in variable.shape)
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape


def fold_batch_norms(network: keras.Model, folded: keras.Model) -> None:
    """Fill a folded network with the weights of another one, folding its batch normalization."""
    for layer in folded.layers:
        if not isinstance(layer, keras.layers.Conv2D):
            continue
        source = network.get_layer(layer.name)
        if source.use_bias:
            layer.set_weights(source.get_weights())
            continue
        norm = network.get_layer(keras_name(batch_norm_name(published_name(layer.name))))
        gamma, beta, mean, variance = norm.get_weights()
        gain = gamma / np.sqrt(variance + EPSILON)
        layer.set_weights([keras.ops.convert_to_numpy(source.kernel) * gain, beta - mean * gain])


def batch_norm_name(name: str) -> str:
    """Return the name of the batch normalization after a convolution."""
    if name.endswith(".0"):
        return name[:-1] + "1"
    if name.startswith(("mask_", "box_")):
        return f"{name}_bn"
    return name.replace("conv", "bn")


def save_weights(network: keras.Model, path: Path, half: bool = False) -> None:
    """Save the weights of a network atomically.

    Args:
        network: The network.
        path: A Keras weights file.
        half: Whether to save float16, which is precise enough for inference.
    """
    with atomic_path(path) as temporary:
        network.save_weights(temporary)
        if half:
            _convert_to_float16(temporary)


def _convert_to_float16(path: Path) -> None:
    """Convert a Keras weights file to float16 and drop the optimizer's variables."""
    with atomic_path(path) as small, h5py.File(path) as source, h5py.File(small, "w") as target:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            # Twice as large as the weights, and not needed for inference.
            if name.partition("/")[0] == "optimizer":
                return
            if isinstance(item, h5py.Dataset):
                node = target.create_dataset(name, data=item[()].astype(np.float16))
            else:
                node = target.require_group(name)
            node.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)


def load_estimator(model: PoseModel, flip: bool = False, dark: bool = False) -> PoseEstimator:
    """Load a pose estimator in the precision that suits the machine.

    Published weights are downloaded, checked and converted once.

    Args:
        model: The model.
        flip: Whether to average with the mirrored view.
        dark: Whether to decode with DARK.

    Raises:
        Failure: The weights can't be downloaded, or do not match the network.
    """
    # Fail before the network is built if the weights can't be downloaded.
    weights = _weights_file(model)
    architecture, joints = ARCHITECTURES[model.architecture], len(model.joints.names)
    build = partial(
        build_hrnet, architecture, model.size, joints, mask=model.has_mask, box=model.has_box
    )
    network = build()
    load_weights(network, weights)
    if weights.suffix == ".pth":
        _save_converted(network, _converted_path(model))

    def folded(precision: str) -> keras.Model:
        twin = build(folded=True, precision=precision)
        fold_batch_norms(network, twin)
        return twin

    chosen = choose_network(network, folded)
    is_flipped = flip or model.flip
    return PoseEstimator(
        chosen, model.joints, model.size, model.gate, is_flipped, dark, model.min_score
    )


def _weights_file(model: PoseModel) -> Path:
    """Return the weights file, downloaded if needed, or the file converted from it."""
    weights = model.weights
    if weights is not None and weights.suffix != ".pth":
        return weights
    if (converted := _converted_path(model)).is_file():
        return converted
    if weights is None:
        assert model.published is not None
        return fetch_published(
            model.published, cache_folder(), "name your own file: --pose-weights PATH"
        )
    return weights


def _converted_path(model: PoseModel) -> Path:
    """Return the path of the Keras file that is converted from a .pth file and loads faster."""
    return cache_folder() / f"{cache_key(model).replace(':', '-')}{SUFFIX}"


def _save_converted(network: keras.Model, converted: Path) -> None:
    try:
        converted.parent.mkdir(parents=True, exist_ok=True)
        save_weights(network, converted)
    except OSError as error:
        raise Failure(f"{converted} can't be written: {error.strerror or error}") from error
