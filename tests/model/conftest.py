"""What tests of models share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def short_backbone() -> Iterator[None]:
    """Commands within this process have the backbone of `short` for Inception-v3."""
    import keras

    from tests.support.short_inception import short_inception

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "InceptionV3", short_inception)
        yield
