"""Compare builds with img2dataset: photos per second, from the same files to the same squares.

    python -m venv .venv-img2dataset
    .venv-img2dataset/bin/pip install -r benchmarks/requirements-img2dataset.txt
    python benchmarks/build.py --photos ../shared/data/clothing

img2dataset needs older libraries than this project, so it has an environment of its own. It
downloads the files from a server on loopback; a build reads its image store, as after a
crawl. Both letterbox on white to JPEGs of the same quality, in as many processes or threads as
there are cores. A build also finds near duplicates, applies quality gates, splits, audits and
reports; the time of that, of a second build, and the CPU usage are printed.
"""

import functools
import http.server
import json
import os
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click

from dataset.build import build
from dataset.catalogue.models import Cluster, Hashtag, ImageRow, PostHashtag, PostRow, Sighting
from dataset.catalogue.session import open_catalogue
from dataset.duplicates.pipeline import dedup
from dataset.export.layout import BuildOptions
from dataset.export.rendering import JPEG_QUALITY
from dataset.images.io import find_photos, open_photo, sha256_of
from dataset.images.store import ImageStore, open_store
from dataset.selection.crops import PoseOptions
from dataset.utils.cli_options import format_table
from dataset.vocabulary import load_vocabulary

SIZE = 342


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server with persistent connections and without a log."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def fill(folder: Path, photos: list[Path]) -> str:
    """Create a catalogue of photos in a folder, each in its own post; return its path."""
    catalogue = str(folder / "catalogue.sqlite")
    store = ImageStore(folder / "images")
    with open_catalogue(catalogue).begin() as session:
        tags: dict[str, Hashtag] = {}
        for number, path in enumerate(photos):
            data, image = path.read_bytes(), open_photo(path)
            key = store.key(sha256_of(data), "jpg")
            store.put(data, key)
            tag = tags.setdefault(path.parent.name, Hashtag(text=path.parent.name))
            cluster = Cluster()
            post = PostRow(
                site="lamoda", site_id=str(number), url=f"https://x.test/{number}", record=b""
            )
            session.add_all([tag, cluster, post])
            session.flush()
            row = ImageRow(
                sha256=sha256_of(data),
                width=image.width,
                height=image.height,
                format="JPEG",
                bytes=len(data),
                store_key=key,
                state="stored",
                cluster_id=cluster.id,
            )
            session.add(row)
            session.flush()
            session.add(PostHashtag(post_id=post.id, hashtag_id=tag.id, source="search"))
            session.add(
                Sighting(
                    post_id=post.id, position=0, url=path.name, state="stored", image_id=row.id
                )
            )
    return catalogue


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the duration of a function, and the mean number of busy cores."""

    def spent() -> float:
        uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(use.ru_utime + use.ru_stime for use in uses)

    began, used = time.perf_counter(), spent()
    work()
    seconds = time.perf_counter() - began
    return seconds, (spent() - used) / seconds


# What img2dataset's own Python runs; its imports are not counted.
IMG2DATASET = """
import json, sys
from img2dataset import download
print("ready", flush=True)
download(**json.loads(sys.stdin.readline()))
"""


class Img2dataset:
    """img2dataset, started in its own environment before its time is measured."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [python, "-c", IMG2DATASET],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": ""},
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise click.ClickException(
                f"{python} can't import img2dataset; install it: {python} -m pip install -r"
                " benchmarks/requirements-img2dataset.txt"
            )

    def download(self, folder: Path, photos: list[Path], root: Path) -> None:
        """Download photos from a server on loopback."""
        handler = functools.partial(Quiet, directory=str(root))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        addresses = folder / "addresses.txt"
        address = f"http://127.0.0.1:{server.server_port}"
        lines = [f"{address}/{path.relative_to(root).as_posix()}" for path in photos]
        addresses.write_text("\n".join(lines))
        options = {
            "url_list": str(addresses),
            "output_folder": str(folder / "theirs"),
            "image_size": SIZE,
            "resize_mode": "border",
            "encode_quality": JPEG_QUALITY,
            "processes_count": os.cpu_count() or 1,
            "thread_count": 32,
            "number_sample_per_shard": 250,
            "output_format": "files",
        }
        self._process.communicate(json.dumps(options) + "\n")
        server.shutdown()
        found = len(list((folder / "theirs").rglob("*.jpg")))
        click.echo(f"img2dataset wrote {found} of {len(photos)} photos")


@click.command()
@click.option("--photos", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--times", default=3, show_default=True, help="Rounds; the fastest counts.")
@click.option(
    "--img2dataset",
    "python",
    type=click.Path(path_type=Path, exists=True),
    default=Path(".venv-img2dataset/bin/python"),
    show_default=True,
    help="Python of an environment with img2dataset.",
)
def main(photos: Path, times: int, python: Path) -> None:
    """Measure photos per second of whole builds."""
    paths = find_photos(photos.rglob("*")).paths
    rows: dict[str, list[tuple[float, float]]] = {}
    for _ in range(times):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for what, work in _works(folder, paths, photos, python):
                rows.setdefault(what, []).append(timed(work))
    theirs = min(rows["img2dataset"])[0]
    lines = [
        (what, f"{len(paths) / best:.0f}", f"{theirs / best:.2f}x", f"{busy:.2f}")
        for what, (best, busy) in ((what, min(found)) for what, found in rows.items())
    ]
    click.echo(format_table(("build", "photos/s", "of img2dataset's", "cores busy"), lines))


def _works(
    folder: Path, paths: list[Path], root: Path, python: Path
) -> list[tuple[str, Callable[[], object]]]:
    catalogue = fill(folder, paths)
    options = BuildOptions(
        catalogue=catalogue,
        images=folder / "images",
        out=folder / "ours",
        min_per_class=1,
        size=SIZE,
        pose=PoseOptions(crop="none"),
    )
    sessions = open_catalogue(catalogue)
    words, peer = load_vocabulary(), Img2dataset(python)
    return [
        ("img2dataset", lambda: peer.download(folder, paths, root)),
        ("ours: looks and duplicates, once", lambda: dedup(sessions, open_store(options.images))),
        ("ours: build with audit and report", lambda: build(options, words)),
        ("ours: the same again", lambda: build(options, words)),
    ]


if __name__ == "__main__":
    main()
