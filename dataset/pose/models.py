"""Pose models as data: joint sets, and the networks that `models.toml` lists.

The command line imports this module for `--help`, so it imports nothing heavy.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from dataset.utils.downloads import PublishedFile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
DEFAULT = "hrnet-small"
# Heat maps have a quarter of the input's sides: two convolutions of the stem halve them.
STRIDE = 4
# Masks have half of the input's sides.
MASK_STRIDE = 2
# How far a person's box may extend beyond a view on each side, relative to the view.
BOX_REACH = 0.25
# Suffix of Keras weights files.
SUFFIX = ".weights.h5"
# Score below which the published networks' own tools, and those of mmpose, drop a joint.
GATE = 0.2
# Standard deviations of annotations relative to the person's size, from COCO's cocoeval.py.
COCO_SIGMAS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
# For joints that COCO does not have, such as neck and head top: the value of its shoulders.
OTHER_SIGMA = 0.079
# Prefixes of joint names on the left and on the right side.
SIDE_PREFIXES = (("left", "right"), ("l_", "r_"))


@dataclass(frozen=True)
class JointSet:
    """The joints that a network finds.

    Attributes:
        names: Names of the joints.
        bones: Pairs of joint indices that are connected by a bone, for drawings.
    """

    names: tuple[str, ...]
    bones: tuple[tuple[int, int], ...] = ()

    @property
    def mirrored(self) -> "np.ndarray":
        """Return the index of each joint's mirror image, an int array of shape (joints,)."""
        import numpy as np

        return np.array([self.names.index(_other_side(name, self.names)) for name in self.names])

    @property
    def sigmas(self) -> "np.ndarray":
        """Return the standard deviations for OKS relative to the person's size, (joints,)."""
        import numpy as np

        return np.array([_sigma(name) for name in self.names])


def _other_side(name: str, names: Sequence[str]) -> str:
    for left, right in SIDE_PREFIXES:
        for prefix, opposite in ((left, right), (right, left)):
            mirrored = opposite + name[len(prefix) :]
            if name.startswith(prefix) and mirrored in names:
                return mirrored
    return name


def _sigma(name: str) -> float:
    return next((s for part, s in COCO_SIGMAS.items() if name.endswith(part)), OTHER_SIGMA)


COCO = JointSet(
    (
        "nose",
        *(f"{side}_{part}" for part in ("eye", "ear") for side in ("left", "right")),
        *(
            f"{side}_{part}"
            for part in ("shoulder", "elbow", "wrist")
            for side in ("left", "right")
        ),
        *(f"{side}_{part}" for part in ("hip", "knee", "ankle") for side in ("left", "right")),
    ),
    (
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7)),
        *((6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    ),
)


@cache
def model_entries() -> dict[str, dict[str, Any]]:
    """Return model name -> its table in `models.toml`."""
    return tomllib.loads((HERE / "models.toml").read_text(encoding="utf-8"))


def model_names() -> tuple[str, ...]:
    """Return the names that `--pose` takes."""
    return tuple(model_entries())


def architecture_names() -> tuple[str, ...]:
    """Return the names of the networks that `train-pose` can train."""
    return tuple(dict.fromkeys(entry["architecture"] for entry in model_entries().values()))


@dataclass(frozen=True)
class PoseModel:
    """A pose network as data.

    Attributes:
        name: Name of the model, as `--pose` takes it.
        architecture: Name of the network, a key of `dataset.pose.network.ARCHITECTURES`.
        joints: The joints that the network finds.
        size: Height and width of the network's input in pixels.
        gate: Score below which a key point does not count.
        min_score: Mean score of the key points that a person has at least; 0: any.
        flip: Whether predictions are averaged with those of the mirrored view.
        has_mask: Whether the network finds the person's mask, too.
        has_box: Whether the network finds the person's box, too.
        weights: Weights file on this machine; None for `published` weights.
        published: The published weights file, if there is one.
    """

    name: str
    architecture: str
    joints: JointSet
    size: tuple[int, int]
    gate: float = GATE
    min_score: float = 0.0
    flip: bool = False
    has_mask: bool = False
    has_box: bool = False
    weights: Path | None = None
    published: "PublishedFile | None" = None


def find_model(name: str, weights: Path | None = None) -> PoseModel:
    """Return a model with its own weights or those of a file.

    Args:
        name: Name of a model in `models.toml`.
        weights: The user's weights file: `.weights.h5` of `train-pose` with its `.json` beside
            it, or a `.pth` file of the published network.

    Raises:
        BadInput: The weights file does not exist, or its description can't be read.
    """
    from dataset.utils.downloads import PublishedFile

    entry = model_entries()[name]
    if weights is None and "weights" in entry:
        return read_description(name, HERE / entry["weights"])
    if weights is not None and not weights.is_file():
        raise BadInput(f"--pose-weights {weights}: no such file")
    if weights is not None and description_path(weights).is_file():
        return read_description(name, weights)
    if "url" not in entry:
        assert weights is not None
        published = " or ".join(n for n, e in model_entries().items() if "url" in e)
        trained = (
            f"{description_path(weights)} is missing; keep both files of train-pose together, or "
        )
        raise BadInput(
            f"--pose-weights {weights}: {'' if weights.suffix == '.pth' else trained}name the"
            f" published network of these weights: --pose {published}"
        )
    file = PublishedFile(entry["url"].rpartition("/")[2], entry["url"], entry["digest"])
    size = (entry["size"][0], entry["size"][1])
    return PoseModel(name, entry["architecture"], COCO, size, weights=weights, published=file)


def description_path(weights: Path) -> Path:
    """Return the path of the JSON file that describes a weights file."""
    return weights.with_name(weights.name.removesuffix(SUFFIX) + ".json")


def read_description(name: str, weights: Path) -> PoseModel:
    """Return the model that the JSON file beside a weights file describes.

    Raises:
        BadInput: The JSON file is broken.
    """
    path = description_path(weights)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        joints = JointSet(
            tuple(description["joints"]), tuple((a, b) for a, b in description["bones"])
        )
        height, width = description["size"]
        architecture, gate = description["architecture"], float(description["gate"])
        min_score, flip = float(description.get("min_score", 0)), bool(description.get("flip"))
        heads = bool(description.get("mask")), bool(description.get("box"))
        if architecture not in architecture_names():
            raise ValueError(f"unknown architecture {architecture!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} does not describe a pose network: {error}") from error
    size = (height, width)
    return PoseModel(name, architecture, joints, size, gate, min_score, flip, *heads, weights)


def cache_folder() -> Path:
    """Return the folder for downloaded files, below XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "fashion-tagger"


# Version of how a network with a box head is applied to images.
BOX_PASSES_VERSION = 3


def cache_key(model: PoseModel) -> str:
    """Return a key that changes whenever the model's estimates would change."""
    from dataset.utils.downloads import file_digest

    if model.weights is None:
        assert model.published is not None
        digest = model.published.digest
    else:
        digest = file_digest(model.weights, f"sha256:{'0' * 16}")
    passes = f"+passes{BOX_PASSES_VERSION}" if model.has_box else ""
    return f"{model.name}:{digest.partition(':')[2]}{'+flip' if model.flip else ''}{passes}"
