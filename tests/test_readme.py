"""Every command that the README and the examples of --help show is one that is understood."""

import re
import shlex
from pathlib import Path

import click
import pytest

import fashion_tagger

ROOT = Path(fashion_tagger.__file__).parent
EPILOG = "Example: "


def shown() -> list[str]:
    """Our commands among the README's indented lines, and each command's own example."""
    lines = re.findall(r"^    (\S.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    commands = [fashion_tagger._command(name) for name in fashion_tagger.COMMANDS]
    lines += [str(command.epilog).removeprefix(EPILOG) for command in commands]
    # `compare` alone is ImageMagick's: ours is only shown as a subcommand of the one door.
    below = [line.removeprefix("fashion-tagger ") for line in lines]
    return [line for line in below if line.split()[0] in fashion_tagger.COMMANDS]


@pytest.mark.parametrize("line", sorted(set(shown())))
def test_a_command_that_is_shown_is_understood(line: str) -> None:
    name, *arguments = shlex.split(line)
    command = fashion_tagger._command(name)
    context = command.make_context(name, arguments)
    if isinstance(command, click.Group):
        found, below, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert below is not None
        below.make_context(found, rest)


def test_every_command_is_shown() -> None:
    named = {line.split()[0] for line in shown()}
    assert named == set(fashion_tagger.COMMANDS)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_what_a_page_links_to_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
