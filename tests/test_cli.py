"""Tests of the entry point: fast and complete `--help`, and imports of this project only."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

import fashion_tagger

ROOT = Path(fashion_tagger.__file__).parent
HEAVY = (
    "tensorflow",
    "keras",
    "scrapy",
    "twisted",
    "sqlalchemy",
    "alembic",
    "PIL",
    "numpy",
    "jinja2",
    "starlette",
    "uvicorn",
)
NOT_NEEDED = (
    "tensorflow",
    "keras",
    "cv2",
    "scipy",
    "sklearn",
    "pyarrow",
    "dataset.selection.planning",
)
COMMANDS = [
    [],
    *([name] for name in fashion_tagger.COMMANDS),
    ["catalogue", "stats"],
]


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "fashion_tagger.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_ends_with_an_example_and_imports_no_heavy_library(command: list[str]) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "import fashion_tagger\n"
        "try: fashion_tagger.main()\n"
        f"finally: print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), *command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0
    *lines, heavy = process.stdout.strip().splitlines()
    assert lines[-1].strip().startswith("Example: ")
    assert heavy == "heavy: []"


@pytest.mark.parametrize(
    ("modules", "not_needed"),
    [
        ("scraper.crawl, scraper.fetch", NOT_NEEDED),
        ("dataset.build, dataset.review.server", ("tensorflow", "keras", "sklearn")),
        # Keras is imported by `keras_backend.import_backend`, which silences its messages.
        (
            "model.similar.output, model.similar.query, model.tagging.pipeline",
            ("tensorflow", "keras"),
        ),
    ],
)
def test_commands_import_only_what_they_need(modules: str, not_needed: tuple[str, ...]) -> None:
    code = (
        f"import sys; sys.path.insert(0, sys.argv[1]); import {modules};"
        f"print([m for m in {not_needed!r} if m in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


def all_commands() -> dict[str, click.Command]:
    """Return each command and sub-command by its full name."""
    commands: dict[str, click.Command] = {}
    for name in fashion_tagger.COMMANDS:
        command = fashion_tagger._command(name)
        commands[name] = command
        if isinstance(command, click.Group):
            commands |= {f"{name} {sub}": below for sub, below in command.commands.items()}
    return commands


@pytest.mark.parametrize("name", all_commands())
def test_every_option_has_help(name: str) -> None:
    for parameter in all_commands()[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_unknown_command_is_a_usage_error() -> None:
    assert run("crawll").returncode == 2


def test_name_conflict_with_another_package_is_reported(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "__init__.py").write_text("stranger = True\n")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; "
    code += "import fashion_tagger; fashion_tagger.build_dataset()"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert process.returncode == 1
    assert str(tmp_path / "dataset") in process.stderr
    assert "pip uninstall dataset" in process.stderr
    assert "Traceback" not in process.stderr
