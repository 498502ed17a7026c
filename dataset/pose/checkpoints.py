"""Weights into networks and out: published .pth files, Keras' own, and batch norms folded."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import keras
import ml_dtypes
import numpy as np

from dataset.errors import Failure, first_line, shorten_for_display
from dataset.pose.estimator import Estimator, choose_network
from dataset.pose.models import SUFFIX, PoseModel, cache_folder, cache_key
from dataset.pose.network import ARCHITECTURES, EPSILON, build_hrnet, keras_name, published_name
from dataset.pose.torch_checkpoint import read_tensors
from dataset.utils.downloads import fetch_published
from dataset.utils.files import atomic_path

# What frameworks put before the names of the paper's authors; "keypoint_head" is mmpose's 0.x.
PREFIXES = (
    ("module.", ""),
    ("backbone.", ""),
    ("keypoint_head.final_layer.", "final_layer."),
    ("head.final_layer.", "final_layer."),
)
SHOWN = 5


def load_weights(network: keras.Model, path: Path) -> None:
    """Fill NETWORK, not folded, from PATH: a .pth file, or Keras weights of the same network.

    Raises:
        Failure: PATH can't be read or is of another network.
    """
    if path.suffix == ".pth":
        fill(network, read_tensors(path), path)
        return
    try:
        with warnings.catch_warnings():
            # Keras warns of each layer of another network before it raises.
            warnings.simplefilter("ignore")
            network.load_weights(path)
    # Keras raises these and more for files of another network or of another kind.
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(
            f"{path} doesn't fit: {first_line(error)}; name weights of this network, a .pth file"
            f" or one that ends in {SUFFIX}"
        ) from error


def fill(network: keras.Model, tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Fill NETWORK with TENSORS of PATH, named and laid out as the paper's authors do.

    Raises:
        Failure: a name or a shape is missing, of no use, or different.
    """
    given, problems = _by_plain_name(tensors)
    wanted = dict(variables_of(network))
    problems += [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} has no place" for name in given if name not in wanted]
    for name, variable in wanted.items():
        if name in given and (problem := _misfit(given[name], torch_shape(variable))):
            problems.append(f"{name} {problem}")
    if problems:
        more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        first = "; ".join(map(shorten_for_display, problems[:SHOWN]))
        raise Failure(f"{path} doesn't fit: {first}{more}")
    for name, variable in wanted.items():
        value = given[name].astype(np.float32)
        variable.assign(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value)


def _by_plain_name(
    tensors: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """TENSORS under the authors' names, and what is wrong with their own."""
    given: dict[str, np.ndarray] = {}
    problems = []
    for name, value in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        if (plain := plain_name(name)) in given:
            problems.append(f"{plain} is there twice, as {name} too")
        given[plain] = value
    return given, problems


def _misfit(value: np.ndarray, shape: tuple[int, ...]) -> str:
    """Why VALUE is no weight of SHAPE, or nothing."""
    if value.shape != shape:
        return f"has the shape {value.shape} instead of {shape}"
    # NumPy does not count bfloat16 among its own.
    if not (np.issubdtype(value.dtype, np.floating) or value.dtype == ml_dtypes.bfloat16):
        return f"holds {value.dtype}, which are no weights"
    with np.errstate(over="ignore"):
        finite = np.isfinite(value.astype(np.float32)).all()
    return "" if finite else "holds numbers that are not finite"


def plain_name(name: str) -> str:
    """NAME as the paper's authors have it."""
    for prefix, instead in PREFIXES:
        if name.startswith(prefix):
            name = instead + name.removeprefix(prefix)
    return name


def variables_of(network: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    """NETWORK's variables with their names in published checkpoints."""
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
    """VARIABLE's shape as torch has it: kernels as out, in, height, width."""
    shape = tuple(int(side) for side in variable.shape)
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape


def fold(network: keras.Model, folded: keras.Model) -> None:
    """Fill FOLDED with NETWORK's weights, each batch norm made part of its convolution."""
    for layer in folded.layers:
        if not isinstance(layer, keras.layers.Conv2D):
            continue
        source = network.get_layer(layer.name)
        if source.use_bias:
            layer.set_weights(source.get_weights())
            continue
        norm = network.get_layer(keras_name(norm_of(published_name(layer.name))))
        gamma, beta, mean, variance = norm.get_weights()
        gain = gamma / np.sqrt(variance + EPSILON)
        layer.set_weights([keras.ops.convert_to_numpy(source.kernel) * gain, beta - mean * gain])


def norm_of(name: str) -> str:
    """The batch norm after the convolution NAME."""
    if name.endswith(".0"):
        return name[:-1] + "1"
    return name.replace("conv", "bn")


def save_weights(network: keras.Model, path: Path, half: bool = False) -> None:
    """NETWORK's weights at PATH, written aside first; with HALF as float16, enough for use."""
    with atomic_path(path) as temporary:
        network.save_weights(temporary)
        if half:
            _halve(temporary)


def _halve(path: Path) -> None:
    """The numbers of the Keras weights file PATH as float16, without the optimizer's."""
    with atomic_path(path) as small, h5py.File(path) as source, h5py.File(small, "w") as target:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            # Twice as large as the weights, and of no use to anybody else.
            if name.partition("/")[0] == "optimizer":
                return
            if isinstance(item, h5py.Dataset):
                made = target.create_dataset(name, data=item[()].astype(np.float16))
            else:
                made = target.require_group(name)
            made.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)


def load_estimator(model: PoseModel, flip: bool = False, dark: bool = False) -> Estimator:
    """Return MODEL's estimator, in the precision that suits this machine.

    Published weights are fetched, checked and converted once.

    Raises:
        Failure: its weights can't be had, or don't fit.
    """
    # Had first: what can't be had is told before a network is put together.
    weights = _weights_file(model)
    architecture, joints = ARCHITECTURES[model.architecture], len(model.joints.names)
    network = build_hrnet(architecture, model.size, joints)
    load_weights(network, weights)
    if weights.suffix == ".pth":
        _keep(network, _converted(model))

    def folded(precision: str) -> keras.Model:
        twin = build_hrnet(architecture, model.size, joints, True, precision)
        fold(network, twin)
        return twin

    chosen = choose_network(folded)
    return Estimator(chosen, model.joints, model.size, model.gate, flip or model.flip, dark)


def _weights_file(model: PoseModel) -> Path:
    """Where MODEL's weights are; a .pth file is only named where none was made of it before."""
    weights = model.weights
    if weights is not None and weights.suffix != ".pth":
        return weights
    if (converted := _converted(model)).is_file():
        return converted
    if weights is None:
        assert model.published is not None
        return fetch_published(
            model.published, cache_folder(), "name your own file: --pose-weights PATH"
        )
    return weights


def _converted(model: PoseModel) -> Path:
    """Keras' own file of what MODEL's .pth file holds, which is read in less time."""
    return cache_folder() / f"{cache_key(model).replace(':', '-')}{SUFFIX}"


def _keep(network: keras.Model, converted: Path) -> None:
    try:
        converted.parent.mkdir(parents=True, exist_ok=True)
        save_weights(network, converted)
    except OSError as error:
        raise Failure(f"{converted} can't be written: {error.strerror or error}") from error
