"""HRNet for key points, person masks and person boxes, in built-in Keras layers.

Its layers are named as in the published checkpoints, which have neither mask head nor box head.

Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019;
Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", TPAMI 2020;
https://github.com/leoxiaobin/deep-high-resolution-net.pytorch (MIT).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from dataset.pose.models import BOX_REACH

EPSILON = 1e-5
EXPANSION = 4
# As published: heat maps that start far from 0 take epochs to flatten.
HEAD_STDDEV = 0.001
# Channels of the mask head, and those that it reads from the stem's first convolution.
MASK_CHANNELS, MASK_STEM_CHANNELS = 24, 8
# Channels of the box head: of its map, and of the lines that it pools the map to.
BOX_CHANNELS, LINE_CHANNELS = 32, 64
# Lengths of the convolutions along a line.
LINE_KERNELS = 3, 9, 9
# The exchange unit of the mask, beside those of the key points in stage 4.
MASK_UNIT, KEY_POINT_UNIT = "stage4.mask", "stage4.0"


@dataclass(frozen=True)
class Architecture:
    """The sizes of an HRNet.

    Attributes:
        stem: Channels of the two convolutions of the stem.
        first: Number of blocks and inner channels of the first stage, whose bottlenecks have four
            times as many outputs.
        modules: Exchange units in stages 2, 3 and 4.
        blocks: Basic blocks per branch and unit.
        channels: Channels of the four branches.
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
    # This project's own: the same branches with fewer channels at high resolutions.
    "hrnet-small": Architecture((32, 32), (2, 16), (1, 2, 2), 2, (16, 32, 64, 128)),
}


def keras_name(name: str) -> str:
    """Return a Keras layer name for a published name: Keras' torch backend allows no dots."""
    return name.replace(".", "-")


def is_mask_layer(name: str) -> bool:
    """Return whether a Keras layer of this name serves the mask only."""
    return published_name(name).startswith(("mask", MASK_UNIT))


def is_box_layer(name: str) -> bool:
    """Return whether a Keras layer of this name serves the box only."""
    return published_name(name).startswith("box")


def published_name(name: str) -> str:
    """Return the published name of a Keras layer."""
    return name.replace("-", ".")


