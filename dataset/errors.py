"""What goes wrong for a reason a person can mend, with its exit status."""

import click

# Signs of a stranger's text in a message.
MAX_MESSAGE_CHARS = 200


class Failure(click.ClickException):
    """The work could not be done; exit status 1. The message says what, which input, what now."""

    exit_code = 1


class BadInput(click.ClickException):
    """What was asked can't be meant; exit status 2. The message names the input and the remedy."""

    exit_code = 2


def replace_control_characters(text: str) -> str:
    """TEXT, in part a stranger's, in one line that no terminal obeys."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def shorten_for_display(text: str) -> str:
    """TEXT of a stranger as it can stand in a message: one short line that no terminal obeys."""
    return replace_control_characters(text[:MAX_MESSAGE_CHARS]) + (
        "…" if len(text) > MAX_MESSAGE_CHARS else ""
    )


def first_line(error: BaseException) -> str:
    """What ERROR says in its first line, or what it is when it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class DownloadFailed(ValueError):  # noqa: N818 - reads as what happened
    """There is no photo at an address, for the reason that it says."""
