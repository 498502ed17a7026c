"""HRNet for key points, in built-in Keras layers, each named as in the published checkpoints.

Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019;
Wang et al., TPAMI 2020; https://github.com/leoxiaobin/deep-high-resolution-net.pytorch (MIT).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

EPSILON = 1e-5
EXPANSION = 4
# A heat map's side is a quarter of the photo's: two convolutions of the stem halve it.
STRIDE = 4
# As published; a map that starts far from 0 costs epochs to flatten.
SMALL = 0.001


@dataclass(frozen=True)
class Architecture:
    """What makes one HRNet differ from another.

    `stem`: channels of its two convolutions. `first`: blocks and inner channels of the first stage,
    whose bottlenecks give four times as many. `modules`: exchange units in stages 2, 3 and 4.
    `blocks`: basic blocks a branch and unit. `channels`: of the four branches.
    """

    stem: tuple[int, int]
    first: tuple[int, int]
    modules: tuple[int, int, int]
    blocks: int
    channels: tuple[int, int, int, int]


def _published(width: int) -> Architecture:
    return Architecture((64, 64), (4, 64), (1, 4, 3), 4, (width, 2 * width, 4 * width, 8 * width))


ARCHITECTURES = {
    "hrnet-w32": _published(32),
    "hrnet-w48": _published(48),
    # Ours: as many branches, fewer channels where the maps are large.
    "hrnet-small": Architecture((32, 32), (2, 16), (1, 2, 2), 2, (16, 32, 64, 128)),
}


def keras_name(name: str) -> str:
    """NAME of a published layer as Keras can have it: its torch backend takes no dots."""
    return name.replace(".", "-")


def published_name(name: str) -> str:
    """The published name of the Keras layer NAME."""
    return name.replace("-", ".")


# What the layers compute in; their weights, and the heat maps, are float32 in both.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def build_hrnet(
    architecture: Architecture,
    size: tuple[int, int],
    joints: int,
    folded: bool = False,
    precision: str = "float32",
) -> keras.Model:
    """The network: photos (batch, *SIZE, 3), normalised, to heat maps (batch, *maps, JOINTS).

    SIZE is height and width in pixels; a map has a quarter of each, rounded up. FOLDED: every batch
    norm is part of the convolution before it, for use and not for training. PRECISION: one of
    PRECISIONS.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS[precision])
    try:
        return _build(_Layers(folded), architecture, size, joints)
    finally:
        keras.config.set_dtype_policy(before)


def _build(
    net: "_Layers", architecture: Architecture, size: tuple[int, int], joints: int
) -> keras.Model:
    photos = keras.Input((*size, 3), name="photos")
    x = net.conv(photos, architecture.stem[0], 3, 2, "conv1", "bn1", relu=True)
    x = net.conv(x, architecture.stem[1], 3, 2, "conv2", "bn2", relu=True)
    blocks, inner = architecture.first
    for block in range(blocks):
        x = net.bottleneck(x, inner, f"layer1.{block}")
    branches = [x]
    for stage, modules in enumerate(architecture.modules, start=2):
        channels = architecture.channels[:stage]
        branches = _transition(net, branches, channels, f"transition{stage - 1}")
        for module in range(modules):
            # Only the finest branch is read at the end.
            outputs = 1 if stage == 4 and module == modules - 1 else stage
            name = f"stage{stage}.{module}"
            branches = _exchange_unit(net, branches, architecture.blocks, outputs, name)
    # Made here, so that it heeds a seed that was set before.
    small = keras.initializers.RandomNormal(stddev=SMALL)
    maps = layers.Conv2D(joints, 1, kernel_initializer=small, dtype="float32", name="final_layer")(
        branches[0]
    )
    return keras.Model(photos, maps, name="hrnet")


def _transition(
    net: "_Layers", branches: Sequence[Any], channels: Sequence[int], name: str
) -> list[Any]:
    """As many branches as CHANNELS: each with its channels, new ones from the coarsest, halved."""
    result = []
    for i, width in enumerate(channels):
        if i < len(branches):
            x = branches[i]
            if x.shape[-1] != width:
                x = net.conv(x, width, 3, 1, f"{name}.{i}.0", f"{name}.{i}.1", relu=True)
        else:
            x = branches[-1]
            steps = i + 1 - len(branches)
            for k in range(steps):
                out = width if k == steps - 1 else int(x.shape[-1])
                x = net.conv(x, out, 3, 2, f"{name}.{i}.{k}.0", f"{name}.{i}.{k}.1", relu=True)
        result.append(x)
    return result


