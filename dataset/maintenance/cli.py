"""`catalogue`: options -> one call -> exit status."""

import json
from pathlib import Path

import click

from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    catalogue_option,
    images_option,
    vocabulary_option,
)


@click.group(
    context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue stats --min-per-class 500"
)
def catalogue() -> None:
    """Look into a catalogue, find its duplicates, correct its labels; verify, move and merge it."""


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
    help="Say how many photos each label lacks to this number.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the same as JSON.")
def catalogue_stats(
    catalogue: str, vocabulary: Path | None, min_per_class: int, as_json: bool
) -> None:
    """Count what a catalogue holds: per site and hashtag, per label, and what was refused and why.

    Photos of a label are counted as build-dataset would take them: one of those that look the same.
    """
    from dataset.maintenance.stats import format_stats, read_stats

    stats = read_stats(catalogue, vocabulary, min_per_class)
    click.echo(json.dumps(stats, ensure_ascii=False, indent=2) if as_json else format_stats(stats))


@catalogue.command("dedup", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue dedup")
@catalogue_option
@images_option
@click.option("--again", is_flag=True, help="Compare all photos anew, and fold clusters anew.")
def catalogue_dedup(catalogue: str, images: str, again: bool) -> None:
    """Find photos that are one, cropped, bordered, marked or mirrored, and fold them.

    Photos that only may be one are not folded, but stay in one split. No file is deleted. It goes
    on where it was stopped; build-dataset does the same for what is new.
    """
    from dataset.catalogue.session import open_catalogue
    from dataset.duplicates.pipeline import dedup
    from dataset.images.store import open_store

    done = dedup(open_catalogue(catalogue, must_exist=True), open_store(images), again)
    click.echo(
        f"{done.images} photos, {done.compared} of them new, are {done.clusters} different ones:"
        f" {done.folded} copies are folded"
    )
    click.echo(f"{done.possible} pairs may be one photo and stay in one split")
    if done.unreadable:
        click.echo(f"{done.unreadable} photos can't be read below {images}", err=True)


@catalogue.command(
    "clusters", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue clusters"
)
@catalogue_option
@click.option("--possible", is_flag=True, help="List pairs that may be one photo instead.")
@click.option("--json", "as_json", is_flag=True, help="Write the same as JSON.")
def catalogue_clusters(catalogue: str, possible: bool, as_json: bool) -> None:
    """List clusters of photos that are one, the largest first, the best copy first."""
    from dataset.catalogue.session import open_catalogue
    from dataset.duplicates.clusters import list_clusters, list_possible

    with open_catalogue(catalogue, must_exist=True)() as session:
        rows = list_possible(session) if possible else list_clusters(session)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        number = f"{row['similarity']:.3f} alike" if possible else f"cluster {row['cluster']}"
        click.echo("\n  ".join([f"{number}:", *row["photos"]]))
    click.echo(f"{len(rows)} {'pairs' if possible else 'clusters of more than one photo'}")


@catalogue.command(
    "undo-cluster", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue undo-cluster 17"
)
@click.argument("cluster", type=int)
@click.option("--who", help="Who says so.  [default: your name on this machine]")
@catalogue_option
def catalogue_undo_cluster(cluster: int, who: str | None, catalogue: str) -> None:
    """Take CLUSTER apart: its photos are never folded together again."""
    from dataset.catalogue.session import open_catalogue
    from dataset.duplicates.pipeline import undo_cluster
    from dataset.maintenance.label_decisions import user_name

    sessions = open_catalogue(catalogue, must_exist=True)
    count = undo_cluster(sessions, cluster, who or user_name())
    click.echo(f"cluster {cluster} is undone: its {count} photos stay apart")


@catalogue.command(
    "label", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue label 5d41402abc4b polo"
)
@click.argument("image")
@click.argument("label", required=False)
@click.option("--leave-out", is_flag=True, help="The image is of no use: no build takes it.")
@click.option("--undo", is_flag=True, help="Take back the latest word on the image.")
@click.option("--who", help="Who says so.  [default: your name on this machine]")
@catalogue_option
@vocabulary_option
def catalogue_label(
    image: str,
    label: str | None,
    leave_out: bool,
    undo: bool,
    who: str | None,
    catalogue: str,
    vocabulary: Path | None,
) -> None:
    """Say that IMAGE shows LABEL, whatever its hashtags say.

    IMAGE is a photo's file, or the first digits of its SHA-256. The word counts for all copies of
    the photo, and the latest word counts; it is kept with who said it and when.
    """
    from dataset.catalogue.session import open_catalogue
    from dataset.maintenance import label_decisions
    from dataset.vocabulary import load_vocabulary

    if (label is not None) + leave_out + undo != 1:
        raise click.UsageError("name a LABEL, or --leave-out, or --undo: one of them")
    sessions = open_catalogue(catalogue, must_exist=True)
    if undo:
        was = label_decisions.undo(sessions, image)
        click.echo(f"{image}: no longer {was or 'left out'}")
        return
    words = load_vocabulary(vocabulary)
    now = label_decisions.decide(sessions, image, label, who or label_decisions.user_name(), words)
    click.echo(f"{image}: {now or 'left out'}")


@catalogue.command(
    "verify", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue verify --repair"
)
@catalogue_option
@images_option
@click.option(
    "--repair",
    is_flag=True,
    help="Want missing and changed photos again, for the next crawl; remove files of no photo.",
)
def catalogue_verify(catalogue: str, images: str, repair: bool) -> None:
    """Hash every stored photo anew, and name files that are missing, changed or of no photo.

    The exit status is 1 where something is wrong and was not repaired.
    """
    from dataset.catalogue.session import open_catalogue
    from dataset.images.store import open_store
    from dataset.maintenance.verify import verify

    found = verify(open_catalogue(catalogue, must_exist=True), open_store(images), repair)
    for name in ("missing", "changed", "orphaned"):
        for key in getattr(found, name):
            click.echo(f"{name}: {key}")
    lost = len(found.missing) + len(found.changed)
    click.echo(
        f"{found.checked} photos checked: {len(found.missing)} missing, {len(found.changed)}"
        f" changed; {len(found.orphaned)} files of no photo"
    )
    if repair and not found.good:
        click.echo(f"repaired: {lost} photos are wanted again; repeat the crawl to fetch them")
    elif not found.good:
        raise click.ClickException("not all is well; repair it: catalogue verify --repair")


@catalogue.command(
    "forget", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue forget 5d41402a"
)
@click.argument("what", metavar="URL|AUTHOR|IMAGE")
@click.option("--who", help="Who says so.  [default: your name on this machine]")
@catalogue_option
@images_option
def catalogue_forget(what: str, who: str | None, catalogue: str, images: str) -> None:
    """Take something down for good: its rows, its files, and its place in later builds.

    URL is a photo's or a post's address, AUTHOR a name (all posts), IMAGE a file or the first
    digits of its SHA-256. Copies of a photo go with it. Digests are remembered, so that no crawl or
    import brings it back.
    """
    from dataset.catalogue.session import open_catalogue
    from dataset.images.store import open_store
    from dataset.maintenance.label_decisions import user_name
    from dataset.maintenance.takedown import take_down

    sessions = open_catalogue(catalogue, must_exist=True)
    done = take_down(sessions, open_store(images), what, who or user_name())
    click.echo(f"{what} is forgotten: {done.posts} posts and {done.images} photos are gone")
    if done.images:
        click.echo("Splits that were built before still hold them: build anew, and train anew")
    elif not done.posts:
        click.echo("Nothing of it was here; it will not be taken")


@catalogue.command(
    "export", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue export all.tar"
)
@click.argument("file", type=FILE)
@catalogue_option
@images_option
def catalogue_export(file: Path, catalogue: str, images: str) -> None:
    """Write the catalogue and its photos into FILE, a tar file, for `catalogue import`."""
    from dataset.catalogue.session import open_catalogue
    from dataset.images.store import open_store
    from dataset.maintenance.archive import export_catalogue

    done = export_catalogue(open_catalogue(catalogue, must_exist=True), open_store(images), file)
    click.echo(f"{file}: {done.images} photos")
    if done.missing:
        click.echo(f"{len(done.missing)} photos have no file; see catalogue verify", err=True)


@catalogue.command(
    "import", context_settings=CONTEXT_SETTINGS, epilog="Example: catalogue import all.tar"
)
@click.argument("file", type=FILE)
@catalogue_option
@images_option
def catalogue_import(file: Path, catalogue: str, images: str) -> None:
    """Merge what `catalogue export` wrote into FILE into this catalogue, or into a new one.

    What is here already is kept once, and what was taken down here or there stays so.
    """
    from dataset.catalogue.session import open_catalogue
    from dataset.images.store import open_store
    from dataset.maintenance.merge import import_archive

    done = import_archive(open_catalogue(catalogue), open_store(images), file)
    click.echo(f"{done.images} photos, {done.posts} posts and {done.searches} searches are new")
    if done.forgotten:
        click.echo(f"{done.forgotten} were taken down and stay so")
    if done.lost:
        click.echo(f"{done.lost} photos were damaged on the way and are wanted again", err=True)
