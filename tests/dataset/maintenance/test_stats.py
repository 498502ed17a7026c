"""`catalogue stats` through the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fashion_tagger
from dataset.catalogue.models import Search, Sighting
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> CatalogueBuilder:
    """Add four polos, two of them near duplicates, a rejection and a failed search."""
    builder = CatalogueBuilder(tmp_path_factory.mktemp("catalogue"))
    posts = [builder.post(f"P{n}", "polo") for n in range(4)]
    both = builder.post("B", "поло", "dress")
    cluster = builder.image(photo_bytes(1), posts[0])
    builder.image(photo_bytes(1, quality=50), posts[1], cluster=cluster)
    builder.image(photo_bytes(2), posts[2])
    builder.image(photo_bytes(3), both)
    with builder.sessions.begin() as session:
        for place, (state, reason) in enumerate((("rejected", "HTTP 500"), ("pending", None))):
            session.add(
                Sighting(
                    post_id=posts[3],
                    position=place,
                    url=f"https://x.test/{place}",
                    state=state,
                    reason=reason,
                )
            )
        session.add(Search(site="lamoda", hashtag="coat", state="failed", reason="layout changed"))
    return builder


def stats(builder: CatalogueBuilder, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, fashion_tagger.__file__, "catalogue", "stats", *options],
        env={"FASHION_TAGGER_CATALOGUE": builder.catalogue},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_searches_labels_and_rejections_are_counted(filled: CatalogueBuilder) -> None:
    found = json.loads(stats(filled, "--json", "--min-per-class", "5"))
    lines = {line["hashtag"]: line for line in found["searches"]}
    assert {name: lines["polo"][name] for name in ("posts", "images", "duplicates")} == {
        "posts": 4,
        "images": 3,
        "duplicates": 1,
    }
    assert (lines["polo"]["rejected"], lines["polo"]["pending"]) == (1, 1)
    assert (lines["coat"]["state"], lines["coat"]["reason"]) == ("failed", "layout changed")
    assert found["labels"] == [{"label": "polo", "photos": 2, "missing": 3}]
    assert found["rejected"] == [{"site": "lamoda", "reason": "HTTP 500", "photos": 1}]
    assert found["excluded"] == {"duplicate of another photo": 1, "conflict of labels": 1}


def test_the_text_has_the_same_counts(filled: CatalogueBuilder) -> None:
    lines = [" ".join(line.split()) for line in stats(filled, "--min-per-class", "5").splitlines()]
    assert "lamoda polo 4 3 1 1 1 finished" in lines
    assert "lamoda coat 0 0 0 0 0 failed" in lines
    assert "lamoda coat failed: layout changed" in lines
    assert "polo 2 3" in lines
    assert "lamoda HTTP 500 1" in lines
    assert "excluded 1: conflict of labels" in lines


def test_a_missing_catalogue_is_not_created(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, fashion_tagger.__file__, "catalogue", "stats"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "catalogue.sqlite" in done.stderr
    assert list(tmp_path.iterdir()) == []
