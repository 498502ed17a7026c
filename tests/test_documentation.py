"""Tests of the commands and links in the README, the documentation and the `--help` examples."""

import re
import shlex
from pathlib import Path

import click
import pytest

import fashion_tagger

ROOT = Path(fashion_tagger.__file__).parent
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        *(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts),
    ]
)
EPILOG = "Example: "


def documented_commands() -> list[str]:
    """Return the project's commands in the pages, and each command's own example."""
    lines = []
    for page in PAGES:
        lines += re.findall(r"^(?:    |\$ )(\S.*)$", page.read_text(encoding="utf-8"), re.M)
    commands = [fashion_tagger._command(name) for name in fashion_tagger.COMMANDS]
    lines += [str(command.epilog).removeprefix(EPILOG) for command in commands]
    # `compare` is a command of ImageMagick, so ours is only documented as a sub-command.
    names = [line.removeprefix("fashion-tagger ") for line in lines]
    return [line for line in names if line.split()[0] in fashion_tagger.COMMANDS]


@pytest.mark.parametrize("line", sorted(set(documented_commands())))
def test_documented_command_is_valid(line: str) -> None:
    name, *arguments = shlex.split(line)
    command = fashion_tagger._command(name)
    context = command.make_context(name, arguments)
    if isinstance(command, click.Group):
        subcommand_name, subcommand, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert subcommand is not None
        subcommand.make_context(subcommand_name, rest)


def test_every_command_is_documented() -> None:
    names = {line.split()[0] for line in documented_commands()}
    assert names == set(fashion_tagger.COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
