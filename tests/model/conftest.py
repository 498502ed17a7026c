"""Fixtures of the tests of the model package."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def short_backbone() -> Iterator[None]:
    """Replace Inception-v3 by a short network in commands that run in this process.

    The drawn photos of a label are nearly equal, so the commands allow leaks; the search for them,
    which has tests of its own, is left out.
    """
    import keras

    from model.data import split_leaks
    from tests.support.short_inception import short_inception

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "InceptionV3", short_inception)
        patch.setattr(split_leaks, "_find", lambda *_: [])
        yield
