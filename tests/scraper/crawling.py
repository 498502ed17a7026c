"""Runs `crawl` as a user does, on a sample shop."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import fashion_tagger
from scraper.sample_shop.server import SampleShop
from tests.catalogues import catalogue_of
from tests.dataset.filling import photo_bytes

DOOR = Path(fashion_tagger.__file__)


def class_folder(
    root: Path, label: str, count: int, first: int = 0, size: tuple[int, int] = (200, 260)
) -> Path:
    """ROOT, with a folder LABEL of COUNT photos in it, those that seeds from FIRST on draw."""
    folder = root / label
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03}.jpg").write_bytes(photo_bytes(first + number, size))
    return root


def start(
    shop: SampleShop,
    folder: Path,
    *options: str,
    site: str = "lamoda",
    secrets: Mapping[str, str] | None = None,
    address: Sequence[str] = (),
    before: Callable[[], None] | None = None,
) -> subprocess.Popen[str]:
    """`crawl SITE OPTIONS` in FOLDER, its catalogue there; SECRETS are in the environment.

    ADDRESS: options that say where the site is, where it is not SHOP. BEFORE: what the process does
    first.
    """
    address = address or ("--site-url", shop.url, "--image-url", shop.url)
    return subprocess.Popen(
        [sys.executable, str(DOOR), "crawl", site, *address, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
        env={
            **os.environ,
            "FASHION_TAGGER_CATALOGUE": catalogue_of(folder),
            **(secrets or {}),
        },
    )


def crawl(
    shop: SampleShop,
    folder: Path,
    *options: str,
    site: str = "lamoda",
    secrets: Mapping[str, str] | None = None,
    address: Sequence[str] = (),
) -> tuple[int, str]:
    """Its exit status, and all that it said."""
    process = start(shop, folder, *options, site=site, secrets=secrets, address=address)
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err
