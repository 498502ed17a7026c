"""The command `review`."""

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
    help="Address to listen at. Any address but the default is open to other machines, which need"
    " the token in the printed URL.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port to listen at.  [default: a free one]",
)
@click.option("--who", help="Who decides.  [default: your user name]")
@click.option(
    "--url-file",
    type=FILE,
    metavar="FILE",
    help="Write the URL to a file once the server is ready, for scripts.",
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
    """Review a catalogue in the browser: suspected mistakes, conflicts, duplicates and crops.

    The server runs until Ctrl-C. Suspected mistakes come from check-tags --catalogue. Every
    decision is saved at once with its author and time, can be undone, and holds in the next
    build-dataset.
    """
    from dataset.maintenance.label_decisions import user_name
    from dataset.review.server import ReviewOptions, serve

    serve(ReviewOptions(catalogue, images, who or user_name(), vocabulary, host, port, url_file))
