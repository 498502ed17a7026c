"""Rules of the project's structure that no linter checks."""

import configparser
import subprocess
from pathlib import Path

import pytest

import fashion_tagger

ROOT = Path(fashion_tagger.__file__).parent
SOURCES = [
    path
    for package in ("scraper", "dataset", "model", "migrations")
    for path in sorted((ROOT / package).rglob("*.py"))
]


def test_console_scripts_match_the_commands() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["options.entry_points"]["console_scripts"].strip().splitlines()
    scripts = {line.partition(" =")[0] for line in lines}
    # `compare` is a command of ImageMagick.
    assert scripts == {*fashion_tagger.COMMANDS, "fashion-tagger"} - {"compare"}


def test_no_package_imports_the_command_line_entry_point() -> None:
    # Import-linter's contracts cover packages, and the entry point is a module.
    for path in SOURCES:
        assert "fashion_tagger" not in path.read_text(encoding="utf-8"), path


def test_no_image_catalogue_or_model_is_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    binaries = [f for f in files if f.endswith((".jpg", ".jpeg", ".sqlite", ".h5", ".keras"))]
    # The bundled pose network: at most 8 MB, see tests/dataset/pose/test_models.py.
    assert binaries == ["dataset/pose/weights/hrnet-small.weights.h5"]
