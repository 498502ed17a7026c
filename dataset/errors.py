"""Errors with an exit status, and text from other sources made fit for messages."""

import click

# Characters of text from other sources that a message repeats.
MAX_MESSAGE_CHARS = 200


class Failure(click.ClickException):
    """An error with exit status 1. The message names the problem, the input and the remedy."""

    exit_code = 1


class BadInput(click.ClickException):
    """A usage error with exit status 2. The message names the input and the remedy."""

    exit_code = 2


class DownloadFailed(ValueError):  # noqa: N818 - reads as what happened
    """A photo could not be downloaded; the message is the reason."""


def replace_control_characters(text: str) -> str:
    """Replace line breaks and control characters, which a terminal would obey, by "?"."""
    return "".join(character if character.isprintable() else "?" for character in text)


def shorten_for_display(text: str) -> str:
    """Return text from another source as one short line without control characters."""
    suffix = "…" if len(text) > MAX_MESSAGE_CHARS else ""
    return replace_control_characters(text[:MAX_MESSAGE_CHARS]) + suffix


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class name if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
