"""Small drawn splits, a backbone with random weights, and commands as a user types them."""

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
# The program with a short backbone in another process, which finds its module by ENVIRONMENT.
SHORT = (sys.executable, "-m", "tests.support.short_inception")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PROGRAM.parent)}
COUNTS = {"train": 12, "validation": 4, "test": 6}


def draw_splits(
    folder: Path, colours: Mapping[str, str], counts: Mapping[str, int] = COUNTS
) -> Path:
    """Draw splits: a rectangle of the label's colour, at a different position in each photo."""
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
    """Save random weights of an Inception-v3; its features still depend on the colour."""
    keras.utils.set_random_seed(0)
    keras.applications.InceptionV3(
        weights=None, include_top=False, input_shape=(75, 75, 3)
    ).save_weights(path)
    return path


def arguments(folder: Path, *words: str, command: str = "train-model") -> list[str]:
    """Return the arguments of a command for small photos, with its cache in a folder."""
    # Drawn photos of a label are nearly equal.
    more = ["--allow-leaks"] if command in ("train-model", "compare") else []
    return [command, "--image-size", "75", "--cache", str(folder / "cache"), *more, *words]


def run(
    folder: Path, *words: str, command: str = "train-model"
) -> subprocess.CompletedProcess[str]:
    """Run a command with `arguments` in a folder, in this process, which has imported Keras."""
    return run_words(folder, *arguments(folder, *words, command=command))


def run_words(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `fashion-tagger` in a folder, in this process.

    Raises:
        Exception: What a user would see as a traceback.
    """
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner().invoke(fashion_tagger.main, words, catch_exceptions=False)
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
