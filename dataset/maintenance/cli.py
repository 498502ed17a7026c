"""The command `catalogue` and its sub-commands."""

import json
from pathlib import Path

import click

from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    catalogue_option,
    engine_options,
    images_option,
    vocabulary_option,
)


@click.group(
    context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue stats --min-per-class 500"
)
def catalogue() -> None:
    """Inspect a catalogue, deduplicate it, correct labels; verify, export and merge catalogues."""


@catalogue.command(
    "stats",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: catalogue stats --min-per-class 500",
)
@catalogue_option
@vocabulary_option
@click.option(
    "--min-per-class",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Number of photos each label should have; the table shows how many are missing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def catalogue_stats(
    catalogue: str, vocabulary: Path | None, min_per_class: int, as_json: bool
) -> None:
    """Count the contents of a catalogue: per search and label, with rejections by reason.

    Photos of a label are counted as build-dataset selects them: the best copy of each cluster of
    near duplicates.
    """
    from dataset.maintenance.stats import format_stats, read_stats

    stats = read_stats(catalogue, vocabulary, min_per_class)
    click.echo(json.dumps(stats, ensure_ascii=False, indent=2) if as_json else format_stats(stats))


@catalogue.command("dedup", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue dedup")
@catalogue_option
@images_option
@click.option("--rebuild", is_flag=True, help="Compare and cluster all photos again.")
@click.option(
    "--rehash",
    is_flag=True,
    help="Read all photos again, too: for photos that an earlier version read without their colour"
    " profile.",
)
@engine_options
def catalogue_dedup(
    catalogue: str,
    images: str,
    rebuild: bool,
    rehash: bool,
    engine: str,
    workers: int | None,
    gpus: float,
) -> None:
    """Find near duplicates, and cluster the copies of each photo.

    Copies of the whole photo (resized, bordered, captioned, slightly cropped, mirrored) share a
    cluster. Photos that show a part of another one, or the same one changed (collages, screenshots,
    stickers, other colours), stay in one split. No file is deleted. An interrupted command resumes
    where it stopped; build-dataset does the same for new photos.
    """
    from dataset.catalogue.session import open_catalogue
    from dataset.duplicates.pipeline import dedup
    from dataset.images.store import open_store
    from dataset.utils.engines import create_engine

    sessions, store = open_catalogue(catalogue, must_exist=True), open_store(images)
    done = dedup(sessions, store, rebuild, rehash, create_engine(engine, workers, gpus))
    click.echo(
        f"{done.images} photos, {done.compared} of them new: {done.clusters} clusters,"
        f" {done.duplicates} near duplicates"
    )
    click.echo(f"{done.possible} pairs may be near duplicates and stay in one split")
    if done.unreadable:
        click.echo(f"{done.unreadable} photos in {images} can't be read", err=True)


@catalogue.command(
    "clusters", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue clusters"
)
@catalogue_option
@click.option(
    "--possible",
    is_flag=True,
    help="List pairs that show the same photo in part or changed instead.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def catalogue_clusters(catalogue: str, possible: bool, as_json: bool) -> None:
    """List the clusters of near duplicates, the largest first, with the best copy first."""
    from dataset.catalogue.session import open_catalogue
    from dataset.maintenance.stats import list_clusters, list_possible

    with open_catalogue(catalogue, must_exist=True)() as session:
        rows = list_possible(session) if possible else list_clusters(session)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        title = (
            f"similarity {row['similarity']:.3f}"
            if possible
            else f"cluster {row['cluster']} ({row['products']} products or posts)"
        )
        click.echo("\n  ".join([f"{title}:", *row["photos"]]))
    click.echo(f"{len(rows)} {'pairs' if possible else 'clusters of several photos'}")


@catalogue.command(
    "undo-cluster", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue undo-cluster 17"
)
@click.argument("cluster", type=int)
@click.option("--who", help="Name of the reviewer.  [default: your user name]")
@catalogue_option
def catalogue_undo_cluster(cluster: int, who: str | None, catalogue: str) -> None:
    """Separate the photos of CLUSTER: they are never clustered together again."""
    from dataset.catalogue.session import open_catalogue
    from dataset.duplicates.pipeline import undo_cluster
    from dataset.maintenance.label_decisions import user_name

    sessions = open_catalogue(catalogue, must_exist=True)
    count = undo_cluster(sessions, cluster, who or user_name())
    click.echo(f"cluster {cluster} is undone: its {count} photos stay separate")


@catalogue.command(
    "label", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue label 5d41402abc4b polo"
)
@click.argument("image")
@click.argument("label", required=False)
@click.option("--exclude", is_flag=True, help="Exclude the image from all builds.")
@click.option("--undo", is_flag=True, help="Undo the latest decision on the image.")
@click.option("--who", help="Name of the reviewer.  [default: your user name]")
@catalogue_option
@vocabulary_option
def catalogue_label(
    image: str,
    label: str | None,
    exclude: bool,
    undo: bool,
    who: str | None,
    catalogue: str,
    vocabulary: Path | None,
) -> None:
    """Decide that IMAGE has LABEL, whatever its hashtags say.

    IMAGE is a file, or the first digits of its SHA-256. The decision holds for all near duplicates
    of the photo; the latest one counts. It is saved with the reviewer's name and the time.
    """
    from dataset.catalogue.session import open_catalogue
    from dataset.maintenance import label_decisions
    from dataset.vocabulary import load_vocabulary

    if (label is not None) + exclude + undo != 1:
        raise click.UsageError("give one of LABEL, --exclude and --undo")
    sessions = open_catalogue(catalogue, must_exist=True)
    if undo:
        previous = label_decisions.undo(sessions, image)
        click.echo(f"{image}: no longer {previous or 'excluded'}")
        return
    who = who or label_decisions.user_name()
    decided = label_decisions.decide(sessions, image, label, who, load_vocabulary(vocabulary))
    click.echo(f"{image}: {decided or 'excluded'}")


@catalogue.command(
    "verify", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue verify --repair"
)
@catalogue_option
@images_option
@click.option(
    "--repair",
    is_flag=True,
    help="Let the next crawl download missing and damaged photos again; remove orphaned files.",
)
def catalogue_verify(catalogue: str, images: str, repair: bool) -> None:
    """Verify the database and the SHA-256 of every stored photo; list what is wrong.

    First the database is checked, on SQLite with its own integrity check; if it is damaged, no
    file is checked or repaired. Then missing, changed and orphaned files are listed. The exit
    status is 1 if there are any and they were not repaired.
    """
    from dataset.catalogue.session import open_catalogue
    from dataset.images.store import open_store
    from dataset.maintenance.verify import verify

    result = verify(open_catalogue(catalogue, must_exist=True), open_store(images), repair)
    for line in result.damaged:
        click.echo(f"damaged: {line}")
    if result.damaged:
        raise click.ClickException(
            "the database is damaged and no photo was checked: restore a copy of it, or recover"
            " what can be read (sqlite3 catalogue.sqlite .recover | sqlite3 recovered.sqlite)"
        )
    for name in ("missing", "changed", "orphaned"):
        for key in getattr(result, name):
            click.echo(f"{name}: {key}")
    lost = len(result.missing) + len(result.changed)
    click.echo(
        f"{result.checked} photos checked: {len(result.missing)} missing, {len(result.changed)}"
        f" changed; {len(result.orphaned)} orphaned files"
    )
    if repair and not result.is_intact:
        click.echo(f"repaired: {lost} photos are pending; repeat the crawl to download them")
    elif not result.is_intact:
        raise click.ClickException("some files are damaged; repair them: catalogue verify --repair")


@catalogue.command(
    "forget", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue forget 5d41402a"
)
@click.argument("what", metavar="URL|AUTHOR|IMAGE")
@click.option(
    "--url",
    "kind",
    flag_value="url",
    help="Treat the argument as a URL, and block it even if it is not in the catalogue.",
)
@click.option(
    "--author",
    "kind",
    flag_value="author",
    help="Treat the argument as an author, and block it even if it is not in the catalogue.",
)
@click.option("--who", help="Name of the reviewer.  [default: your user name]")
@catalogue_option
@images_option
def catalogue_forget(
    what: str, kind: str | None, who: str | None, catalogue: str, images: str
) -> None:
    """Take something down for good: delete its rows and files, and keep it out of later builds.

    URL is the address of a photo or a post, AUTHOR a name (all posts), IMAGE a file or the first
    digits of its SHA-256. A post is recognized by the id in its URL; the rest may differ.
    Near duplicates of a photo are deleted too. The catalogue keeps digests, so that no crawl
    or import adds it again. If it is not in the catalogue, nothing is changed and the exit
    status is 1, unless --url or --author is given.
    """
    from dataset.catalogue.session import open_catalogue
    from dataset.images.store import open_store
    from dataset.maintenance.label_decisions import user_name
    from dataset.maintenance.takedown import take_down

    sessions = open_catalogue(catalogue, must_exist=True)
    done = take_down(sessions, open_store(images), what, who or user_name(), kind)
    click.echo(f"{what} was taken down: {done.posts} posts and {done.images} photos were deleted")
    if done.images:
        click.echo("Earlier builds and models still contain them: build and train again")
    elif not done.posts:
        click.echo("Not in the catalogue; crawls and imports will skip it from now on")


@catalogue.command(
    "export", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue export all.tar"
)
@click.argument("file", type=FILE)
@catalogue_option
@images_option
def catalogue_export(file: Path, catalogue: str, images: str) -> None:
    """Write the catalogue and its photos to FILE, a tar archive for `catalogue import`."""
    from dataset.catalogue.session import open_catalogue
    from dataset.images.store import open_store
    from dataset.maintenance.archive import export_catalogue

    done = export_catalogue(open_catalogue(catalogue, must_exist=True), open_store(images), file)
    click.echo(f"{file}: {done.images} photos")
    if done.missing:
        click.echo(f"{len(done.missing)} photos have no file, see `catalogue verify`", err=True)


@catalogue.command(
    "import", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue import all.tar"
)
@click.argument("file", type=FILE)
@catalogue_option
@images_option
def catalogue_import(file: Path, catalogue: str, images: str) -> None:
    """Merge FILE, an archive of `catalogue export`, into this catalogue or a new one.

    Rows that exist already are skipped, and what was taken down in either catalogue stays so.
    """
    from dataset.catalogue.session import open_catalogue
    from dataset.images.store import open_store
    from dataset.maintenance.archive import merge_archive, open_archive

    # A new catalogue is created only for an archive that can be read.
    with open_archive(file) as archive:
        done = merge_archive(open_catalogue(catalogue), open_store(images), archive)
    click.echo(f"imported {done.images} photos, {done.posts} posts and {done.searches} searches")
    if done.taken_down:
        click.echo(f"{done.taken_down} photos and posts were taken down and stay so")
    if done.lost:
        click.echo(
            f"{done.lost} photos of the archive are missing or damaged and stay pending", err=True
        )
