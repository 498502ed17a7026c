"""`find-similar` for names of photos and items: each is found, looked at, answered."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from dataset.catalogue.queries import find_image
from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput
from dataset.images.io import sha256_of
from dataset.images.store import open_store
from model.inference.embedding import Embedding
from model.inference.preprocessing import Wanted, why_not
from model.similar.build import EMBEDDING, refuse_other_model
from model.similar.embedder import open_looker
from model.similar.index_file import IndexFile
from model.similar.items import Filters, Found, Item
from model.similar.search import Asked, Searcher
from model.similar.sources import FILE, Offer


@dataclass(frozen=True)
class FindOptions:
    """What `find-similar` was asked for (see `find-similar --help`)."""

    names: tuple[str, ...]
    index: Path
    run: Path | None = None
    catalogue: str = "catalogue.sqlite"
    images: str = "images"
    cache: Path | None = None
    top: int = 12
    filters: Filters = field(default_factory=Filters)
    same_label: bool = False
    exclude_duplicates: bool = False


@dataclass(frozen=True)
class Answer:
    """What was found for NAME. `guessed`: the asked photo's label is the model's; or a problem."""

    name: str
    asked: Item | None = None
    guessed: bool = False
    found: tuple[Found, ...] = ()
    problem: str = ""


def find_similar(options: FindOptions, index: IndexFile) -> list[Answer]:
    """The answer for each of the names that OPTIONS ask for, in their order.

    Raises:
        BadInput: no such model, or a filter's word that no item has.
        Failure: the index is damaged, or of another model.
    """
    _refuse_unknown(options.filters, index)
    finder = _Finder(options, index)
    asked = {name: finder.asked(name) for name in dict.fromkeys(options.names)}
    offers = {name: one for name, one in asked.items() if isinstance(one, Offer)}
    looked = finder.looked_at(list(offers.values())) if offers else []
    asked |= dict(zip(offers, looked, strict=True))
    return [finder.answer(name, asked[name]) for name in options.names]


def _refuse_unknown(filters: Filters, index: IndexFile) -> None:
    for column, wanted in (("site", filters.sites), ("label", filters.labels)):
        known = [name for name in index.known(column) if name] if wanted else []
        for name in wanted:
            if name not in known:
                has = ", ".join(known) or "none"
                raise BadInput(f"--{column} {name}: no item of {index.path} has it; it has {has}")


@dataclass(frozen=True)
class _Finder:
    """What the names of a command mean, and what is like them."""

    options: FindOptions
    index: IndexFile

    @cached_property
    def searcher(self) -> Searcher:
        """The index in memory."""
        return Searcher(self.index)

    def asked(self, name: str) -> Asked | Offer | str:
        """What NAME means: an item of the index, a photo to be looked at, or why nothing."""
        path = Path(name)
        try:
            data = path.read_bytes() if path.is_file() else None
        except (OSError, ValueError) as error:
            return why_not(error)
        found = self.index.find(sha256_of(data) if data is not None else name)
        if len(found) > 1 and found[0][1].sha256 != found[1][1].sha256 and _is_start(name, found):
            return "several items have such a SHA-256; name more digits of it"
        if found:
            return self._known(*found[0])
        if data is not None:
            item = Item(name, sha256_of(data), f"{FILE}{path.absolute()}")
            return Offer(item, Wanted(path.read_bytes))
        return self._in_catalogue(name)

    def _known(self, place: int, item: Item) -> Asked:
        return Asked(self.searcher.vectors[self.searcher.row_of(place)], item, place)

    def _in_catalogue(self, name: str) -> Offer | str:
        """The photo NAME of the catalogue, where there is one: it may be newer than the index."""
        unknown = f"no such file, and no item of {self.index.path} is called so"
        address = self.options.catalogue
        if "://" not in address and not Path(address).exists():
            return unknown
        with open_catalogue(address, must_exist=True)() as session:
            try:
                row = find_image(session, name)
            except BadInput:
                return f"{unknown}, nor a photo of the catalogue"
            read = partial(open_store(self.options.images).read, str(row.store_key))
            return Offer(Item(row.sha256, row.sha256, str(row.store_key)), Wanted(read))

    def looked_at(self, offers: Sequence[Offer]) -> list[Asked | str]:
        """OFFERS, which the index does not have, as the model sees them; or why it can't."""
        facts = self.index.facts()
        looker = open_looker(self.options.run or Path(facts["run"]), self.options.cache)
        refuse_other_model(self.index.path, facts, looker)
        embedding = Embedding.from_arrays(self.index.arrays_of(EMBEDDING))
        found: list[Asked | str] = []
        for sight in looker.look_at(iter(offers)):
            if sight.problem:
                found.append(sight.problem)
                continue
            looked = looker.seen([sight.name])
            label = looker.judge.labels[int(looked.logits[0].argmax())]
            vector = embedding.vectors(looked.outputs, looked.logits)[0]
            found.append(Asked(vector, replace(sight.item, label=label), guessed=True))
        return found

    def answer(self, name: str, asked: Asked | Offer | str) -> Answer:
        """What is like ASKED."""
        if not isinstance(asked, Asked):
            return Answer(name, problem=str(asked))
        options, filters = self.options, self.options.filters
        if options.same_label:
            if not asked.item.label:
                return Answer(name, problem="it has no label of its own; leave out --same-label")
            filters = replace(filters, labels=(asked.item.label,))
        found = self.searcher.search(asked, options.top, filters, options.exclude_duplicates)
        return Answer(name, asked.item, asked.guessed, tuple(found))


def _is_start(name: str, found: Sequence[tuple[int, Item]]) -> bool:
    return all(item.sha256.startswith(name) and item.id != name for _, item in found)
