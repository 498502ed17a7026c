"""Command-line options that several commands share, and tables for a terminal."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataset.errors import BadInput

if TYPE_CHECKING:
    from dataset.feeds.product_feed import ProductFeed

# Names of engines, see `dataset.utils.engines`.
LOCAL, RAY = "local", "ray"
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
    metavar="PATH|URL",
    default="images",
    show_default=True,
    help="The image store: a folder, or an fsspec URL such as s3://bucket/photos.",
)
vocabulary_option: Callable[[Any], Any] = click.option(
    "--vocabulary",
    type=FILE,
    metavar="FILE",
    help="TOML file with labels and their words. It extends the built-in ones, or replaces them"
    " with `replace = true` in its first line.",
)


def engine_options(command: Any) -> Any:
    """Add the options of the engine that processes photos."""
    for option in (
        click.option(
            "--gpus-per-worker",
            "gpus",
            type=click.FloatRange(min=0),
            default=0.0,
            show_default=True,
            help="GPUs of each worker, with --engine ray; 0.5: two workers share one.",
        ),
        click.option(
            "--workers",
            type=WorkerCount(),
            default="auto",
            show_default=True,
            metavar="N|auto",
            help="Number of workers of --engine ray; auto: one per node of the cluster.",
        ),
        click.option(
            "--engine",
            type=click.Choice([LOCAL, RAY]),
            default=LOCAL,
            show_default=True,
            help="Where photos are processed: local, or on a Ray cluster. RAY_ADDRESS selects the"
            " cluster; without it, Ray is started on this machine. Equal processors give equal"
            " results.",
        ),
    ):
        command = option(command)
    return command


class WorkerCount(click.ParamType):
    """A number of workers, or `auto` (None)."""

    name = "workers"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | None:
        """Convert to a number of at least 1, or None."""
        if value is None or isinstance(value, int) or value == "auto":
            return None if value == "auto" else value
        if not (value.isdecimal() and int(value)):
            self.fail(f"{value!r} is not a number of workers or auto", param, ctx)
        return int(value)


def _contact(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    # It is sent in a header, which is one line of ASCII.
    if value is not None and not (value.isascii() and value.isprintable() and value.strip()):
        raise BadInput(f"--contact {value!r}: write one e-mail address or URL in ASCII")
    return value


contact_option: Callable[[Any], Any] = click.option(
    "--contact",
    envvar="FASHION_TAGGER_CONTACT",
    show_envvar=True,
    callback=_contact,
    metavar="TEXT",
    help="Your e-mail address or website, which is added to the user agent for site owners.",
)
timeout_option: Callable[[Any], Any] = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Timeout of a request, including its response body.",
)
fetched_option: Callable[[Any], Any] = click.option(
    "--fetched",
    type=FOLDER,
    default=Path("fetched"),
    show_default=True,
    help="Folder for downloaded images; what is there is not downloaded again.",
)


class ColumnNames(click.ParamType):
    """Comma-separated names of a feed's columns: `id=sku,image=picture,tag=category`."""

    name = "columns"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, str]:
        """Return id, image or tag -> name of the column."""
        if isinstance(value, dict):
            return value
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        names = {key.strip(): name.strip() for key, _, name in pairs}
        if not all(names.values()) or names.keys() - {"id", "image", "tag"}:
            self.fail(f"{value!r} must look like id=sku,image=picture,tag=category", param, ctx)
        return names


columns_option: Callable[[Any], Any] = click.option(
    "--columns",
    type=ColumnNames(),
    default={},
    metavar="NAMES",
    help="Names of the feed's columns, such as id=sku,image=picture,tag=category."
    "  [default: usual names]",
)
encoding_option: Callable[[Any], Any] = click.option(
    "--encoding",
    metavar="NAME",
    help="Encoding of the feed, such as cp1251.  [default: it is detected]",
)
preview_option: Callable[[Any], Any] = click.option(
    "--preview",
    is_flag=True,
    help="Only show how the first rows of the feed are understood: format, encoding, delimiter,"
    " columns, and the photos that are found.",
)


def private_hosts_option(but: str) -> Callable[[Any], Any]:
    """Return the option --allow-private-hosts.

    Args:
        but: Which private hosts are allowed without it, for the help.
    """
    return click.option(
        "--allow-private-hosts",
        "allow_private",
        is_flag=True,
        help=f"Allow requests to private networks by image URLs and redirects; without it {but}.",
    )


def print_feed_notes(feed: "ProductFeed", image_root: Path | None, preview: bool) -> None:
    """Print what was detected in a feed and may be wrong, and how it is understood.

    Args:
        feed: The feed.
        image_root: Folder of the photos that are paths; None: the feed's folder.
        preview: Whether to show the first rows.
    """
    for note in feed.notes:
        click.echo(note, err=True)
    if preview:
        for line in feed.preview(image_root or feed.path.parent):
            click.echo(line)


def options_as_json(options: Any) -> dict[str, Any]:
    """Return the fields of an options dataclass for JSON, with paths as strings."""

    def convert(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return [convert(item) for item in value] if isinstance(value, (list, tuple)) else value

    return {name: convert(value) for name, value in asdict(options).items()}


class CommaList(click.ParamType):
    """Comma-separated words as a tuple, without empty ones and duplicates."""

    name = "words"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:  # noqa: ARG002
        """Split the value at commas."""
        if isinstance(value, tuple):
            return value
        return tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))


def format_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Format rows as a table with aligned columns, numbers to the right."""
    lines = [tuple(head), *(tuple(row) for row in body)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    numeric = [bool(body) and all(row[i].isdecimal() for row in body) for i in range(len(head))]
    aligned = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([aligned[0], rule, *aligned[1:]])
