"""A pose model's weights, fetched and converted where needed, and the network ready to be asked."""

from pathlib import Path

import keras

from dataset.downloads import fetched
from dataset.errors import Failure
from dataset.pose.checkpoints import fold, load_weights, save_weights
from dataset.pose.estimator import Estimator
from dataset.pose.models import SUFFIX, PoseModel, cache_folder, key_of
from dataset.pose.network import ARCHITECTURES, build_hrnet
from dataset.pose.precision import Tried, has_bfloat16


def load_estimator(model: PoseModel, flip: bool = False, dark: bool = False) -> Estimator:
    """MODEL ready to be asked; published weights are fetched, checked and converted once.

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
    folded = build_hrnet(architecture, model.size, joints, folded=True)
    fold(network, folded)
    answering: keras.Model | Tried = folded
    if has_bfloat16():

        def twin() -> keras.Model:
            other = build_hrnet(architecture, model.size, joints, True, "bfloat16")
            fold(network, other)
            return other

        answering = Tried(folded, twin, model.gate)
    return Estimator(answering, model.joints, model.size, model.gate, flip or model.flip, dark)


def _weights_file(model: PoseModel) -> Path:
    """Where MODEL's weights are; a .pth file is only named where none was made of it before."""
    weights = model.weights
    if weights is not None and weights.suffix != ".pth":
        return weights
    if (converted := _converted(model)).is_file():
        return converted
    if weights is None:
        assert model.published is not None
        return fetched(model.published, cache_folder(), "name your own file: --pose-weights PATH")
    return weights


def _converted(model: PoseModel) -> Path:
    """Keras' own file of what MODEL's .pth file holds, which is read in less time."""
    return cache_folder() / f"{key_of(model).replace(':', '-')}{SUFFIX}"


def _keep(network: keras.Model, converted: Path) -> None:
    try:
        converted.parent.mkdir(parents=True, exist_ok=True)
        save_weights(network, converted)
    except OSError as error:
        raise Failure(f"{converted} can't be written: {error.strerror or error}") from error
