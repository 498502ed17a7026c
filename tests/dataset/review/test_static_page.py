"""The page on disk, and the decisions that it saves, read back."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from dataset.catalogue.review_tables import CropDecision, PairDecision
from dataset.catalogue.tables import PostRow
from dataset.review.cli import review
from dataset.review.decisions_file import FORMAT
from tests.dataset.filling import Filling
from tests.dataset.review.reviewing import Page, labels, sha256

MADE = "2026-11-20T10:00:00.123Z"


def call(filling: Filling, *arguments: str) -> Result:
    place = ("--catalogue", filling.catalogue, "--images", str(filling.store))
    return CliRunner().invoke(review, [*arguments, *place])


def written(filling: Filling, *arguments: str) -> Path:
    out = filling.folder / "page"
    done = call(filling, "--static", str(out), "--who", "anna", *arguments)
    assert done.exit_code == 0, done.output
    return out


def told(page: Path) -> dict[str, list[dict[str, Any]]]:
    """The items of each queue on the page."""
    html = (page / "review.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    return {queue["name"]: queue["items"] for queue in json.loads(data)["queues"]}


def answer(item: dict[str, Any], kind: str, **more: str) -> dict[str, Any]:
    """What the page saves of ITEM."""
    said = {"state": item["state"], "answer": kind, "who": "berta", "made": MADE}
    return item["identity"] | said | more


def save(filling: Filling, *decisions: Any) -> str:
    file = filling.folder / "decisions.json"
    file.write_text(json.dumps({"format": FORMAT, "decisions": decisions}), encoding="utf-8")
    return str(file)


def test_the_page_holds_the_queues_and_small_photos(ready: Filling) -> None:
    page = written(ready)
    items = told(page)
    assert {name: len(rows) for name, rows in items.items()} == {
        "mistakes": 4,
        "conflicts": 1,
        "duplicates": 1,
        "crops": 1,
    }
    assert items["mistakes"][0]["identity"] == {
        "queue": "mistakes",
        "images": [sha256(ready, 3)],
        "tagged": "polo",
    }
    for rows in items.values():
        for item in rows:
            for photo in item["photos"]:
                assert (page / "photos" / f"{photo['id']}-large.jpg").stat().st_size > 500
    assert (page / "photos" / "2-small.jpg").exists()


def test_its_programs_are_those_that_its_policy_names(ready: Filling) -> None:
    html = (written(ready) / "review.html").read_text(encoding="utf-8")
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)[0].replace(
        "&#39;", "'"
    )
    for tag in ("script", "style"):
        (code,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_what_sites_sent_stays_text_on_disk(ready: Filling) -> None:
    evil = "</script><script>alert(1)</script><!-- \u2028 \"'&"
    with ready.sessions.begin() as session:
        session.execute(sa.update(PostRow).values(title=evil, url="javascript:alert(1)"))
    page = written(ready)
    html = (page / "review.html").read_text(encoding="utf-8")
    assert html.count("<script") == 2 and "alert(1)</script>" not in html
    post = told(page)["mistakes"][0]["photos"][0]["posts"][0]
    assert (post["title"], post["url"]) == (evil, "")


def test_what_was_decided_is_taken_over_once(ready: Filling) -> None:
    items = told(written(ready))
    file = save(
        ready,
        answer(items["mistakes"][0], "label", label="Платье"),
        answer(items["mistakes"][1], "out"),
        answer(items["duplicates"][0], "same"),
        answer(items["crops"][0], "whole"),
    )
    done = call(ready, "--import", file)
    assert (done.exit_code, done.output) == (
        0,
        f"4 decisions of {file} are kept, 0 were here already\n",
    )
    assert labels(ready) == [(3, "dress", "berta", True), (4, None, "berta", True)]
    again = call(ready, "--import", file)
    assert (again.exit_code, "0 decisions" in again.output) == (0, True)
    assert len(labels(ready)) == 2
    page = Page(ready, who="berta")
    page.undo(page.get("/queue/mistakes?item=3/polo"))
    assert "4 were here already" in call(ready, "--import", file).output
    assert labels(ready)[0] == (3, "dress", "berta", False)
    with ready.sessions() as session:
        tables: tuple[Any, ...] = (PairDecision, CropDecision)
        for table in tables:
            word = session.scalars(sa.select(table)).one()
            assert (word.who, f"{word.made:%d %H:%M:%S}") == ("berta", "20 10:00:00")


def test_what_was_decided_meanwhile_is_refused_and_named(ready: Filling) -> None:
    items = told(written(ready))
    page = Page(ready, who="carl")
    page.decide(page.get("/queue/mistakes"), "label", chosen="jacket")
    rows = [answer(item, "out") for item in items["mistakes"][:2]]
    done = call(ready, "--import", save(ready, *rows))
    assert done.exit_code == 1
    assert f"decision 1 ({sha256(ready, 3)[:12]}): decided meanwhile by carl: jacket" in done.output
    assert labels(ready) == [(3, "jacket", "carl", True), (4, None, "berta", True)]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"images": ["f" * 64]}, "unknown image"),
    ({"images": []}, "'images' is not a list of 1"),
    ({"images": "x"}, "'images' is not a list of 1"),
    ({"images": ["\0"]}, "'images' is not a list of 1"),
    ({"queue": "all"}, "no such queue"),
    ({"queue": 7}, "'queue' is not a text"),
    ({"tagged": "skirt"}, "no such item"),
    ({"answer": "same"}, "no answer here"),
    ({"answer": "label"}, "a label can't be empty"),
    ({"answer": "label", "label": ["polo"]}, "'label' is not a text"),
    ({"who": " "}, "who decided"),
    ({"who": "a\nb\x1b[31m"}, "who decided"),
    ({"made": "yesterday"}, "'made' is no moment"),
    ({"made": "2999-01-01T00:00:00Z"}, "in the future"),
    ({"made": 5}, "'made' is not a text"),
    ({"state": None}, "'state' is not a text"),
]


def test_what_is_malformed_is_named_and_the_rest_holds(ready: Filling) -> None:
    first, second = told(written(ready))["mistakes"][:2]
    good = answer(second, "out")
    bad = [answer(first, "out") | change for change, _ in WRONG]
    done = call(ready, "--import", save(ready, "x", None, *bad, good))
    assert done.exit_code == 1 and "Traceback" not in done.output
    lines = done.output.splitlines()
    assert "1 decisions of" in lines[0]
    assert all("it is no object" in line for line in lines[1:3])
    for (_, said), line in zip(WRONG, lines[3:], strict=False):
        assert said in line, (said, line)
    assert f"{len(WRONG) + 2} decisions were refused" in lines[-1]
    assert labels(ready) == [(4, None, "berta", True)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other", "decisions": []}', "[" * 100_000, "\udcff"]
)
def test_what_is_no_file_of_decisions_is_a_usage_error(ready: Filling, text: str) -> None:
    file = ready.folder / "x.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    done = call(ready, "--import", str(file))
    assert (done.exit_code, "Traceback" in done.output) == (2, False)
    assert "name a file that a page of review --static saved" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--import", "none.json"], "none.json: "),
        (["--static", "x", "--import", "y"], "--static means nothing to --import"),
        (["--static", "x", "--port", "8000"], "--port means nothing to --static"),
        (["--limit", "5"], "--limit means nothing to the server"),
        (["--static", "x", "--queue", "all"], "--queue all: choose from mistakes"),
        (["--port", "70000"], "70000"),
        (["--host", "no such host"], "--host no such host: "),
    ],
)
def test_options_that_mean_nothing_are_usage_errors(
    ready: Filling, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ready.folder)
    done = call(ready, *arguments)
    assert (done.exit_code, "Traceback" in done.output) == (2, False)
    assert said in done.output


def test_somebodys_folder_is_left_alone(ready: Filling) -> None:
    (ready.folder / "page").mkdir()
    (ready.folder / "page" / "theirs.txt").write_text("x")
    done = call(ready, "--static", str(ready.folder / "page"))
    assert done.exit_code == 2 and "is there already" in done.output
    assert len(told(written_elsewhere(ready))["mistakes"]) == 1


def written_elsewhere(filling: Filling) -> Path:
    out = filling.folder / "other"
    arguments = ("--queue", "mistakes", "--limit", "1")
    done = call(filling, "--static", str(out), *arguments)
    assert "mistakes: 1 items" in done.output and "crops" not in done.output.partition("open")[0]
    return out
