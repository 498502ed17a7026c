"""`review`: options -> one call -> exit status."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataset.errors import Failure
from dataset.options import (
    CONTEXT,
    FILE,
    FOLDER,
    CommaList,
    catalogue_option,
    images_option,
    vocabulary_option,
)

if TYPE_CHECKING:
    from dataset.review.decisions_file import Imported

LOOPBACK = "127.0.0.1"


@click.command("review", context_settings=CONTEXT, epilog="Example: review --port 8500")
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
@click.option(
    "--static",
    type=FOLDER,
    metavar="DIR",
    help="Serve nothing; write the queues into DIR as a page that works from disk and saves"
    " decisions as a file.",
)
@click.option(
    "--import",
    "import_file",
    type=FILE,
    metavar="FILE",
    help="Serve nothing; take over the decisions in FILE, which such a page saved.",
)
@click.option(
    "--queue",
    "queues",
    type=CommaList(),
    default=(),
    help="With --static: only these queues, between commas, of mistakes, conflicts, duplicates and"
    " crops.  [default: all]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="With --static: at most this many items of each queue.",
)
@catalogue_option
@images_option
@vocabulary_option
@click.pass_context
def review(
    context: click.Context,
    host: str,
    port: int,
    who: str | None,
    url_file: Path | None,
    static: Path | None,
    import_file: Path | None,
    queues: tuple[str, ...],
    limit: int,
    catalogue: str,
    images: str,
    vocabulary: Path | None,
) -> None:
    """Decide on a page in your browser what is doubtful in a catalogue, until Ctrl-C.

    There are four queues: tags that a model doubts (check-tags --catalogue), conflicts of labels,
    photos that may be one, and doubtful crops. Every decision is kept at once with who made it and
    when, can be undone, and holds in the next build-dataset.
    """
    _refuse_mixtures(context, static, import_file)
    from dataset.decisions import whoami

    who = who or whoami()
    if import_file:
        from dataset.review.decisions_file import import_decisions

        _show_imported(import_decisions(import_file, catalogue, vocabulary), import_file)
    elif static:
        from dataset.review.static_page import StaticOptions, write_static

        counts = write_static(
            StaticOptions(static, catalogue, images, who, vocabulary, queues, limit)
        )
        for name, count in counts.items():
            click.echo(f"{name}: {count} items")
        click.echo(f"open {static / 'review.html'}; what it saves: review --import FILE")
    else:
        from dataset.review.serving import ReviewOptions, serve

        serve(ReviewOptions(catalogue, images, who, vocabulary, host, port, url_file))


def _refuse_mixtures(context: click.Context, static: Path | None, file: Path | None) -> None:
    """Raise UsageError for options that mean nothing together."""
    given = {
        name
        for name in ("host", "port", "url_file", "queues", "limit", "static", "import_file")
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    allowed = {"host", "port", "url_file"}
    way = "the server"
    if file:
        allowed, way = {"import_file"}, "--import"
    elif static:
        allowed, way = {"static", "queues", "limit"}, "--static"
    names = {p.name: p.opts[0] for p in context.command.params}
    for name in sorted(given - allowed):
        raise click.UsageError(f"{names[name]} means nothing to {way}; leave it out", context)


def _show_imported(done: "Imported", file: Path) -> None:
    """Say what became of FILE's decisions.

    Raises:
        Failure: some were refused.
    """
    click.echo(f"{done.kept} decisions of {file} are kept, {done.known} were here already")
    for line in done.refused:
        click.echo(line, err=True)
    if done.refused:
        raise Failure(f"{len(done.refused)} decisions were refused; the others hold")
