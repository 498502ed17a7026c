"""The products that the shop sells, and the bytes of their photos.

Products come from a folder of class folders, or are drawn.
"""

import io
import os
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from PIL import Image

from dataset.errors import BadInput, first_line
from dataset.images.io import Unreadable, find_photos, open_photo
from dataset.vocabulary import Vocabulary
from scraper.sample_shop.drawing.product import draw_product

# Files that are served as they are; others are converted to JPEG.
SERVED_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# How the photos of a duplicate differ from the original's, in turn.
CHANGES = ("exact", "re-encoded", "resized")
BRANDS = (
    "Берёзка & Ко", "Nordvik", "Тёплый Дом", "Alma Vento", "Polyanka", "Kesta", "Ясный День",
    "Lunaria", "Vetka", "Solberg & Sons", "Мира Лайн", "Ostrov 27",
)  # fmt: skip
COLOURS = ("белый", "чёрный", "синий", "серый", "бежевый", "красный", "зелёный", "голубой")
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SHRUNK = 0.7
TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


@dataclass(frozen=True)
class Drawn:
    """A photo to draw: the arguments of `drawing.draw_product`."""

    label: str
    seed: int
    view: int


@dataclass(frozen=True)
class StockPhoto:
    """A photo at `path` in the shop; `change` is how it differs from its original, or None."""

    path: str
    origin: Path | Drawn
    change: str | None = None


@dataclass(frozen=True)
class Item:
    """A product.

    `labels` are the one or two hashtags that it is listed under, and `shown` is the label of what
    its photos show.
    """

    sku: str
    name: str
    brand: str
    price: int
    labels: tuple[str, ...]
    photos: tuple[StockPhoto, ...]
    colour: str
    gender: str
    category: str
    shown: str

    @property
    def is_wrong_tagged(self) -> bool:
        """Whether the product is listed under hashtags of other labels only."""
        return self.shown not in self.labels


