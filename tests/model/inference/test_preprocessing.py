"""Preprocessing of photos: crops, resizing, and repeated photos."""

import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.build import build
from dataset.export.layout import BuildOptions
from dataset.images.io import sha256_of
from dataset.images.store import ImageStore
from dataset.pose.crop import PERSON, Crop
from dataset.selection.crops import PoseOptions
from dataset.vocabulary import load_vocabulary
from model.data.loading import letterbox
from model.inference.preprocessing import CHUNK_SIZE, PhotoInput, Preprocessor, RecentPhotos
from scraper.sample_shop.drawing.product import draw_product
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes

PREPROCESSOR = Preprocessor(PoseOptions(pose="none"), {}, 75)


def reader(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def test_a_repeated_photo_is_prepared_once_per_crop() -> None:
    one, other = photo_bytes(1, (90, 120)), photo_bytes(2, (90, 120))
    inputs = [
        *(PhotoInput(reader(one)), PhotoInput(reader(other)), PhotoInput(reader(one))),
        *(
            PhotoInput(reader(one), Crop(PERSON, (0, 0, 60, 60), 1.0)),
            PhotoInput(reader(b"no photo")),
            PhotoInput(reader(b"no photo")),
        ),
        *[PhotoInput(reader(other))] * CHUNK_SIZE,
    ]
    prepared = [photo for chunk in PREPROCESSOR.prepare(inputs, RecentPhotos()) for photo in chunk]
    first = [True, True, False, True, True, False, *[False] * CHUNK_SIZE]
    assert [not photo.is_repeated for photo in prepared] == first
    assert [photo.pixels is not None for photo in prepared[:5]] == [True, True, False, True, False]
    assert prepared[4].problem.startswith("broken") and prepared[0].sha256 == prepared[2].sha256
    assert all(photo.pixels is None for photo in prepared[5:])


def test_without_recent_photos_all_are_prepared() -> None:
    inputs = [PhotoInput(reader(photo_bytes(1, (90, 120))))] * 2
    ((first, second),) = PREPROCESSOR.prepare(inputs)
    assert first.pixels is not None and second.pixels is not None
    assert np.array_equal(first.pixels, second.pixels)


def test_unreadable_photos_have_a_problem(tmp_path: Path) -> None:
    ((prepared,),) = PREPROCESSOR.prepare(
        [PhotoInput((tmp_path / "gone.jpg").read_bytes)], RecentPhotos()
    )
    assert (prepared.problem, prepared.pixels, prepared.is_repeated) == (
        "no such file",
        None,
        False,
    )


@pytest.mark.usefixtures("one_estimator")
@pytest.mark.parametrize(
    "background",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("keep", "white")), "both"],
)
def test_a_photo_of_a_feed_is_cropped_and_resized_as_in_a_build(
    tmp_path: Path, background: str
) -> None:
    builder, drawn = CatalogueBuilder(tmp_path), {}
    for seed in range(4):
        path = tmp_path / f"{seed}.png"
        draw_product("jeans", seed).photo.save(path)
        builder.image(path.read_bytes(), builder.post(str(seed), "jeans"))
        drawn[sha256_of(path.read_bytes())] = path
    options = BuildOptions(
        builder.catalogue,
        builder.folder / "images",
        tmp_path / background,
        min_per_class=1,
        size=160,
        resize="stretch",
        pose=PoseOptions(background=background),
    )
    built = build(options, load_vocabulary())
    assert {item.person_crop and item.person_crop.crop.outcome for item in built.items} != {"whole"}
    preprocessor = Preprocessor(options.pose, {"size": 160, "resize": "stretch"}, 75)
    for item in built.items:
        path = drawn[item.photo.sha256]
        ((prepared,),) = preprocessor.prepare([PhotoInput(path.read_bytes)])
        written = Image.open(tmp_path / background / item.path).convert("RGB")
        if background == "both":
            assert item.mask_path
            written.putalpha(Image.open(tmp_path / background / item.mask_path))
        expected = letterbox(written, 75)
        assert prepared.pixels is not None and prepared.pixels.shape == expected.shape
        # What JPEG makes of it; another crop differs by tens.
        assert np.abs(prepared.pixels.astype(int) - expected).mean() < 2


def test_a_heic_photo_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)
    ((prepared,),) = PREPROCESSOR.prepare([PhotoInput(lambda: head)])
    assert prepared.problem.startswith("a HEIC photo; to read HEIC: pip install")


def test_photos_are_sent_to_other_processes_as_references_or_with_their_bytes(
    tmp_path: Path,
) -> None:
    store = ImageStore(tmp_path / "images")
    store.put(photo_bytes(1), "ab/cd/abcd.jpg")
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo_bytes(2))
    stored = PhotoInput(partial(store.read, "ab/cd/abcd.jpg"))
    packed = pickle.dumps(stored)
    assert len(packed) < 500
    assert pickle.loads(packed).read() == photo_bytes(1)
    sent = pickle.loads(pickle.dumps(PhotoInput(path.read_bytes)))
    path.unlink()
    assert sent.read() == photo_bytes(2)
    gone = pickle.loads(pickle.dumps(PhotoInput(path.read_bytes)))
    with pytest.raises(FileNotFoundError):
        gone.read()
    # Networks that find people are not sent.
    preprocessor = Preprocessor(PoseOptions(), {}, 75)
    assert preprocessor._model.joints.names
    assert vars(pickle.loads(pickle.dumps(preprocessor))).keys() == vars(PREPROCESSOR).keys()
