"""Entry point of all commands.

Each command is a console script and a sub-command of `fashion-tagger`. Its module is imported when
the command is called, so that `--help` is fast.
"""

import contextlib
import importlib
import io
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

__version__ = "0.1.0"

# Command -> module and function.
COMMANDS = {
    "crawl": ("scraper.cli", "crawl"),
    "catalogue": ("dataset.maintenance.cli", "catalogue"),
    "build-dataset": ("dataset.cli", "build_dataset"),
    "review": ("dataset.cli", "review"),
    "train-pose": ("dataset.pose.cli", "train_pose"),
    "train-model": ("model.cli", "train_model"),
    "compare": ("model.cli", "compare_steps"),
    "check-tags": ("model.tag_check.cli", "check_tags"),
    "tag-photos": ("model.tagging.cli", "tag_photos"),
    "find-similar": ("model.similar.cli", "find_similar"),
    "serve-model": ("model.tagging.cli", "serve_model"),
    "export-model": ("model.cli", "export_model"),
    "fetch-photos": ("scraper.cli", "fetch_photos"),
    "sample-shop": ("scraper.cli", "sample_shop"),
}


def _command(name: str) -> click.Command:
    """Import a command from this project's packages."""
    if not sys.warnoptions:
        # Warnings of libraries are for developers, who use `python -W` or PYTHONWARNINGS.
        warnings.simplefilter("ignore")
    module_name, attribute = COMMANDS[name]
    package = module_name.partition(".")[0]
    _check_package_origin(package)
    return getattr(importlib.import_module(module_name), attribute)


def _check_package_origin(package: str) -> None:
    """Exit with a message if another distribution has a package of the same name."""
    ours = Path(__file__).resolve().parent / package
    path = importlib.import_module(package).__file__
    if path and Path(path).resolve().parent == ours and (ours / "cli.py").exists():
        return
    raise click.ClickException(
        f"the package {package!r} at {path} is not fashion-tagger's ({ours}). Another distribution"
        f" of that name hides it: uninstall it (pip uninstall {package}), or install"
        " fashion-tagger in a virtual environment of its own."
    )


class _LazyGroup(click.Group):
    def main(self, *args: Any, **options: Any) -> Any:
        _escape_unencodable_output()
        with _one_line_for_storage_errors():
            return super().main(*args, **options)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return _command(cmd_name) if cmd_name in COMMANDS else None


@click.group(
    cls=_LazyGroup,
    epilog="Example: fashion-tagger crawl lamoda --tags polo",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="fashion-tagger")
def main() -> None:
    """From a hashtag to a model that checks product tags.

    crawl collects photos, build-dataset makes splits, train-model trains a classifier, check-tags
    finds wrong tags.
    """


def _escape_unencodable_output() -> None:
    """Write characters that the terminal's encoding lacks as escapes, instead of ending."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _one_line_for_storage_errors() -> Iterator[None]:
    """Exit with one line if a disk is full, or a file or folder can't be written or read.

    Commands report what they expect with a remedy; this is for all other places.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        message = f"{lines[0]}; free disk space, or choose a path that is writable"
        click.ClickException(message).show()
        sys.exit(1)


def _run_script(name: str) -> None:
    _escape_unencodable_output()
    try:
        command = _command(name)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    with _one_line_for_storage_errors():
        command.main(prog_name=name)


def crawl() -> None:
    """Run the console script `crawl`."""
    _run_script("crawl")


def catalogue() -> None:
    """Run the console script `catalogue`."""
    _run_script("catalogue")


def build_dataset() -> None:
    """Run the console script `build-dataset`."""
    _run_script("build-dataset")


def review() -> None:
    """Run the console script `review`."""
    _run_script("review")


def train_pose() -> None:
    """Run the console script `train-pose`."""
    _run_script("train-pose")


def train_model() -> None:
    """Run the console script `train-model`."""
    _run_script("train-model")


def check_tags() -> None:
    """Run the console script `check-tags`."""
    _run_script("check-tags")


def tag_photos() -> None:
    """Run the console script `tag-photos`."""
    _run_script("tag-photos")


def find_similar() -> None:
    """Run the console script `find-similar`."""
    _run_script("find-similar")


def serve_model() -> None:
    """Run the console script `serve-model`."""
    _run_script("serve-model")


def export_model() -> None:
    """Run the console script `export-model`."""
    _run_script("export-model")


def fetch_photos() -> None:
    """Run the console script `fetch-photos`."""
    _run_script("fetch-photos")


def sample_shop() -> None:
    """Run the console script `sample-shop`."""
    _run_script("sample-shop")


if __name__ == "__main__":
    main()
