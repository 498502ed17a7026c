"""A pose model's weights, fetched and converted where needed, and the network ready to be asked."""

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
    architecture, joints = ARCHITECTURES[model.architecture], len(model.joints.names)
    network = build_hrnet(architecture, model.size, joints)
    _fill(network, model)
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


def _fill(network: keras.Model, model: PoseModel) -> None:
    """MODEL's weights into NETWORK; a .pth file is converted once, and Keras' own read after."""
    folder, weights = cache_folder(), model.weights
    if weights is not None and weights.suffix != ".pth":
        load_weights(network, weights)
        return
    converted = folder / f"{key_of(model).replace(':', '-')}{SUFFIX}"
    if converted.is_file():
        load_weights(network, converted)
        return
    if weights is None:
        assert model.published is not None
        weights = fetched(model.published, folder, "name your own file: --pose-weights PATH")
    load_weights(network, weights)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(network, converted)
    except OSError as error:
        raise Failure(f"{converted} can't be written: {error.strerror or error}") from error
