"""`find-similar` as a user runs it, with a catalogue, a folder and a feed."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from PIL import Image, ImageColor, ImageDraw

from dataset.catalogue.models import PostRow
from dataset.images.io import open_photo, sha256_of
from dataset.images.store import open_store
from model.similar.build import EMBEDDER_CHUNK_SIZE
from model.similar.cli import find_similar
from model.similar.index_file import open_index
from tests.dataset.duplicates.test_verification import photo
from tests.model.similar.test_copies import bordered
from tests.support import drawn_splits
from tests.support.browser import CHROMIUM, find_overflow
from tests.support.catalogue_data import CatalogueBuilder, jpeg_of, patches_of
from tests.support.photo_site import serving
from tests.support.saved_runs import write_run

COLOURS = {"polo": "red", "dress": "blue", "hat": "green"}
COUNTS = {"train": 8, "validation": 3, "test": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, in `run`, and small drawn photos in `splits`."""
    folder = tmp_path_factory.mktemp("made")
    for split, count in COUNTS.items():
        for label, colour in COLOURS.items():
            (folder / "splits" / split / label).mkdir(parents=True)
            for number in range(count):
                # Rectangles would be copies of each other.
                photo = patches_of(np.random.default_rng(number), ImageColor.getrgb(colour)[:3])
                photo.save(folder / "splits" / split / label / f"{number}.png")
    write_run(folder / "run", sorted(COLOURS), ("mixed0",))
    return folder


@pytest.fixture(scope="module")
def work(made: Path) -> Path:
    """The folder with an index of the train photos."""
    done = find(made, "--build", "--from", "splits/train", "--model", "run")
    assert done.exit_code == 0, done.stderr
    assert "24 items in the index, 24 of them new" in done.stdout
    return made


