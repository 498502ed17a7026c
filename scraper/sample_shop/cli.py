"""The `sample-shop` command."""

from typing import Any

import click

from dataset.errors import BadInput
from dataset.utils.cli_options import CONTEXT_SETTINGS, FILE, FOLDER, CommaList


def _share(_ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 <= value <= 1:
        raise BadInput(f"--{(param.name or '').replace('_', '-')} {value}: choose from 0 to 1")
    return value


@click.command(
    "sample-shop", context_settings=CONTEXT_SETTINGS, epilog="Example: sample-shop --port 8000"
)
@click.option(
    "--photos",
    type=FOLDER,
    help="Folder with one folder of photos per class; each photo is one product."
    "  [default: photos are drawn]",
)
@click.option(
    "--site", default="lamoda", show_default=True, help="Site whose response format is served."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to listen on; 0 chooses a free one.",
)
@click.option(
    "--per-label",
    type=click.IntRange(min=1),
    default=150,
    show_default=True,
    help="Number of drawn products per label.",
)
@click.option(
    "--duplicates",
    type=float,
    default=0.1,
    show_default=True,
    callback=_share,
    help="Additional products with a copied, re-encoded or resized photo, as a fraction of the"
    " products.",
)
@click.option(
    "--double-tagged",
    type=float,
    default=0.05,
    show_default=True,
    callback=_share,
    help="Fraction of products that are listed under two hashtags.",
)
@click.option(
    "--wrong-tagged",
    type=float,
    default=0.0,
    show_default=True,
    callback=_share,
    help="Fraction of products that are listed under a wrong hashtag, for check-tags to find.",
)
@click.option(
    "--wrong-tagged-file",
    type=FILE,
    help="Write these products to this file (CSV with sku, tag and shown), to count what is found.",
)
@click.option(
    "--generation",
    help="Page design or error page of the site; an unknown name lists them."
    "  [default: the current design]",
)
@click.option(
    "--faults",
    type=CommaList(),
    default=(),
    help="Comma-separated faults of pages, of paging, or of every second photo (`photos`: all photo"
    " faults in turn); an unknown name lists them.",
)
@click.option(
    "--key-points",
    type=FILE,
    help="Write the key points of the drawn people to this file (COCO JSON: people.json) and"
    " their photos to the folder of the same name (people/).",
)
@click.option(
    "--url-file",
    type=FILE,
    help="Write the shop's URL to this file once it accepts connections, for scripts.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
def sample_shop(**chosen: Any) -> None:
    """Serve a shop with a site's own response format until Ctrl-C.

    Its products are drawn, or made of your photos. As in real shops, some photos are copies of
    others and some products are listed under two hashtags.
    """
    from scraper.sample_shop.server import ShopOptions, run

    run(ShopOptions(**chosen))
