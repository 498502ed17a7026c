"""Decisions on the page: saved once, with their author, undoable, and used by builds."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from dataset.build import preview_build
from dataset.catalogue.models import CropDecision, ImageRow, NearDuplicateRow, PairDecision
from dataset.export.layout import BuildOptions
from dataset.vocabulary import load_vocabulary
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes
from tests.support.review_server import ReviewClient, add_verdict, labels, message_of, value_of


def test_mistakes_precede_unsure_verdicts_by_cost(page: ReviewClient) -> None:
    html, order = page.get("/queue/mistakes"), []
    for _ in range(4):
        order.append(value_of(html, "item"))
        html = page.decide(html, "exclude").text
    assert order == ["3/polo", "4/polo", "2/polo", "1/polo"]
    assert "All 4 items decided" in html


def test_each_answer_is_saved_with_its_author_and_leads_to_the_next_item(
    page: ReviewClient,
) -> None:
    html = page.get("/queue/mistakes")
    html = page.decide(html, "label", chosen="polo").text
    assert message_of(html) == "Saved: polo."
    html = page.decide(html, "label", chosen=" ПЛАТЬЕ ").text
    html = page.decide(html, "exclude").text
    assert value_of(html, "item") == "1/polo"
    assert labels(page.builder) == [
        (3, "polo", "anna", True),
        (4, "dress", "anna", True),
        (2, None, "anna", True),
    ]
    assert "3 decided, 1 left" in html


def test_proposed_labels_are_accepted_the_least_certain_first(page: ReviewClient) -> None:
    for image, probability in ((6, 0.9), (7, 0.4)):
        values = {"label": "", "verdict": "proposed", "suggested": "coat"}
        cost = 1 - probability
        add_verdict(page.builder, image, **values, probability=probability, cost=cost)
    assert "coat" not in page.get("/queue/mistakes/list").partition("</datalist>")[2]
    html = page.get("/queue/proposals")
    assert value_of(html, "item") == "7/" and "Is this <bdi>coat</bdi>?" in html
    assert "with a probability of 40%" in html and "Tagged" not in html
    assert "<bdi>coat</bdi>" in page.get("/queue/proposals/list?label=coat")
    html = page.decide(html, "label", chosen="coat").text
    assert value_of(html, "item") == "6/" and labels(page.builder) == [(7, "coat", "anna", True)]
    page.decide_batch(page.get("/queue/proposals/list"), "suggested", "6/")
    assert labels(page.builder)[1:] == [(6, "coat", "anna", True)]


@pytest.mark.parametrize("label", ["", "  ", "x" * 101, "a\x07b"])
def test_an_invalid_label_is_rejected_and_the_item_stays(page: ReviewClient, label: str) -> None:
    answer = page.decide(page.get("/queue/mistakes"), "label", chosen=label)
    assert answer.status_code == 422
    assert message_of(answer.text).startswith("Not saved: a label ")
    assert value_of(answer.text, "item") == "3/polo"
    assert labels(page.builder) == []


def test_the_second_of_two_tabs_gets_a_conflict_and_the_next_item(page: ReviewClient) -> None:
    other = ReviewClient(page.builder, who="bert")
    first_tab, second_tab = page.get("/queue/mistakes"), other.get("/queue/mistakes")
    page.decide(first_tab, "label", chosen="dress")
    shown = other.decide(second_tab, "exclude").text
    assert message_of(shown) == "Not saved: decided meanwhile by anna: dress."
    assert value_of(shown, "item") == "4/polo"
    assert labels(page.builder) == [(3, "dress", "anna", True)]


def test_an_item_that_another_tab_has_undone_is_shown_again(page: ReviewClient) -> None:
    first = page.decide(page.get("/queue/mistakes"), "label", chosen="dress").text
    reloaded = page.get("/queue/mistakes?item=3/polo")
    page.undo(first)
    shown = page.decide(reloaded, "exclude").text
    assert message_of(shown) == "Not saved: undone meanwhile."
    assert value_of(shown, "item") == "3/polo"


def test_a_decision_on_a_photo_without_a_cluster_holds_for_that_photo_only(
    page: ReviewClient,
) -> None:
    with page.builder.sessions.begin() as session:
        session.execute(sa.update(ImageRow).values(cluster_id=None))
    html = page.decide(page.get("/queue/mistakes"), "label", chosen="dress").text
    assert value_of(html, "item") == "4/polo"
    assert value_of(html, "state") == "open"


def test_undo_shows_the_item_also_after_a_restart(page: ReviewClient) -> None:
    page.decide(page.get("/queue/mistakes"), "label", chosen="dress")
    later = ReviewClient(page.builder)
    html = later.undo(later.get("/queue/mistakes")).text
    assert (message_of(html), value_of(html, "item")) == ("Undone: dress.", "3/polo")
    assert labels(page.builder) == [(3, "dress", "anna", False)]
    answer = later.post("/queue/mistakes/undo", html, ref="label-1")
    assert answer.status_code == 409 and "is undone already" in message_of(answer.text)


def test_a_decision_holds_for_all_copies_of_a_photo(page: ReviewClient) -> None:
    with page.builder.sessions.begin() as session:
        session.execute(sa.update(ImageRow).where(ImageRow.id == 4).values(cluster_id=3))
    html = page.decide(page.get("/queue/mistakes"), "label", chosen="dress").text
    assert value_of(html, "item") == "2/polo"


def test_the_next_build_uses_the_decision_on_a_conflict(page: ReviewClient) -> None:
    html = page.get("/queue/conflicts")
    assert "0 decided, 1 left" in html and '"jeans"' in html
    page.decide(html, "label", chosen="jeans")
    options = BuildOptions(page.builder.catalogue, page.builder.store.root, Path("x"), 1)
    plan = preview_build(options, load_vocabulary())
    assert {one.photo.image_id: one.label for one in plan.images}[5] == "jeans"
    assert "1 decided, 0 left" in page.get("/queue/conflicts")


def clusters(builder: CatalogueBuilder) -> dict[int, int | None]:
    with builder.sessions() as session:
        return {row.id: row.cluster_id for row in session.scalars(sa.select(ImageRow))}


def test_pairs_are_merged_or_kept_separate_and_undone(page: ReviewClient) -> None:
    html = page.get("/queue/duplicates")
    assert "one of them mirrored" in html
    html = page.decide(html, "same").text
    assert clusters(page.builder)[7] == 6 and message_of(html) == "Saved: near duplicates."
    html = page.undo(html).text
    assert len(set(clusters(page.builder).values())) == 8
    html = page.decide(html, "separate").text
    assert "1 decided, 0 left" in html
    with page.builder.sessions() as session:
        rows = session.scalars(sa.select(PairDecision).order_by(PairDecision.id)).all()
    assert [(row.same, row.undone is None) for row in rows] == [(True, False), (False, True)]


def test_a_pair_of_clusters_is_decided_once(page: ReviewClient) -> None:
    with page.builder.sessions.begin() as session:
        session.execute(sa.update(ImageRow).where(ImageRow.id == 8).values(cluster_id=7))
        session.execute(
            sa.insert(NearDuplicateRow).values(
                one_id=6, other_id=8, mirrored=False, similarity=0.88, relation="part"
            )
        )
    html = page.decide(page.get("/queue/duplicates"), "separate").text
    assert "2 decided, 0 left" in html
    shown = page.get("/queue/duplicates?item=6/8")
    assert "different photos" in shown and "anna" in shown


@pytest.mark.parametrize(("answer", "whole"), [("correct", False), ("whole", True)])
def test_an_uncertain_crop_is_decided(page: ReviewClient, answer: str, whole: bool) -> None:
    html = page.get("/queue/crops")
    assert value_of(html, "item") == "8/hrnet-small%3A0123/"
    assert '<rect class="crop" x="10.0" y="20.0" width="80.0" height="120.0"/>' in html
    html = page.decide(html, answer).text
    assert "1 decided, 0 left" in html
    with page.builder.sessions() as session:
        row = session.scalars(sa.select(CropDecision)).one()
    assert (row.image_id, row.keep_whole, row.who) == (8, whole, "anna")
    assert value_of(page.undo(html).text, "item").startswith("8/")


def test_an_excluded_photo_has_no_uncertain_crop(page: ReviewClient) -> None:
    html = page.decide(page.get("/queue/crops"), "exclude").text
    assert labels(page.builder) == [(8, None, "anna", True)]
    assert "1 decided, 0 left" in html
    assert value_of(page.undo(html).text, "item").startswith("8/")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"item": "3/polo", "answer": "same"}, 422),
        ({"item": "99/polo", "answer": "exclude"}, 422),
        ({"item": "3", "answer": "exclude"}, 400),
        ({"item": "x/polo", "answer": "exclude"}, 400),
        ({"item": f"{10**30}/polo", "answer": "exclude"}, 400),
        ({"answer": "exclude"}, 400),
        ({"item": "3/polo"}, 422),
    ],
)
def test_an_invalid_form_is_rejected(
    page: ReviewClient, fields: dict[str, str], status: int
) -> None:
    html = page.get("/queue/mistakes")
    answer = page.post("/queue/mistakes/decide", html, state="open", **fields)
    assert answer.status_code == status
    assert labels(page.builder) == []


def test_a_reviewer_can_change_the_name(page: ReviewClient) -> None:
    page.post("/who", page.get("/"), who="  Жанна д'Арк ")
    page.decide(page.get("/queue/mistakes"), "exclude")
    assert labels(page.builder) == [(3, None, "Жанна д'Арк", True)]


def test_a_deleted_photo_is_reported(page: ReviewClient) -> None:
    assert "no longer in the catalogue" in page.get("/queue/mistakes?item=99/polo")
    page.builder.image(photo_bytes(30))


def test_items_of_a_grid_are_decided_together_and_undone_together(page: ReviewClient) -> None:
    grid = page.get("/queue/mistakes/list")
    saved = page.decide_batch(grid, "suggested", "3/polo", "4/polo", "2/polo").text
    assert message_of(saved) == "Saved: 3 decisions."
    assert labels(page.builder) == [
        (3, "jacket", "anna", True),
        (4, "dress", "anna", True),
        (2, "dress", "anna", True),
    ]
    kept = page.decide_batch(page.get("/queue/mistakes/list"), "keep", "1/polo").text
    assert "No items." in kept
    assert labels(page.builder)[-1] == (1, "polo", "anna", True)
    # The latest batch first, then the one before.
    undone = page.undo_batch(kept).text
    assert message_of(undone) == "Undone: 1 decision."
    assert message_of(page.undo_batch(undone).text) == "Undone: 3 decisions."
    assert not any(holds for *_, holds in labels(page.builder))


def test_a_batch_keeps_what_somebody_else_has_decided_meanwhile(page: ReviewClient) -> None:
    other = ReviewClient(page.builder, who="bert")
    first, second = page.get("/queue/mistakes/list"), other.get("/queue/mistakes/list")
    page.decide_batch(first, "keep", "3/polo", "4/polo")
    shown = other.decide_batch(second, "exclude", "4/polo", "2/polo", "1/polo").text
    assert message_of(shown) == ("Saved: 2 decisions. Not saved: decided meanwhile by anna: polo.")
    assert labels(page.builder) == [
        (3, "polo", "anna", True),
        (4, "polo", "anna", True),
        (2, None, "bert", True),
        (1, None, "bert", True),
    ]
    # Undo concerns one's own decisions only.
    assert message_of(other.undo_batch(shown).text) == "Undone: 2 decisions."
    assert [holds for *_, holds in labels(page.builder)] == [True, True, False, False]


def test_a_batch_that_cannot_be_saved_says_why(page: ReviewClient) -> None:
    grid = page.get("/queue/mistakes/list")
    nothing = page.decide_batch(grid, "keep")
    assert nothing.status_code == 422
    assert message_of(nothing.text) == "Not saved: no item is selected."
    empty = page.decide_batch(grid, "label", "3/polo", chosen=" ")
    assert message_of(empty.text) == "Not saved: a label can't be empty (1 of 1 items)."
    unknown = page.decide_batch(grid, "same", "3/polo")
    assert message_of(unknown.text) == "Not saved: 'same' is not an answer here (1 of 1 items)."
    assert labels(page.builder) == []


def test_pairs_and_crops_are_decided_together(page: ReviewClient) -> None:
    pairs = page.decide_batch(page.get("/queue/duplicates/list"), "separate", "6/7").text
    crops = page.get("/queue/crops/list")
    keys: list[str] = re.findall(r'name="item-\d+" value="([^"]*)"', crops)
    page.decide_batch(crops, "whole", *keys)
    with page.builder.sessions() as session:
        assert [d.same for d in session.scalars(sa.select(PairDecision))] == [False]
        crop_decisions = session.scalars(sa.select(CropDecision)).all()
        assert len(crop_decisions) == len(keys) == 1
        assert crop_decisions[0].keep_whole
    assert message_of(page.undo_batch(pairs).text) == "Undone: 1 decision."


def test_a_photo_gets_several_labels_which_are_undone_together(page: ReviewClient) -> None:
    html = page.get("/queue/conflicts")
    assert value_of(html, "label-0") == "polo"
    assert value_of(html, "label-1") == "jeans"
    none = page.decide(html, "labels")
    assert message_of(none.text) == "Not saved: no label is selected."
    chosen = {"label-0": "polo", "label-1": "джинсы"}
    saved = page.decide(html, "labels", **chosen).text
    assert message_of(saved) == "Saved: polo, jeans."
    assert labels(page.builder) == [(5, "polo", "anna", True), (5, "jeans", "anna", True)]
    again = page.decide(html, "labels", **chosen).text
    assert message_of(again) == "Not saved: decided meanwhile by anna: polo, jeans."
    undone = page.undo(page.get("/queue/conflicts")).text
    assert message_of(undone) == "Undone: polo, jeans."
    assert [holds for *_, holds in labels(page.builder)] == [False, False]
    # The same in the grid, for all selected photos.
    grid = page.decide_batch(page.get("/queue/conflicts/list"), "all", "5").text
    assert message_of(grid) == "Saved: 1 decision."
    assert labels(page.builder)[2:] == [(5, "polo", "anna", True), (5, "jeans", "anna", True)]
    assert message_of(page.undo_batch(grid).text) == "Undone: 1 decision."


def test_a_build_of_several_labels_has_all_that_were_decided(page: ReviewClient) -> None:
    html = page.get("/queue/conflicts")
    page.decide(html, "labels", **{"label-0": "polo", "label-1": "jeans"})
    options = BuildOptions(
        page.builder.catalogue,
        page.builder.folder / "images",
        page.builder.folder / "out",
        1,
        multi_label=True,
    )
    plan = preview_build(options, load_vocabulary(None, multi_label=True))
    assert {image.labels for image in plan.images if image.photo.image_id == 5} == {
        ("polo", "jeans")
    }