# Precision of the layers -> Keras' dtype policy. Weights and heat maps are float32.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def build_hrnet(
    architecture: Architecture,
    size: tuple[int, int],
    joints: int,
    folded: bool = False,
    precision: str = "float32",
    mask: bool = False,
    box: bool = False,
) -> keras.Model:
    """Build an HRNet.

    Args:
        architecture: Sizes of the network.
        size: Height and width of the input in pixels.
        joints: Number of joints.
        folded: Whether batch normalization is folded into the convolutions, for inference.
        precision: A key of `PRECISIONS`.
        mask: Whether the network has a mask head.
        box: Whether it has a box head beside the mask head.

    Returns:
        A model from normalized images (batch, height, width, 3) to heat maps (batch, map height,
        map width, joints), whose sides are a quarter of the input's, rounded up. With a mask head
        it returns a list: heat maps, and logits of the person's mask (batch, mask height, mask
        width), whose sides are half of the input's, rounded up. With a box head the list also has
        the person's box (batch, 4): left, top, right and bottom, relative to the view.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS[precision])
    try:
        return _build(_Layers(folded), architecture, size, joints, mask, box)
    finally:
        keras.config.set_dtype_policy(before)


def _build(
    net: "_Layers",
    architecture: Architecture,
    size: tuple[int, int],
    joints: int,
    mask: bool,
    box: bool,
) -> keras.Model:
    photos = keras.Input((*size, 3), name="photos")
    stem = net.conv(photos, architecture.stem[0], 3, 2, "conv1", "bn1", relu=True)
    x = net.conv(stem, architecture.stem[1], 3, 2, "conv2", "bn2", relu=True)
    blocks, inner = architecture.first
    for block in range(blocks):
        x = net.bottleneck(x, inner, f"layer1.{block}")
    branches = [x]
    for stage, modules in enumerate(architecture.modules, start=2):
        channels = architecture.channels[:stage]
        branches = _transition(net, branches, channels, f"transition{stage - 1}")
        shared = branches
        for module in range(modules):
            # The head of the key points reads the finest branch only.
            outputs = 1 if stage == 4 and module == modules - 1 else stage
            before = branches
            name = f"stage{stage}.{module}"
            branches = _blocks(net, branches, architecture.blocks, name)
            branches = _fuse(net, branches, outputs, name)
    # Created here, so that a seed that was set before applies.
    small = keras.initializers.RandomNormal(stddev=HEAD_STDDEV)
    maps = layers.Conv2D(joints, 1, kernel_initializer=small, dtype="float32", name="final_layer")(
        branches[0]
    )
    if not mask:
        return keras.Model(photos, maps, name="hrnet")
    # The mask has a last unit of its own: sharing that of the key points costs both accuracy.
    unfused = _blocks(net, shared, architecture.blocks, MASK_UNIT)
    finest = _fuse(net, unfused, 1, MASK_UNIT)
    logits = _mask_head(net, [*finest, *unfused[1:]], stem)
    if not box:
        return keras.Model(photos, [maps, logits], name="hrnet")
    boxes = _box_head(net, maps, logits, [branches, before, [*finest, *unfused[1:]]])
    return keras.Model(photos, [maps, logits, boxes], name="hrnet")


def _mask_head(net: "_Layers", branches: Sequence[Any], stem: Any) -> Any:
    """Return the logits of the mask from all branches, as HRNetV2 segments, and from the stem.

    The stem has twice the sides of the finest branch, which the edges of a mask need.
    """
    finest = branches[0]
    coarser = enumerate(branches[1:], start=1)
    x = layers.Concatenate()([finest, *(_enlarge(x, finest, 2**i) for i, x in coarser)])
    x = net.conv(x, MASK_CHANNELS, 1, 1, "mask_context", "mask_context_bn", relu=True)
    edges = net.conv(stem, MASK_STEM_CHANNELS, 1, 1, "mask_edges", "mask_edges_bn", relu=True)
    x = layers.Concatenate()([_enlarge(x, edges, 2), edges])
    x = net.conv(x, MASK_CHANNELS, 3, 1, "mask_join", "mask_join_bn", relu=True)
    small = keras.initializers.RandomNormal(stddev=HEAD_STDDEV)
    x = layers.Conv2D(1, 3, padding="same", kernel_initializer=small, dtype="float32", name="mask")(
        x
    )
    return layers.Reshape(x.shape[1:3], dtype="float32")(x)


def _box_head(net: "_Layers", maps: Any, logits: Any, units: Sequence[Sequence[Any]]) -> Any:
    """Return the person's box from heat maps, the logits of the mask, and the branches of units.

    A map is pooled along its columns and along its rows. Each side of the box is the expectation of
    a distribution over the places on such a line, as integral regression finds key points (Sun et
    al., "Integral Human Pose Regression", ECCV 2018).
    """
    mask = layers.Activation("sigmoid")(layers.Reshape((*logits.shape[1:], 1))(logits))
    mask = layers.AveragePooling2D(2, padding="same")(mask)
    enlarged = (_enlarge(x, maps, 2**i) for branches in units for i, x in enumerate(branches))
    x = layers.Concatenate()([maps, mask, *enlarged])
    x = net.conv(x, BOX_CHANNELS, 1, 1, "box_context", "box_context_bn", relu=True)
    y = net.conv(x, BOX_CHANNELS, 3, 1, "box_join", "box_join_bn", relu=True)
    x = layers.Concatenate()([x, y, maps, mask])
    ends = [_line_ends(net, x, 1, "box_across"), _line_ends(net, x, 0, "box_down")]
    # (batch, 2, 2): of each end its place across and down.
    return layers.Reshape((4,), dtype="float32")(keras.ops.stack(ends, axis=-1))


def _line_ends(net: "_Layers", x: Any, axis: int, name: str) -> Any:
    """Return the first and the last place of the person along rows (axis 0) or columns (axis 1).

    Returns:
        A tensor (batch, 2), relative to the view.
    """
    sides = x.shape[1:3]

    def along(length: int, other: int = 1) -> tuple[int, int]:
        return (other, length) if axis else (length, other)

    across = along(1, sides[1 - axis])
    whole = layers.UpSampling2D(along(sides[axis]))(layers.AveragePooling2D(sides)(x))
    line = layers.Concatenate()(
        [layers.MaxPooling2D(across)(x), layers.AveragePooling2D(across)(x), whole]
    )
    reach = round(BOX_REACH * sides[axis])
    line = layers.ZeroPadding2D(along(reach, 0))(line)
    for number, kernel in enumerate(LINE_KERNELS):
        part = f"{name}{number}"
        line = net.conv(line, LINE_CHANNELS, along(kernel), 1, part, f"{part}_bn", relu=True)
    line = layers.Conv2D(2, 1, dtype="float32", name=name)(line)
    line = layers.Reshape((sides[axis] + 2 * reach, 2), dtype="float32")(line)
    places = (np.arange(line.shape[1], dtype=np.float32) + 0.5 - reach) / sides[axis]
    return keras.ops.sum(layers.Softmax(1, dtype="float32")(line) * places[:, None], axis=1)


def _transition(
    net: "_Layers", branches: Sequence[Any], channels: Sequence[int], name: str
) -> list[Any]:
    """Return one branch for each number of channels; new ones are made from the coarsest branch."""
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


def _blocks(net: "_Layers", branches: Sequence[Any], blocks: int, name: str) -> list[Any]:
    """Apply basic blocks to every branch."""
    branches = list(branches)
    for i, branch in enumerate(branches):
        x = branch
        for block in range(blocks):
            x = net.basic(x, f"{name}.branches.{i}.{block}")
        branches[i] = x
    return branches


def _fuse(net: "_Layers", branches: Sequence[Any], outputs: int, name: str) -> list[Any]:
    """Fuse all branches into each of the first outputs."""
    fused = []
    for i in range(outputs):
        terms = [
            _resample(net, x, branches[i], i, j, f"{name}.fuse_layers.{i}.{j}")
            for j, x in enumerate(branches)
        ]
        total = terms[0]
        for term in terms[1:]:
            total = layers.Add()([total, term])
        fused.append(
            layers.Activation("relu", name=keras_name(f"{name}.fuse_layers.{i}.relu"))(total)
        )
    return fused


def _resample(net: "_Layers", x: Any, like: Any, i: int, j: int, name: str) -> Any:
    """Return a branch j with the channels and the size of branch i."""
    width = int(like.shape[-1])
    for k in range(i - j):
        last = k == i - j - 1
        out = width if last else int(x.shape[-1])
        x = net.conv(x, out, 3, 2, f"{name}.{k}.0", f"{name}.{k}.1", relu=not last)
    if j > i:
        x = net.conv(x, width, 1, 1, f"{name}.0", f"{name}.1", relu=False)
        x = _enlarge(x, like, 2 ** (j - i))
    return x


def _enlarge(x: Any, like: Any, factor: int) -> Any:
    """Enlarge a branch to the size of a finer one."""
    x = layers.UpSampling2D(factor, interpolation="nearest")(x)
    extra = [int(x.shape[axis] - like.shape[axis]) for axis in (1, 2)]
    if any(extra):
        # Sides that 32 does not divide were rounded up by the downsampling.
        x = layers.Cropping2D(((0, extra[0]), (0, extra[1])))(x)
    return x


@dataclass(frozen=True)
class _Layers:
    """The blocks of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Attributes:
        folded: Whether batch normalization is folded into the convolutions.
    """

    folded: bool

    def conv(
        self,
        x: Any,
        channels: int,
        side: int | tuple[int, int],
        stride: int,
        name: str,
        norm: str,
        relu: bool,
    ) -> Any:
        """Apply a convolution, its batch normalization and, optionally, a ReLU."""
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
        """Apply two 3x3 convolutions with a shortcut."""
        channels = int(x.shape[-1])
        y = self.conv(x, channels, 3, 1, f"{name}.conv1", f"{name}.bn1", relu=True)
        y = self.conv(y, channels, 3, 1, f"{name}.conv2", f"{name}.bn2", relu=False)
        return self._join(y, x, name)

    def bottleneck(self, x: Any, inner: int, name: str) -> Any:
        """Apply 1x1, 3x3 and 1x1 convolutions with a shortcut."""
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
