"""The house's own rules, where a linter can't see them."""

import configparser
import subprocess
from pathlib import Path

import pytest

import fashion_tagger

ROOT = Path(fashion_tagger.__file__).parent
SOURCES = [
    path
    for room in ("scraper", "dataset", "model", "migrations")
    for path in sorted((ROOT / room).rglob("*.py"))
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_300_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_every_console_script_is_a_command_of_the_umbrella() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["options.entry_points"]["console_scripts"].strip().splitlines()
    scripts = {line.partition(" =")[0] for line in lines}
    # ImageMagick has a `compare`.
    assert scripts == {*fashion_tagger.COMMANDS, "fashion-tagger"} - {"compare"}


def test_inits_are_a_docstring_and_nothing_else() -> None:
    for path in SOURCES:
        if path.name == "__init__.py":
            assert path.read_text(encoding="utf-8").count("\n") == 1, path


def test_nothing_below_the_door_imports_it() -> None:
    # The door is a module, which import-linter's contracts can't name.
    for path in SOURCES:
        assert "fashion_tagger" not in path.read_text(encoding="utf-8"), path


def test_no_picture_or_catalogue_is_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    found = [f for f in files if f.endswith((".jpg", ".jpeg", ".sqlite", ".h5", ".keras"))]
    # The pose network that comes along: at most 8 MB, tests/dataset/pose/test_models.py.
    assert found == ["dataset/pose/weights/hrnet-small.weights.h5"]
