"""Images for the tests of the sample shop."""

import io
from pathlib import Path

from PIL import Image


def jpeg(size: tuple[int, int], colour: tuple[int, int, int] = (200, 40, 40)) -> bytes:
    """Return a JPEG of a size with a corner of another colour, so that images differ."""
    image = Image.new("RGB", size, colour)
    image.paste((20, 20, 20), (0, 0, size[0] // 3, size[1] // 3))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


def class_folders(root: Path) -> Path:
    """Create two labels, `polo` with three images and `летние платья` with two, and other files."""
    for label, count in (("polo", 3), ("летние платья", 2)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            data = jpeg((700, 1000), (number * 60, 90, 160))
            (root / label / f"{number}.jpg").write_bytes(data)
    (root / "polo" / "cut-off.jpg").write_bytes(jpeg((700, 1000))[:2000])
    (root / "polo" / "notes.txt").write_text("no photo")
    (root / "empty").mkdir()
    (root / ".cache").mkdir()
    return root
