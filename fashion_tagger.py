"""The one door: every console script enters here; nothing heavy is imported for it.

``crawl`` and its sisters are also subcommands of ``fashion-tagger``. A command's module is imported
when the command is called, so that ``--help`` answers at once.
"""

import importlib
import sys
from pathlib import Path

import click

__version__ = "0.1.0"

# command -> the module and the name it lives under
COMMANDS = {
    "crawl": ("scraper.cli", "crawl"),
    "catalogue": ("dataset.maintenance.cli", "catalogue"),
    "build-dataset": ("dataset.cli", "build_dataset"),
    "review": ("dataset.review.cli", "review"),
    "train-pose": ("dataset.pose.cli", "train_pose"),
    "train-model": ("model.cli", "train_model"),
    "compare": ("model.ablation.cli", "compare_steps"),
    "check-tags": ("model.tag_check.cli", "check_tags"),
    "find-similar": ("model.similar.cli", "find_similar"),
    "export-model": ("model.export.cli", "export_model"),
    "fetch-photos": ("scraper.fetch_cli", "fetch_photos"),
    "sample-shop": ("scraper.sample_shop.cli", "sample_shop"),
}


def _command(name: str) -> click.Command:
    """Import the command NAME from our own packages, and from nobody else's."""
    module_name, attribute = COMMANDS[name]
    package = module_name.partition(".")[0]
    _refuse_stranger(package)
    return getattr(importlib.import_module(module_name), attribute)


def _refuse_stranger(package: str) -> None:
    """Exit with one line when PACKAGE is somebody else's (the index has another `dataset`)."""
    ours = Path(__file__).resolve().parent / package
    found = importlib.import_module(package).__file__
    if found and Path(found).resolve().parent == ours and (ours / "cli.py").exists():
        return
    raise click.ClickException(
        f"the package {package!r} at {found} is not fashion-tagger's ({ours}). Another distribution"
        f" of that name hides it: uninstall that one (pip uninstall {package}), or install"
        " fashion-tagger in an environment of its own."
    )


class _LazyGroup(click.Group):
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

    crawl collects photos, build-dataset makes splits of them, train-model learns from the splits.
    """


def _script(name: str) -> None:
    try:
        command = _command(name)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    command.main(prog_name=name)


def crawl() -> None:
    """Console script `crawl`."""
    _script("crawl")


def catalogue() -> None:
    """Console script `catalogue`."""
    _script("catalogue")


def build_dataset() -> None:
    """Console script `build-dataset`."""
    _script("build-dataset")


def review() -> None:
    """Console script `review`."""
    _script("review")


def train_pose() -> None:
    """Console script `train-pose`."""
    _script("train-pose")


def train_model() -> None:
    """Console script `train-model`."""
    _script("train-model")


def check_tags() -> None:
    """Console script `check-tags`."""
    _script("check-tags")


def find_similar() -> None:
    """Console script `find-similar`."""
    _script("find-similar")


def export_model() -> None:
    """Console script `export-model`."""
    _script("export-model")


def fetch_photos() -> None:
    """Console script `fetch-photos`."""
    _script("fetch-photos")


def sample_shop() -> None:
    """Console script `sample-shop`."""
    _script("sample-shop")


if __name__ == "__main__":
    main()
