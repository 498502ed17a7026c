"""A catalogue with items in every review queue, and a client of the review pages."""

import json
import re
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from starlette.testclient import TestClient

from dataset.catalogue.models import (
    CropRow,
    ImageRow,
    LabelDecision,
    NearDuplicateRow,
    PoseRow,
    PostRow,
    TagVerdictRow,
)
from dataset.review.pages import ReviewContext
from dataset.review.queues import find_conflicts
from dataset.review.security import AccessPolicy, create_access_policy
from dataset.review.server import create_app
from dataset.vocabulary import load_vocabulary
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes

PORT = 8000
BASE = f"http://127.0.0.1:{PORT}"
MODEL = "hrnet-small:0123"


def add_verdict(builder: CatalogueBuilder, image: int, **values: Any) -> None:
    """Add a model's verdict on an image, by default a mistake."""
    defaults: dict[str, Any] = {
        "label": "polo",
        "model": "m:1",
        "verdict": "mistake",
        "suggested": "dress",
    }
    defaults |= {
        "probability": 0.9,
        "tag_probability": 0.04,
        "margin": 0.8,
        "cost": 0.9,
        "nearest": "[]",
    }
    with builder.sessions.begin() as session:
        session.add(TagVerdictRow(image_id=image, **(defaults | values)))


def sha256(builder: CatalogueBuilder, image: int) -> str:
    with builder.sessions() as session:
        return session.get_one(ImageRow, image).sha256


def filled(folder: Path) -> CatalogueBuilder:
    """Fill a catalogue.

    Images 1 to 4 have suspected mistakes, 5 has two labels, 6 and 7 may be near duplicates, and 8
    has an uncertain crop.
    """
    builder = CatalogueBuilder(folder)
    builder.products("polo", 4, 0)
    builder.image(photo_bytes(4), builder.post("both", "polo", "jeans"))
    builder.products("dress", 3, 5)
    nearest = [{"sha256": sha256(builder, 2), "label": "dress", "similarity": 0.9}]
    add_verdict(builder, 1, verdict="unsure", cost=0.95)
    add_verdict(builder, 2, cost=0.5)
    add_verdict(builder, 3, cost=0.7, suggested="jacket", nearest=json.dumps(nearest))
    add_verdict(builder, 4, cost=0.6)
    add_verdict(builder, 5, verdict="agrees", cost=0.1)
    points = np.tile(np.array([60, 80, 0.9, 50, 70, 70, 90], "<f4"), (17, 1))
    with builder.sessions.begin() as session:
        session.add(NearDuplicateRow(one_id=6, other_id=7, mirrored=True, similarity=0.9))
        for image, score in ((7, 0.8), (8, 0.31)):
            session.add(PoseRow(image_id=image, model=MODEL, points=points.tobytes()))
            session.add(
                CropRow(
                    **{"image_id": image, "model": MODEL, "zone": "", "outcome": "person"},
                    **{"reason": "", "score": score},
                    **{"left": 10.0, "top": 20.0, "right": 90.0, "bottom": 140.0},
                )
            )
        for post in session.scalars(sa.select(PostRow)):
            post.title = f"Рубашка {post.id}" if post.id % 2 else f"Shirt {post.id}"
    find_conflicts(builder.sessions, load_vocabulary())
    return builder


@dataclass
class ReviewClient:
    """A browser's session on the review pages."""

    builder: CatalogueBuilder
    who: str = "anna"
    policy: AccessPolicy = field(default_factory=lambda: create_access_policy("127.0.0.1", PORT))
    client: TestClient = field(init=False)

    def __post_init__(self) -> None:
        review = ReviewContext(
            self.builder.sessions, self.builder.store, load_vocabulary(), self.who, self.policy
        )
        self.client = TestClient(create_app(review), base_url=BASE)

    def get(self, path: str) -> str:
        """Return the HTML of a path."""
        response = self.client.get(path)
        assert response.status_code == 200, response.text
        return response.text

    def post(self, path: str, html: str, **fields: str) -> Any:
        """Submit a form with the CSRF token of a page; return the response after redirects."""
        csrf = re.findall(r'name="csrf" value="([^"]+)"', html)[0]
        return self.client.post(path, data={"csrf": csrf, **fields})

    def decide(self, html: str, answer: str, **fields: str) -> Any:
        """Submit an answer on the item that a page shows."""
        shown = {name: value_of(html, name) for name in ("item", "state")}
        queue = re.findall(r'action="/queue/(\w+)/decide"', html)[0]
        return self.post(f"/queue/{queue}/decide", html, **shown, answer=answer, **fields)

    def decide_batch(self, html: str, answer: str, *keys: str, **fields: str) -> Any:
        """Submit an answer on items of the grid that a page shows."""
        queue = re.findall(r'action="/queue/(\w+)/decide-batch"', html)[0]
        shown = dict(re.findall(r'name="(item-\d+)" value="([^"]*)"', html))
        states = dict(re.findall(r'name="(state-\d+)" value="([^"]*)"', html))
        chosen = {name: unescape(key) for name, key in shown.items() if unescape(key) in keys}
        assert len(chosen) == len(keys)
        data = {**states, **chosen, "answer": answer, **fields}
        return self.post(f"/queue/{queue}/decide-batch", html, **data)

    def undo_batch(self, html: str) -> Any:
        """Submit the undo form of a grid."""
        queue = re.findall(r'action="/queue/(\w+)/undo-batch"', html)[0]
        ref = re.findall(r'name="ref" value="([^"]*)"', html)[0]
        return self.post(f"/queue/{queue}/undo-batch", html, ref=ref)

    def undo(self, html: str) -> Any:
        """Submit the undo form of a page."""
        queue = re.findall(r'action="/queue/(\w+)/undo"', html)[0]
        return self.post(f"/queue/{queue}/undo", html, ref=value_of(html, "ref"))


def value_of(html: str, name: str) -> str:
    """Return the value of a field of a page's form."""
    return unescape(re.findall(rf'name="{name}" value="([^"]*)"', html)[0])


def message_of(html: str) -> str:
    """Return the status message of a page."""
    return unescape(re.findall(r'id="message"[^>]*>([^<]*)<', html)[0])


def labels(builder: CatalogueBuilder) -> list[tuple[int, str | None, str, bool]]:
    """Return image, label and author of the label decisions, and whether each holds."""
    with builder.sessions() as session:
        rows = session.scalars(sa.select(LabelDecision).order_by(LabelDecision.id))
        return [(row.image_id, row.label, row.who, row.undone is None) for row in rows]
