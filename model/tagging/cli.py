"""The commands `tag-photos` and `serve-model`."""

from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput, Failure
from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    FOLDER,
    catalogue_option,
    columns_option,
    contact_option,
    encoding_option,
    engine_options,
    fetched_option,
    images_option,
    preview_option,
    print_feed_notes,
    private_hosts_option,
    timeout_option,
    vocabulary_option,
)
from model import cli_options

threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Confidence threshold: a photo below it is unsure.  [default: the lowest threshold above"
    " which 95% of the run's validation photos are predicted correctly]",
)


@click.command(
    "tag-photos",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: tag-photos new-photos --model runs/first --out tags.csv",
)
@click.argument("names", nargs=-1, metavar="[PHOTO|FOLDER|FEED|URL]...")
@click.option(
    "--model",
    "run",
    metavar="RUN_DIR",
    type=FOLDER,
    help="Run of train-model that predicts the photos.  [required without --preview]",
)
@click.option(
    "--out",
    type=FILE,
    help="New file of the tags, .csv or .jsonl. The same command continues an interrupted one."
    "  [default: CSV to the terminal]",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Number of most probable labels to write per photo.",
)
@threshold_option
@click.option(
    "--explain",
    is_flag=True,
    help="Draw the areas that the most probable label of each photo depends on (Grad-CAM), in a"
    " folder beside --out.",
)
@cli_options.image_root_option
@columns_option
@encoding_option
@preview_option
@fetched_option
@private_hosts_option("none")
@contact_option
@timeout_option
@catalogue_option
@images_option
@vocabulary_option
@cli_options.precision_option
@engine_options
def tag_photos(
    names: tuple[str, ...],
    run: Path | None,
    out: Path | None,
    explain: bool,
    preview: bool,
    vocabulary: Path | None,
    engine: str,
    workers: int | None,
    gpus: float,
    **values: Any,
) -> None:
    """Tag photos that have no tag: files, folders, feeds, URLs or, without names, the catalogue.

    Photos are cropped as the training photos of the run. A photo is tagged if its most probable
    label reaches the threshold, unsure if not, and failed if it can't be read; the reason is given.
    A FEED is read as by check-tags, and needs no tags. Of the catalogue, the photos without a
    usable label are tagged.

    Writes photo, id, status, label, probability, labels, top and reason per photo.
    """
    from dataset.utils.engines import create_engine
    from dataset.vocabulary import load_vocabulary
    from model.feeds.sources import FetchOptions, ImageFetcher
    from model.tagging import pipeline
    from model.tagging.sources import SourceOptions, open_sources

    if preview:
        _preview(names, values)
        return
    if run is None:
        raise BadInput("name a run of train-model: --model runs/first")
    if explain and out is None:
        raise BadInput("--explain draws pictures beside --out; name a file with --out tags.csv")
    fetch = FetchOptions(**{name: values.pop(name) for name in FetchOptions.__dataclass_fields__})
    source_names = SourceOptions.__dataclass_fields__.keys() - {"names"}
    source_options = SourceOptions(names, **{name: values.pop(name) for name in source_names})
    with ImageFetcher(fetch) as fetcher:
        # Report errors in the input before Keras is imported, which takes seconds.
        sources = open_sources(source_options, load_vocabulary(vocabulary), fetcher)
        if out is not None:
            pipeline.require_new_outputs(out, explain)
        options = pipeline.TagOptions(run, source_options, out, explain=explain, **values)
        counts = pipeline.tag_photos(options, sources, create_engine(engine, workers, gpus))
    for line in pipeline.summary_lines(counts):
        click.echo(line, err=out is None)
    if out is not None:
        pictures = f", {pipeline.explanation_folder(out)}" if explain else ""
        click.echo(f"written: {out}{pictures}")
    if set(counts.statuses) == {pipeline.FAILED}:
        raise Failure("no photo could be read, see above")


def _preview(names: tuple[str, ...], values: dict[str, Any]) -> None:
    from model.tagging.sources import open_photo_feed

    if len(names) != 1 or not Path(names[0]).is_file():
        raise BadInput("--preview shows a feed; name one: tag-photos feed.csv --preview")
    feed = open_photo_feed(Path(names[0]), values["columns"], values["encoding"])
    if feed is None:
        raise BadInput(f"--preview shows a feed, and {names[0]} is a photo")
    print_feed_notes(feed, values["image_root"], preview=True)


@click.command(
    "serve-model",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: serve-model runs/first --index similar.index",
)
@click.argument("run", metavar="RUN_DIR", type=FOLDER)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at. For any but the default one, requests need a token.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen at; 0: a free one.",
)
@click.option(
    "--token",
    envvar="FASHION_TAGGER_TOKEN",
    show_envvar=True,
    callback=lambda _ctx, _param, value: _check_token(value),
    help="Token that requests must send.  [default: a random one, which is printed; none at"
    " 127.0.0.1]",
)
@click.option(
    "--index",
    type=FILE,
    help="Index of find-similar, built with the same run, for /v1/similar.  [default: none]",
)
@threshold_option
@click.option(
    "--top",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Number of most probable labels to return, unless a request names another.",
)
@click.option(
    "--wrong-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    metavar="P",
    help="Fraction of the tags sent to /v1/check that are wrong, as check-tags estimates it.",
)
@click.option(
    "--data",
    type=FOLDER,
    help="Folder of the photos that the run was trained on, with which /v1/check compares photos."
    "  [default: the folder of the training, if it is there]",
)
@click.option(
    "--training-photos/--no-training-photos",
    "compares_training",
    default=True,
    show_default=True,
    help="Compare the photos of /v1/check with those of the training, as check-tags does. The first"
    " start with a run computes their features.",
)
@cli_options.cache_option
@click.option(
    "--batch-size",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Number of photos that are predicted together, at most.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Number of photos that wait, at most; further requests get the status 503.",
)
@private_hosts_option("none")
@contact_option
@timeout_option
@vocabulary_option
def serve_model(run: Path, vocabulary: Path | None, **values: Any) -> None:
    """Serve the model of RUN_DIR over HTTP: tags, checks of tags, and similar items.

    POST /v1/tags, /v1/check and /v1/similar take a photo as an upload or as an address, which is
    downloaded under the rules of crawl. Requests that arrive together are predicted together. The
    page at / describes the requests, /openapi.json for programs; /healthz is for monitoring.
    """
    from dataset.utils import keras_backend
    from dataset.vocabulary import load_vocabulary
    from model.feeds.sources import FetchOptions

    words = load_vocabulary(vocabulary, multi_label=bool(cli_options.read_facets(run)))
    keras_backend.import_backend()
    from model.tagging import server

    fetch = FetchOptions(
        **{name: values.pop(name) for name in ("allow_private", "contact", "timeout")}
    )
    options = server.ServeOptions(run, fetch=fetch, **values)
    server.serve(options, words)


def _check_token(value: str | None) -> str | None:
    # It is sent in a header, which is one line of ASCII.
    if value is not None and (not value.isascii() or not value.isprintable() or len(value) < 16):
        raise BadInput("--token: use at least 16 printable ASCII characters")
    return value
