"""Options that several commands share, so that they are spelt and explained alike."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)

catalogue_option: Callable[[Any], Any] = click.option(
    "--catalogue",
    metavar="URL",
    envvar="FASHION_TAGGER_CATALOGUE",
    default="catalogue.sqlite",
    show_default=True,
    show_envvar=True,
    help="The catalogue: an SQLite file or an SQLAlchemy URL.",
)
images_option: Callable[[Any], Any] = click.option(
    "--images",
    metavar="PLACE",
    default="images",
    show_default=True,
    help="Where the photos are kept: a folder, or a URL of fsspec's such as s3://bucket/photos.",
)
vocabulary_option: Callable[[Any], Any] = click.option(
    "--vocabulary",
    type=FILE,
    metavar="FILE",
    help="Your own labels and their words (TOML): extends the built-in ones, or replaces them"
    " with `replace = true` in its first line.",
)


def _contact(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    # It is sent in a header, which takes one line of plain letters.
    if value is not None and not (value.isascii() and value.isprintable() and value.strip()):
        raise BadInput(f"--contact {value!r}: write one mail or web address, in plain letters")
    return value


contact_option: Callable[[Any], Any] = click.option(
    "--contact",
    callback=_contact,
    metavar="TEXT",
    help="Your mail or web address, for site owners: it stands in the user agent.",
)
timeout_option: Callable[[Any], Any] = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for an answer, to its last byte.",
)
fetched_option: Callable[[Any], Any] = click.option(
    "--fetched",
    type=FOLDER,
    default=Path("fetched"),
    show_default=True,
    help="Where photos are kept that were fetched from addresses: what is there is not asked for"
    " again.",
)


def private_hosts_option(but: str) -> Callable[[Any], Any]:
    """--allow-private-hosts; BUT says which of them may be asked without it."""
    return click.option(
        "--allow-private-hosts",
        "allow_private",
        is_flag=True,
        help="Also ask hosts of a private network that photos' addresses and redirects lead to;"
        f" without it {but}.",
    )


def options_as_json(options: Any) -> dict[str, Any]:
    """The fields of the dataclass OPTIONS for JSON, paths as text."""
    return {n: str(v) if isinstance(v, Path) else v for n, v in asdict(options).items()}


class CommaList(click.ParamType):
    """Words between commas as a tuple, empty ones dropped."""

    name = "words"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:  # noqa: ARG002
        """VALUE's words, each once, in their order."""
        if isinstance(value, tuple):
            return value
        return tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))
