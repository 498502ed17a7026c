"""`review`: options -> one call -> exit status."""

from pathlib import Path

import click

from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    catalogue_option,
    images_option,
    vocabulary_option,
)

LOOPBACK = "127.0.0.1"


@click.command("review", context_settings=CONTEXT_SETTINGS, epilog="Example: review --port 8500")
@click.option(
    "--host",
    default=LOOPBACK,
    show_default=True,
    help="The address to listen at. Any other one is open to others, who need the token in the"
    " address that is printed.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="The port to listen at.  [default: a free one]",
)
@click.option("--who", help="Whose decisions these are.  [default: your name on this machine]")
@click.option(
    "--url-file",
    type=FILE,
    metavar="FILE",
    help="Write the page's address into this file once it listens, for scripts.",
)
@catalogue_option
@images_option
@vocabulary_option
def review(
    host: str,
    port: int,
    who: str | None,
    url_file: Path | None,
    catalogue: str,
    images: str,
    vocabulary: Path | None,
) -> None:
    """Decide on a page in your browser what is doubtful in a catalogue, until Ctrl-C.

    There are four queues: tags that a model doubts (check-tags --catalogue), conflicts of labels,
    photos that may be one, and doubtful crops. Every decision is kept at once with who made it and
    when, can be undone, and holds in the next build-dataset.
    """
    from dataset.maintenance.label_decisions import user_name
    from dataset.review.server import ReviewOptions, serve

    serve(ReviewOptions(catalogue, images, who or user_name(), vocabulary, host, port, url_file))
