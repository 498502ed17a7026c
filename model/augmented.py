"""A picture of what augmentation does to photos."""

import io
from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image

from model.augment import Augmentation
from model.data import Data, Example, boxed, read

ROWS, COLUMNS, SIDE, GAP = 5, 6, 150, 4


def samples_png(
    data: Data, examples: Sequence[Example], augmentation: Augmentation, seed: int
) -> bytes | None:
    """Some of EXAMPLES, a row each: first as it is, then as AUGMENTATION changes it; a PNG.

    None where nothing is changed.
    """
    if not augmentation or not examples:
        return None
    chosen = [examples[place] for place in np.linspace(0, len(examples) - 1, ROWS).astype(int)]
    wanted = list(dict.fromkeys(chosen))
    rows = []
    for place, (_, photo) in enumerate(read(data.folder, wanted, partial(boxed, size=SIDE))):
        if isinstance(photo, str):
            continue
        rng = np.random.default_rng((seed, place))
        rows.append([photo, *(augmentation.apply(photo, rng) for _ in range(COLUMNS - 1))])
    step = SIDE + GAP
    sheet = Image.new("RGB", (COLUMNS * step - GAP, len(rows) * step - GAP), "white")
    for y, row in enumerate(rows):
        for x, photo in enumerate(row):
            sheet.paste(Image.fromarray(photo), (x * step, y * step))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
