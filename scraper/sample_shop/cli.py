"""`sample-shop`: options -> one call -> exit status."""

from typing import Any

import click

from dataset.errors import BadInput
from dataset.utils.cli_options import CONTEXT_SETTINGS, FILE, FOLDER, CommaList


def _share(_ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 <= value <= 1:
        raise BadInput(f"--{(param.name or '').replace('_', '-')} {value}: a share is from 0 to 1")
    return value


@click.command(
    "sample-shop", context_settings=CONTEXT_SETTINGS, epilog="Example: sample-shop --port 8000"
)
@click.option(
    "--photos",
    type=FOLDER,
    help="A folder of class folders with photos, one product a photo.  [default: photos are drawn]",
)
@click.option(
    "--site", default="lamoda", show_default=True, help="The site whose format is spoken."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="The port to listen at; 0 takes a free one.",
)
@click.option(
    "--per-label",
    type=click.IntRange(min=1),
    default=150,
    show_default=True,
    help="Drawn products of each label.",
)
@click.option(
    "--duplicates",
    type=float,
    default=0.1,
    show_default=True,
    callback=_share,
    help="Share of further products with a copied, re-encoded or resized photo.",
)
@click.option(
    "--double-tagged",
    type=float,
    default=0.05,
    show_default=True,
    callback=_share,
    help="Share of products found under two hashtags.",
)
@click.option(
    "--wrong-tagged",
    type=float,
    default=0.0,
    show_default=True,
    callback=_share,
    help="Share of products found under another hashtag than their own, for check-tags to find.",
)
@click.option(
    "--generation",
    help="Which of the site's page designs, or which of its refusals; a wrong name lists them."
    "  [default: today's]",
)
@click.option(
    "--faults",
    type=CommaList(),
    default=(),
    help="What goes wrong, between commas: of pages, of their order, of every second photo"
    " (`photos`: all of those in turns); a wrong name lists them.",
)
@click.option(
    "--key-points",
    type=FILE,
    help="Write the key points of the drawn people into this file (COCO JSON; people.json), and"
    " their photos into a folder beside it (people/).",
)
@click.option(
    "--url-file",
    type=FILE,
    help="Write the shop's address into this file once it listens, for scripts.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which shop of many.")
def sample_shop(**chosen: Any) -> None:
    """Serve a shop on loopback, in a site's own wire format, until Ctrl-C.

    Its products are drawn, or made of your photos. Some are copies of others and some stand under
    two hashtags, as in life.
    """
    from scraper.sample_shop.server import ShopOptions, run

    run(ShopOptions(**chosen))
