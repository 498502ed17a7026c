"""Tests of the wheel, installed in a virtual environment outside the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fashion_tagger

# Building and installing the wheel takes longer than the tests.
pytestmark = pytest.mark.slow
ROOT = Path(fashion_tagger.__file__).parent
PARTS = ("scraper", "dataset", "model", "migrations", "fashion_tagger.py", "setup.cfg",
         "pyproject.toml", "README.md", "LICENSE")  # fmt: skip


def call(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the scripts folder of an environment with the wheel and the libraries used here."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / "source" / part)
        else:
            shutil.copy(ROOT / part, folder / "source")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    call(
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        folder / "source",
        cwd=folder,
    )
    call(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    call(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (libraries,) = (folder / "env" / "lib").glob("python*/site-packages")
    (libraries / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.rmtree(folder / "source")
    return python.parent


# Runs scripts with their arguments, one line each, in one process.
RUN_SCRIPTS = """
import contextlib, runpy, sys
for line in sys.argv[1:]:
    sys.argv = line.split()
    with contextlib.suppress(SystemExit):
        runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_every_command_is_installed_and_has_help(installed: Path, tmp_path: Path) -> None:
    # The bare `compare` is a command of ImageMagick.
    scripts = [name for name in fashion_tagger.COMMANDS if name != "compare"]
    subcommands = [f"fashion-tagger {name}" for name in fashion_tagger.COMMANDS]
    lines = [f"{installed}/{words} --help" for words in (*scripts, *subcommands)]
    output = call(installed / "python", "-c", RUN_SCRIPTS, *lines, cwd=tmp_path)
    for words in (*scripts, *subcommands):
        assert f"Usage: {words} " in output
    assert "Usage: " in call(installed / "crawl", "--help", cwd=tmp_path)
    assert str(installed.parent) in call(
        installed / "python", "-c", "import fashion_tagger; print(fashion_tagger.__file__)",
        cwd=tmp_path,
    )  # fmt: skip


def test_catalogue_and_crawl_commands_work(installed: Path, tmp_path: Path) -> None:
    code = "from dataset.catalogue.session import open_catalogue as o; o('catalogue.sqlite')"
    call(installed / "python", "-c", code, cwd=tmp_path)
    assert "the catalogue is empty" in call(installed / "catalogue", "stats", cwd=tmp_path)
    assert "lamoda" in call(installed / "crawl", "--list", cwd=tmp_path)


def test_pose_network_is_included(installed: Path, tmp_path: Path) -> None:
    code = "import dataset.pose.models as m; print(m.cache_key(m.find_model('hrnet-small')))"
    assert call(installed / "python", "-c", code, cwd=tmp_path).startswith("hrnet-small:")
