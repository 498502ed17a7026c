"""Small drawn splits, a backbone of random weights, and commands as a user types them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import keras
from click.testing import CliRunner
from PIL import Image, ImageDraw

import fashion_tagger

PROGRAM = Path(fashion_tagger.__file__)
# The program with a short backbone, in a process of its own, which finds its module by ENVIRONMENT.
SHORT = (sys.executable, "-m", "tests.support.short_inception")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PROGRAM.parent)}
COUNTS = {"train": 12, "validation": 4, "test": 6}


def draw_splits(
    folder: Path, colours: Mapping[str, str], counts: Mapping[str, int] = COUNTS
) -> Path:
    """FOLDER with a square of each label's colour in another place on each photo."""
    for split, count in counts.items():
        for label, colour in colours.items():
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                photo = Image.new("RGB", (90, 120), "white")
                box = (10 + number, 10, 60 + number, 100)
                ImageDraw.Draw(photo).rectangle(box, fill=colour)
                photo.save(folder / split / label / f"{number}.png")
    return folder


def random_backbone(path: Path) -> Path:
    """Weights of an Inception-v3 that has learned nothing: its outputs still differ by colour."""
    keras.utils.set_random_seed(0)
    keras.applications.InceptionV3(
        weights=None, include_top=False, input_shape=(75, 75, 3)
    ).save_weights(path)
    return path


def asked(folder: Path, *words: str, door: str = "train-model") -> list[str]:
    """The command DOOR with WORDS, for small photos, its cache below FOLDER."""
    return [door, "--image-size", "75", "--cache", str(folder / "cache"), *words]


def run(folder: Path, *words: str, door: str = "train-model") -> subprocess.CompletedProcess[str]:
    """What `asked` says when it is run in FOLDER, within this process: it has Keras already."""
    return said(folder, *asked(folder, *words, door=door))


def said(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What the command of WORDS says in FOLDER, by the one door, within this process.

    Raises:
        Whatever a user would see as a traceback.
    """
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner().invoke(fashion_tagger.main, words, catch_exceptions=False)
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