def find(folder: Path, *words: str) -> Result:
    """Run find-similar in a folder, in this process, which has imported Keras."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ("--cache", str(folder / "cache"), *words)
        return CliRunner().invoke(find_similar, arguments, catch_exceptions=False)


def command(folder: Path, *words: str) -> list[str | Path]:
    """Return the command for another process."""
    return [
        sys.executable,
        drawn_splits.PROGRAM,
        "find-similar",
        "--cache",
        str(folder / "cache"),
        *words,
    ]


def answers(folder: Path, *words: str) -> list[dict[str, Any]]:
    done = find(folder, *words, "--json", "-")
    return json.loads(done.stdout)["queries"]


def ids(answer: dict[str, Any]) -> list[str]:
    return [result["id"] for result in answer["results"]]


def garment(path: Path, colour: str, left: int) -> Path:
    photo = Image.new("RGB", (90, 120), "white")
    ImageDraw.Draw(photo).rectangle((left, 10, left + 50, 100), fill=colour)
    photo.save(path)
    return path


def test_queries_by_photo_and_by_item(work: Path) -> None:
    of_photo, of_item = answers(work, "splits/test/dress/1.png", "dress/3.png", "--top", "5")
    # The drawn photo of the test split is, by its bytes, one of the train split.
    assert of_photo["item"]["label"] == "dress"
    assert len(of_item["results"]) == 5
    assert "dress/3.png" not in ids(of_item)
    assert {result["label"] for result in of_item["results"][:3]} == {"dress"}
    ranks = [result["similarity"] for result in of_item["results"]]
    assert ranks == sorted(ranks, reverse=True)


def test_a_new_photo_is_predicted(work: Path) -> None:
    garment(work / "new.png", "red", 33)
    (answer,) = answers(work, "new.png", "--same-label", "--top", "4")
    assert answer["is_label_predicted"] is True
    assert {result["label"] for result in answer["results"]} == {answer["item"]["label"]}


def test_broken_and_missing_photos_fail_and_the_others_have_results(work: Path) -> None:
    (work / "broken.jpg").write_bytes(b"no photo at all")
    done = find(work, "broken.jpg", "dress/3.png", "gone.jpg", "--top", "3")
    assert done.exit_code == 1
    assert "broken.jpg: broken: not an image" in done.stderr
    assert "gone.jpg: no such file, and no such item in similar.index" in done.stderr
    assert "2 of 3 queries have no results" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("dress/3.png (dress)\n")
    assert len(done.stdout.splitlines()) >= 6


def test_filters_of_labels_and_unknown_ones(work: Path) -> None:
    (answer,) = answers(work, "dress/3.png", "--label", "hat,polo", "--top", "16")
    assert {result["label"] for result in answer["results"]} == {"hat", "polo"}
    done = find(work, "dress/3.png", "--label", "sock")
    assert done.exit_code == 2
    assert "which has: dress, hat, polo" in done.stderr


def test_the_page_holds_photos_and_escapes_names(work: Path) -> None:
    name = "x<img src=y onerror=alert(1)>.png"
    garment(work / name, "blue", 21)
    done = find(work, name, "hat/2.png", "--top", "3", "--html", "out.html")
    assert done.exit_code == 0, done.stderr
    html = (work / "out.html").read_text(encoding="utf-8")
    assert html.count('<img src="data:image/jpeg;base64,') == 8
    assert "onerror=alert(1)&gt;" in html
    assert "<img src=y" not in html
    if CHROMIUM:
        assert find_overflow(work / "out.html") == []


def test_items_are_added_and_removed(work: Path) -> None:
    shutil.copy(work / "similar.index", work / "grown.index")
    garment(work / "more.png", "yellow", 12)
    words = ("--index", "grown.index")
    done = find(work, "--add", "more.png", "splits/test/hat/0.png", "nothing.png", *words)
    assert "26 items in the index, 2 of them new" in done.stdout
    assert "excluded nothing.png: no such file" in done.stderr
    assert done.exit_code == 1
    again = find(work, "--add", "more.png", *words)
    assert "26 items in the index, 0 of them new" in again.stdout
    (answer,) = answers(work, "more.png", *words)
    assert answer["item"]["id"] == "more.png"
    removed = find(work, "--remove", "more.png", "hat/1.png", *words)
    assert "24 items in the index" in removed.stdout
    refused = find(work, "--remove", "hat/2.png", "hat/1.png", *words)
    assert refused.exit_code == 2
    assert "nothing was removed" in refused.stderr
    (answer,) = answers(work, "hat/2.png", "--top", "30", *words)
    assert not {"more.png", "hat/1.png"} & set(ids(answer))


def test_recommendations_for_all(work: Path) -> None:
    done = find(work, "--all", "--out", "r.csv", "--top", "4")
    assert done.exit_code == 0, done.stderr
    with (work / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_item: dict[str, list[str]] = {}
    for row in rows:
        by_item.setdefault(row["id"], []).append(row["similar_id"])
    assert len(by_item) == 24
    for name, similar in by_item.items():
        assert len(set(similar)) == len(similar) <= 4
        assert name not in similar


def test_a_second_build_predicts_new_photos_only_and_is_equal(made: Path) -> None:
    shutil.copytree(made / "splits" / "train", made / "growing")
    words = ("--build", "--from", "growing", "--model", "run", "--index", "g.index")
    assert find(made, *words).exit_code == 0
    first = (made / "g.index").read_bytes()
    (cache,) = (made / "cache").glob("outputs-*.sqlite")
    with sqlite3.connect(cache) as base:
        before = dict(base.execute("SELECT view, value FROM outputs").fetchall())
    assert find(made, *words).exit_code == 0
    assert (made / "g.index").read_bytes() == first
    garment(made / "growing" / "hat" / "new.png", "orange", 27)
    assert "25 items" in find(made, *words).stdout
    with sqlite3.connect(cache) as base:
        after = dict(base.execute("SELECT view, value FROM outputs").fetchall())
    assert len(after) == len(before) + 1
    assert all(after[view] == value for view, value in before.items())


@pytest.mark.slow
def test_a_killed_build_keeps_predictions(made: Path) -> None:
    many = made / "many" / "polo"
    many.mkdir(parents=True)
    for number in range(EMBEDDER_CHUNK_SIZE + 40):
        photo = Image.new("RGB", (60, 80), (number % 256, number // 256 * 90, 120))
        photo.save(many / f"{number:03}.png")
    # A photo that can never be read, after the first chunk.
    last = many / f"{EMBEDDER_CHUNK_SIZE + 20}.png"
    last.unlink()
    os.mkfifo(last)
    own = ("--cache", str(made / "own"))
    words = ("--build", "--from", "many", "--model", "run", "--index", "m.index", *own)
    process = subprocess.Popen(command(made, *words), cwd=made, stderr=subprocess.DEVNULL)

    def cached_photos() -> int:
        found = list((made / "own").glob("outputs-*.sqlite"))
        if not found:
            return 0
        with sqlite3.connect(found[0]) as base:
            try:
                return base.execute("SELECT COUNT(*) FROM outputs").fetchone()[0]
            except sqlite3.OperationalError:
                return 0

    while cached_photos() < EMBEDDER_CHUNK_SIZE:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cached_photos() == EMBEDDER_CHUNK_SIZE
    assert not (made / "m.index").exists()
    last.unlink()
    garment(last, "red", 3)
    done = find(made, *words)
    assert f"{EMBEDDER_CHUNK_SIZE + 40} items in the index" in done.stdout, done.stderr
    assert cached_photos() == EMBEDDER_CHUNK_SIZE + 40


def test_a_feed_with_bad_rows(made: Path) -> None:
    (made / "splits" / "broken.png").write_bytes(b"none")
    (made / "feed.csv").write_text(
        "id,image,tag,price,title,link,item_group_id\n"
        'a,train/polo/0.png,polo,"1 299,50 RUB",One,https://shop.test/a,g1\n'
        "b,train/polo/1.png,polo,20,Two,javascript:alert(1),g1\n"
        "c,train/dress/2.png,dress,30 EUR,<b>Three</b>,,\n"
        "c,train/dress/3.png,dress,30,twice,,\n"
        "d,gone.png,dress,1,,,\n"
        "e,broken.png,dress,1,,,\n"
        "f,../run/model.keras,dress,1,,,\n"
        "g,ftp://shop.test/g.jpg,hat,1,,,\n"
        "h,train/hat/0.png,hat,5,,,\n"
        "short,row\n",
        encoding="utf-8",
    )
    build = ("--build", "--from", "feed.csv", "--image-root", "splits", "--model", "run")
    done = find(made, *build, "--index", "feed.index")
    assert done.exit_code == 0, done.stderr
    assert "4 items in the index" in done.stdout
    for name, why in {"c": "duplicate id", "d": "no such file", "e": "broken", "f": "outside",
                      "g": "URL with ftp", "short": "2 cells"}.items():  # fmt: skip
        assert f"excluded {name}: " in done.stderr
        assert why in done.stderr
    (answer,) = answers(made, "c", "--index", "feed.index")
    # Which of the two is more similar depends on the model.
    (price,) = {r["price"] for r in answer["results"] if r["id"] in ("a", "b")}
    assert price in (1299.5, 20)
    # The two of one group are one result.
    assert len(answer["results"]) == 2
    cheap = answers(made, "c", "--index", "feed.index", "--price-to", "10")[0]
    assert ids(cheap) == ["h"]
    page = find(made, "c", "--index", "feed.index", "--html", "feed.html")
    assert page.exit_code == 0
    html = (made / "feed.html").read_text(encoding="utf-8")
    assert "javascript:" not in html
    assert "<b>Three" not in html


def recommended(folder: Path, index: str) -> dict[str, set[str]]:
    """Return the recommendations for each item of an index."""
    done = find(folder, "--all", "--out", f"{index}.csv", "--index", index)
    assert done.exit_code == 0, done.stderr
    similar: dict[str, set[str]] = {}
    with (folder / f"{index}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            similar.setdefault(row["id"], set()).add(row["similar_id"])
    return similar


def copies_of(folder: Path, index: str) -> list[set[str]]:
    """Return the groups of copies of an index."""
    groups: dict[str, set[str]] = {}
    with closing(open_index(folder / index)) as opened:
        for _, item in opened.all_items():
            if item.cluster:
                groups.setdefault(item.cluster, set()).add(item.id)
    return sorted(groups.values(), key=min)


@pytest.fixture(scope="module")
def copied(made: Path) -> Path:
    """The folder with photos in `copied`, two of which are copies of each other."""
    folder = made / "copied" / "polo"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(jpeg_of(photo(number)))
    (folder / "9.jpg").write_bytes(jpeg_of(bordered(photo(0)), 80))
    return made


def test_copies_in_a_folder_are_one_result(copied: Path) -> None:
    done = find(copied, "--build", "--from", "copied", "--model", "run", "--index", "c.index")
    assert "6 items in the index, 6 of them new" in done.stdout, done.stderr
    assert "items that show the same photo as another one: 1" in done.stdout
    pair = {"polo/0.jpg", "polo/9.jpg"}
    assert copies_of(copied, "c.index") == [pair]
    for name, similar in recommended(copied, "c.index").items():
        assert len(similar & pair) == (0 if name in pair else 1)
    (answer,) = answers(copied, "polo/3.jpg", "--index", "c.index")
    assert len(answer["results"]) == 4
    # Photos that are not in the index: copies of its items, and of none.
    (copied / "query.jpg").write_bytes(jpeg_of(bordered(photo(0)), 60))
    (copied / "single.jpg").write_bytes(jpeg_of(bordered(photo(3)), 60))
    (copied / "other.jpg").write_bytes(jpeg_of(photo(8)))
    words = ("query.jpg", "single.jpg", "other.jpg", "--index", "c.index")
    assert [len(answer["results"]) for answer in answers(copied, *words)] == [5, 5, 5]
    queries = answers(copied, *words, "--exclude-duplicates")
    assert [len(answer["results"]) for answer in queries] == [4, 4, 5]
    assert not pair & set(ids(queries[0]))
    assert "polo/3.jpg" not in ids(queries[1])


def test_copies_in_a_feed_are_one_result_and_added_ones_join_them(copied: Path) -> None:
    rows = [f"p{number},polo/{number}.jpg,polo" for number in (9, 3, 2, 1)]
    (copied / "copied" / "feed.csv").write_text("\n".join(["id,image,tag", *rows]), "utf-8")
    words = ("--from", "copied/feed.csv", "--index", "f.index")
    done = find(copied, "--build", "--model", "run", *words)
    assert "4 items in the index" in done.stdout, done.stderr
    assert copies_of(copied, "f.index") == []
    rows += ["p0,polo/0.jpg,polo"]
    (copied / "copied" / "feed.csv").write_text("\n".join(["id,image,tag", *rows]), "utf-8")
    done = find(copied, "--add", *words)
    assert "5 items in the index, 1 of them new" in done.stdout, done.stderr
    (copied / "elsewhere.jpg").write_bytes(jpeg_of(photo(0).resize((210, 270)), 70))
    done = find(copied, "--add", "elsewhere.jpg", "--index", "f.index")
    assert "items that show the same photo as another one: 2" in done.stdout
    copies = {"p0", "p9", "elsewhere.jpg"}
    assert copies_of(copied, "f.index") == [copies]
    for name, similar in recommended(copied, "f.index").items():
        assert len(similar & copies) == (0 if name in copies else 1)


def test_items_of_an_index_without_groups_are_grouped_by_the_next_change(copied: Path) -> None:
    words = ("--from", "copied", "--model", "run", "--index", "old.index")
    assert find(copied, "--build", *words).exit_code == 0
    with sqlite3.connect(copied / "old.index") as base:
        base.execute("UPDATE items SET cluster = ''")
        base.execute("DELETE FROM facts WHERE name = 'copies'")
    base.close()
    assert len(answers(copied, "polo/3.jpg", "--index", "old.index")[0]["results"]) == 5
    (copied / "new.jpg").write_bytes(jpeg_of(photo(7)))
    assert find(copied, "--add", "new.jpg", "--index", "old.index").exit_code == 0
    assert copies_of(copied, "old.index") == [{"polo/0.jpg", "polo/9.jpg"}]


@pytest.mark.slow
def test_photos_at_urls_of_a_feed_are_downloaded_once(made: Path) -> None:
    photos = {f"/{n}.png": garment(made / "sent.png", "red", 5 * n).read_bytes() for n in range(3)}
    with serving(photos) as site:
        rows = [f"p{n},{site.url}/{n}.png,polo" for n in range(4)]
        (made / "web.csv").write_text("\n".join(["id,image,tag", *rows]), encoding="utf-8")
        words = ("--build", "--from", "web.csv", "--model", "run", "--index", "web.index")
        done = find(made, *words, "--allow-private-hosts", "--contact", "me@shop.example")
        assert "3 items in the index" in done.stdout, done.stderr
        assert "excluded p3: not downloaded: HTTP 404" in done.stderr
        assert [site.requests[path] for path in photos] == [1, 1, 1]
    done = find(made, "p0", "--index", "web.index", "--html", "web.html")
    assert done.exit_code == 0, done.stderr
    html = (made / "web.html").read_text(encoding="utf-8")
    assert html.count('<img src="data:image/jpeg;base64,') == 1 + html.count("<li>")
    gone = find(made, "--build", "--from", "web.csv", "--image-root", "gone", "--model", "run")
    assert (gone.exit_code, "--image-root gone: no such folder" in gone.stderr) == (2, True)


@pytest.fixture(scope="module")
def shop(made: Path) -> Path:
    """A catalogue of products of two photos each, and its index."""
    folder = made / "shop"
    folder.mkdir()
    builder, rng = CatalogueBuilder(folder), np.random.default_rng(0)
    for number in range(12):
        label = ("polo", "dress", "hat")[number % 3]
        post = builder.post(f"P{number}", label)
        # Rectangles would be detected as near duplicates.
        for _ in range(2):
            builder.image(jpeg_of(patches_of(rng, ImageColor.getrgb(COLOURS[label])[:3])), post)
    with builder.sessions.begin() as session:
        for row in session.scalars(sa.select(PostRow)):
            row.price, row.currency, row.title = 10.0 * row.id, "EUR", f"Nice <i>{row.id}</i>"
    # Photos are not cropped: the run was trained on plain folders.
    done = find(folder, "--build", "--model", "../run", "--catalogue", "catalogue.sqlite")
    assert done.exit_code == 0, done.stderr
    return folder


def test_a_catalogue_is_searched_by_product_address_and_hash(shop: Path) -> None:
    by_product, by_url = answers(shop, "P4", "https://x.test/p/P4/", "--top", "3")
    assert by_product["item"]["product"] == by_url["item"]["product"] == "lamoda:P4"
    by_hash = answers(shop, by_product["item"]["sha256"][:12], "--top", "3")[0]
    assert by_hash["item"] == by_product["item"]
    products = [result["product"] for result in by_product["results"]]
    assert len(set(products)) == 3
    without = answers(shop, "P4", "--exclude-duplicates", "--top", "12")[0]
    assert "lamoda:P4" not in {result["product"] for result in without["results"]}
    assert without["results"][0]["currency"] == "EUR"


def test_a_catalogue_is_filtered_by_site_and_price(shop: Path) -> None:
    words = ("--site", "lamoda", "--price-from", "30", "--price-to", "80", "--top", "50")
    (answer,) = answers(shop, "P0", *words)
    assert {result["price"] for result in answer["results"]} == {30, 40, 50, 60, 70, 80}


def test_new_photos_of_a_catalogue_are_found_and_added(shop: Path) -> None:
    builder = CatalogueBuilder(shop)
    photo = garment(shop / "photo.png", "purple", 31).read_bytes()
    builder.image(photo, builder.post("P90", "dress"))
    (shop / "photo.png").unlink()
    (answer,) = answers(shop, sha256_of(photo)[:10], "--top", "3")
    assert answer["is_label_predicted"] is True
    done = find(shop, "--add")
    assert "1 of them new" in done.stdout
    (answer,) = answers(shop, "P90")
    assert answer["item"]["label"] == "dress"


def test_a_file_that_is_added_joins_the_cluster_of_a_photo_of_the_catalogue(shop: Path) -> None:
    shutil.copy(shop / "similar.index", shop / "more.index")
    words = ("--index", "more.index")
    (original,) = answers(shop, "P5", *words)
    data = open_store(str(shop / "images")).read(original["item"]["image"])
    copies = [bordered(open_photo(data)), open_photo(data).resize((90, 120))]
    for number, copy in enumerate([*copies, photo(1)]):
        (shop / f"{number}.jpg").write_bytes(jpeg_of(copy, 85))
    assert find(shop, "--add", "0.jpg", "1.jpg", "2.jpg", *words).exit_code == 0
    with closing(open_index(shop / "more.index")) as index:
        clusters = {item.id: item.cluster for _, item in index.all_items()}
    assert clusters["0.jpg"] == clusters["1.jpg"] == clusters[original["item"]["id"]]
    assert clusters["2.jpg"] == ""


def test_recommendations_of_a_catalogue_are_other_products(shop: Path) -> None:
    assert find(shop, "--all").exit_code == 0
    with (shop / "recommendations.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(row["product"] != row["similar_product"] for row in rows)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 2, "name a photo or an item"),
        (("--build",), 2, "--model"),
        (("dress/3.png", "--fetched", "here"), 2, "--fetched has no effect"),
        (("--build", "--all"), 2, "exclude each other"),
        (("--all", "dress/3.png"), 2, "takes no names"),
        (("dress/3.png", "--out", "x.csv"), 2, "--out has no effect"),
        (("dress/3.png", "--index", "none.index"), 2, "find-similar --build"),
        (("dress/3.png", "--html", "/dev/null/x.html"), 1, "can't be written"),
        (("dress/3.png", "--html", "/dev/null"), 1, "is not a regular file"),
        (("dress/3.png", "--json", "/dev/null/x.json"), 1, "can't be written"),
        (("--all", "--out", "/dev/null/x.csv"), 1, "can't be written"),
        (("dress/3.png", "--price-from", "9", "--price-to", "5"), 2, "exchange them"),
        (("dress/3.png", "--price-to", "nan"), 2, "--price-to is not a number"),
        (("",), 1, "no such item in similar.index"),
        (("--build", "--model", "run", "--from", "gone"), 2, "--from gone"),
        (("--build", "--model", "splits", "--from", "splits"), 2, "not a run of train-model"),
    ],
)
def test_wrong_usage_is_rejected(
    work: Path, words: tuple[str, ...], status: int, message: str
) -> None:
    done = find(work, *words)
    assert done.exit_code == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_index_of_another_model_is_rejected(work: Path) -> None:
    shutil.copytree(work / "run", work / "other")
    shutil.copytree(work / "run", work / "unlike")
    network = keras.saving.load_model(work / "run" / "model.keras", compile=False)
    network.set_weights([1.01 * weight for weight in network.get_weights()])
    network.save(work / "unlike" / "model.keras")
    garment(work / "unseen.png", "red", 30)
    done = find(work, "unseen.png", "--model", "unlike")
    assert done.exit_code == 1
    assert "another model" in done.stderr
    assert find(work, "unseen.png", "--model", "other").exit_code == 0