@dataclass(frozen=True)
class Stock:
    """All products; `skipped` has one line per file that is not a readable image."""

    items: tuple[Item, ...]
    vocabulary: Vocabulary
    skipped: tuple[str, ...] = ()

    @cached_property
    def by_sku(self) -> dict[str, Item]:
        """Every product by its upper-case SKU."""
        return {item.sku: item for item in self.items}

    @cached_property
    def by_path(self) -> dict[str, StockPhoto]:
        """Every photo by its path in the shop."""
        return {photo.path: photo for item in self.items for photo in item.photos}

    def search(self, query: str) -> tuple[Item, ...]:
        """Return the products whose label has the word `query` or is spelled like it."""
        label = self.vocabulary.label_or_hashtag(query)
        return tuple(item for item in self.items if label in item.labels)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Number of products and photos per label; a product with two labels counts for both."""
        products: Counter[str] = Counter()
        photos: Counter[str] = Counter()
        for item in self.items:
            products.update(item.labels)
            photos.update({label: len(item.photos) for label in item.labels})
        return {label: (products[label], photos[label]) for label in sorted(products)}


@dataclass(frozen=True)
class Plan:
    """A product without a SKU: its label and the sources of its photos.

    `shown` is the label of what the photos show; empty if that is `label`.
    """

    label: str
    origins: tuple[Path | Drawn, ...]
    womens: bool
    colour: str
    change: str | None = None
    shown: str = ""


def make_stock(
    plans: Sequence[Plan],
    vocabulary: Vocabulary,
    *,
    seed: int = 0,
    duplicates: float = 0.1,
    double_tagged: float = 0.05,
    wrong_tagged: float = 0.0,
    skipped: Sequence[str] = (),
) -> Stock:
    """Return the products of `plans`, and duplicates of some of them.

    The same arguments give the same stock.

    Args:
        plans: Products, each with its own photos.
        vocabulary: Labels and their words.
        seed: Random seed.
        duplicates: Number of duplicates per product of a label.
        double_tagged: Fraction of all products that are also listed under a second label.
        wrong_tagged: Fraction of all products that are listed under a wrong label.
        skipped: Lines for `Stock.skipped`.
    """
    rng = random.Random(seed)
    plans = list(_tag_wrongly(plans, wrong_tagged, rng))
    copies = list(_copies(plans, duplicates, rng))
    order = [*plans, *copies]
    rng.shuffle(order)
    skus = _skus(order, rng)
    items = [_item(plan, sku, vocabulary, rng) for plan, sku in zip(order, skus, strict=True)]
    return Stock(tuple(_tag_twice(items, double_tagged, rng)), vocabulary, tuple(skipped))


def drawn_plans(per_label: int, seed: int) -> list[Plan]:
    """Return `per_label` products of each drawn label; every third has a second pose."""
    from scraper.sample_shop.drawing.product import LABELS, draw_summary

    plans = []
    for label in LABELS:
        for number in range(per_label):
            own = seed * 100_000 + number
            views = 2 if number % 3 == 0 else 1
            colour, womens = draw_summary(label, own)
            origins = tuple(Drawn(label, own, view) for view in range(views))
            plans.append(Plan(label, origins, womens, colour))
    return plans


def folder_plans(folder: Path, vocabulary: Vocabulary) -> tuple[list[Plan], list[str]]:
    """Return a product for each photo in the class folders, and a line for each broken file.

    Raises:
        BadInput: The folder is missing, or none of its folders has a readable photo.
    """
    expected = "--photos wants a folder that holds one folder of photos per label: polo/1.jpg"
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; {expected}")
    plans: list[Plan] = []
    skipped: list[str] = []
    found = find_photos(
        path
        for inner in folder.iterdir()
        if inner.is_dir() and not inner.name.startswith(".")
        for path in inner.iterdir()
    )
    if found.skipped:
        skipped.append(f"{folder}: {found.describe_skipped()}")
    for path in found.paths:
        try:
            open_photo(path, 64)
        except (Unreadable, OSError) as error:
            skipped.append(f"{path} left out: {first_line(error)}")
            continue
        label = vocabulary.label_or_hashtag(path.parent.name)
        number = len(plans)
        colour = COLOURS[number % len(COLOURS)]
        plans.append(Plan(label, (path,), number % 2 == 0, colour))
    if not plans:
        raise BadInput(f"{folder} has no class folder with a readable photo; {expected}")
    return plans, skipped


def _copies(plans: Sequence[Plan], share: float, rng: random.Random) -> Iterator[Plan]:
    turn = 0
    for label in sorted({plan.label for plan in plans}):
        originals = [plan for plan in plans if plan.label == label]
        for plan in rng.sample(originals, min(len(originals), round(share * len(originals)))):
            yield replace(plan, change=CHANGES[turn % len(CHANGES)])
            turn += 1


def _skus(plans: Sequence[Plan], rng: random.Random) -> list[str]:
    """Return unique SKUs in the site's form: MP002X, W or M for the gender, and five characters."""
    skus: dict[str, None] = {}
    for plan in plans:
        size = len(skus)
        while len(skus) == size:
            end = "".join(rng.choices(ALPHABET, k=5))
            skus[f"MP002X{'W' if plan.womens else 'M'}{end}"] = None
    return list(skus)


def _item(plan: Plan, sku: str, vocabulary: Vocabulary, rng: random.Random) -> Item:
    number = rng.randrange(10_000_000, 30_000_000)
    name = _russian(plan.label, vocabulary)
    return Item(
        sku=sku,
        name=name,
        brand=rng.choice(BRANDS),
        price=rng.randrange(89, 1500) * 10 + 9,
        labels=(plan.label,),
        photos=tuple(
            StockPhoto(_path(sku, number, index, origin, plan.change), origin, plan.change)
            for index, origin in enumerate(plan.origins, 1)
        ),
        colour=plan.colour,
        gender="women" if plan.womens else "men",
        category=name,
        shown=plan.shown or plan.label,
    )


def _path(sku: str, number: int, index: int, origin: Path | Drawn, change: str | None) -> str:
    """Return a path such as /M/P/MP002XW1G7O5_22861704_1_v1.jpg."""
    kept = isinstance(origin, Path) and change in (None, "exact")
    ending = origin.suffix.lower() if kept and isinstance(origin, Path) else ".jpg"
    if ending not in SERVED_SUFFIXES:
        ending = ".jpg"
    return f"/{sku[0]}/{sku[1]}/{sku}_{number}_{index}_v1{ending}"


def _russian(label: str, vocabulary: Vocabulary) -> str:
    """Return the first Russian word of a label, or the label itself where it has none."""
    known = vocabulary.labels.get(label)
    words = known.words if known else ()
    russian = (word for word in words if any("а" <= letter <= "я" for letter in word.lower()))
    return next(russian, label).capitalize()