def _exchange_unit(
    net: "_Layers", branches: Sequence[Any], blocks: int, outputs: int, name: str
) -> list[Any]:
    """Basic blocks on every branch, then each of the first OUTPUTS is a sum over all of them."""
    branches = list(branches)
    for i, branch in enumerate(branches):
        x = branch
        for block in range(blocks):
            x = net.basic(x, f"{name}.branches.{i}.{block}")
        branches[i] = x
    fused = []
    for i in range(outputs):
        terms = [
            _resized(net, x, branches[i], i, j, f"{name}.fuse_layers.{i}.{j}")
            for j, x in enumerate(branches)
        ]
        total = terms[0]
        for term in terms[1:]:
            total = layers.Add()([total, term])
        fused.append(
            layers.Activation("relu", name=keras_name(f"{name}.fuse_layers.{i}.relu"))(total)
        )
    return fused


def _resized(net: "_Layers", x: Any, like: Any, i: int, j: int, name: str) -> Any:
    """Branch J as a term of branch I: brought to its channels and its size."""
    width = int(like.shape[-1])
    for k in range(i - j):
        last = k == i - j - 1
        out = width if last else int(x.shape[-1])
        x = net.conv(x, out, 3, 2, f"{name}.{k}.0", f"{name}.{k}.1", relu=not last)
    if j > i:
        x = net.conv(x, width, 1, 1, f"{name}.0", f"{name}.1", relu=False)
        x = layers.UpSampling2D(2 ** (j - i), interpolation="nearest")(x)
        extra = [int(x.shape[axis] - like.shape[axis]) for axis in (1, 2)]
        if any(extra):
            # A size that 32 doesn't divide was rounded up on the way down.
            x = layers.Cropping2D(((0, extra[0]), (0, extra[1])))(x)
    return x


@dataclass(frozen=True)
class _Layers:
    """The blocks of He et al. (CVPR 2016), with batch norms apart or folded."""

    folded: bool

    def conv(
        self, x: Any, channels: int, side: int, stride: int, name: str, norm: str, relu: bool
    ) -> Any:
        """Convolution NAME, its batch norm NORM, and a ReLU or none."""
        padding = "same"
        if stride == 2:
            # "same" pads an even side at its end only; the published networks pad both ends.
            x, padding = layers.ZeroPadding2D(1)(x), "valid"
        x = layers.Conv2D(
            channels,
            side,
            stride,
            padding,
            use_bias=self.folded,
            kernel_initializer="he_normal",
            name=keras_name(name),
        )(x)
        if not self.folded:
            x = layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, name=keras_name(norm))(x)
        return layers.Activation("relu", name=keras_name(f"{name}.relu"))(x) if relu else x

    def basic(self, x: Any, name: str) -> Any:
        """Two 3x3 convolutions beside a short cut."""
        channels = int(x.shape[-1])
        y = self.conv(x, channels, 3, 1, f"{name}.conv1", f"{name}.bn1", relu=True)
        y = self.conv(y, channels, 3, 1, f"{name}.conv2", f"{name}.bn2", relu=False)
        return self._join(y, x, name)

    def bottleneck(self, x: Any, inner: int, name: str) -> Any:
        """1x1, 3x3, 1x1 beside a short cut, which has a convolution where channels differ."""
        outer = EXPANSION * inner
        y = self.conv(x, inner, 1, 1, f"{name}.conv1", f"{name}.bn1", relu=True)
        y = self.conv(y, inner, 3, 1, f"{name}.conv2", f"{name}.bn2", relu=True)
        y = self.conv(y, outer, 1, 1, f"{name}.conv3", f"{name}.bn3", relu=False)
        if x.shape[-1] != outer:
            short = f"{name}.downsample"
            x = self.conv(x, outer, 1, 1, f"{short}.0", f"{short}.1", relu=False)
        return self._join(y, x, name)

    def _join(self, y: Any, x: Any, name: str) -> Any:
        return layers.Activation("relu", name=keras_name(f"{name}.relu"))(layers.Add()([y, x]))