def _tag_wrongly(plans: Sequence[Plan], share: float, rng: random.Random) -> Iterator[Plan]:
    labels = sorted({plan.label for plan in plans})
    chosen = set(rng.sample(range(len(plans)), round(share * len(plans))))
    for number, plan in enumerate(plans):
        others = [label for label in labels if label != plan.label]
        wrong = number in chosen and others
        yield replace(plan, label=rng.choice(others), shown=plan.label) if wrong else plan


def _tag_twice(items: Sequence[Item], share: float, rng: random.Random) -> Iterator[Item]:
    labels = sorted({item.labels[0] for item in items})
    chosen = set(rng.sample(range(len(items)), round(share * len(items))))
    for number, item in enumerate(items):
        others = [label for label in labels if label not in item.labels]
        second = (rng.choice(others),) if number in chosen and others else ()
        yield replace(item, labels=item.labels + second)


def caption(item: Item, stock: Stock) -> str:
    """Return a typical caption: words, hashtags in two scripts, a URL with a fragment."""
    tags = " ".join(f"#{tag(word)}" for word in _words(item.labels, stock))
    return (
        f"{item.name} {item.brand}\n{tags} #{tag(item.colour)} https://example.com/{item.sku}#top"
    )


def _words(labels: Sequence[str], stock: Stock) -> list[str]:
    hashtags = []
    for label in labels:
        words = stock.vocabulary.words_of(label)
        hashtags += [label, *words[-1:]]
    return list(dict.fromkeys(hashtags))


def tag(word: str) -> str:
    """Return a word as a hashtag."""
    return re.sub(r"[\W_]+", "_", word).strip("_")


def as_jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode an RGB image as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


class PhotoBytes:
    """Photos as files; a drawing is created once, however many clients request it concurrently."""

    def __init__(self) -> None:
        self._drawings: dict[Drawn, Future[bytes]] = {}
        self._lock = threading.Lock()
        # More concurrent drawings than processors only evict each other's pixels from the caches.
        self._processors = threading.Semaphore(os.cpu_count() or 1)

    def original(self, photo: StockPhoto) -> bytes:
        """Return the bytes of a photo in its own size.

        Raises:
            OSError: Its file was deleted after the stock was created.
            dataset.images.Unreadable: Its file was broken after the stock was created.
        """
        origin = photo.origin
        if isinstance(origin, Drawn):
            return changed(self._drawing(origin), photo.change)
        data = origin.read_bytes()
        if origin.suffix.lower() not in SERVED_SUFFIXES:
            data = as_jpeg(open_photo(data), 90)
        return changed(data, photo.change)

    def _drawing(self, drawn: Drawn) -> bytes:
        with self._lock:
            known = self._drawings.get(drawn)
            mine = known or self._drawings.setdefault(drawn, Future())
        if known is None:
            try:
                with self._processors:
                    drawing = draw_product(drawn.label, drawn.seed, view=drawn.view)
                    mine.set_result(as_jpeg(drawing.photo, 90))
            except BaseException as error:
                # Concurrent requests for the same photo get the error too.
                mine.set_exception(error)
                raise
        return mine.result()


def changed(data: bytes, change: str | None) -> bytes:
    """Return the photo as a duplicate shows it: unchanged, re-encoded or resized."""
    if change in (None, "exact"):
        return data
    image = open_photo(data)
    if change == "re-encoded":
        return as_jpeg(image, 70)
    size = (max(1, round(image.width * SHRUNK)), max(1, round(image.height * SHRUNK)))
    return as_jpeg(image.resize(size, Image.Resampling.LANCZOS), 90)


def fitted(data: bytes, box: tuple[int, int] | None, kind: str = "JPEG") -> bytes:
    """Return the photo as a `kind` file that fits `box` (width, height); never enlarged.

    A file of that kind that already fits is returned unchanged.
    """
    # Decoded as small as possible: only its format and size are needed.
    known = open_photo(data, at_least=1).info
    width, height = box or known["size"]
    if known["format"] == kind and known["size"][0] <= width and known["size"][1] <= height:
        return data
    photo = open_photo(data)
    photo.thumbnail((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    photo.save(file, kind, quality=90)
    return file.getvalue()


def content_type(path: str) -> str:
    """Return the content type of the original at `path`."""
    return TYPES[Path(path).suffix.lower()]
