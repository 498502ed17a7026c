"""Labels and their words: which hashtags mean a label, and what to search for it."""

import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dataset.errors import BadInput, shorten_for_display

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# PostgreSQL can't index a word of several kilobytes.
MAX_WORD_BYTES = 1000
BUILT_IN_FILE = Path(__file__).with_name("labels.toml")
# Joins the facets of a label that fills several, as a dress does: upper+lower.
FACET_SEPARATOR = "+"
# The facet of labels that have none.
OTHER_FACET = "other"
# Facets of clothes. The built-in labels of other facets (colours, patterns, accessories) are for
# several labels per photo: a photo of one label would be a conflict of its colour and its garment.
GARMENT_FACETS = ("upper", "lower", "outerwear", "footwear", "headwear")


def normalize_word(word: str) -> str:
    """Normalize a word as hashtags are compared and stored.

    NFKC, case folded, ё as е, without a leading #.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    return " ".join(folded.replace("ё", "е").strip().lstrip("#").split())


def _key(word: str) -> str:
    """Return a key that is equal for "polo shirt", "polo-shirt" and "#PoloShirt"."""
    return re.sub(r"[\s_\-]+", "", normalize_word(word))


def split_facets(facet: str) -> tuple[str, ...]:
    """Return the facets that `upper+lower` names."""
    return tuple(facet.split(FACET_SEPARATOR))


def join_facets(facets: Iterable[str]) -> str:
    """Return several facets as one text, as `upper+lower`."""
    return FACET_SEPARATOR.join(facets)


@dataclass(frozen=True)
class Label:
    """A class of the classifier.

    Attributes:
        name: Name of the label.
        words: Hashtags and search words that mean the label.
        within: Wider labels that contain it, as shoes contain sneakers.
        facet: What it describes, such as lower or colour: labels of one facet exclude each other.
            A label that fills several facets joins them, as upper+lower. Empty: `OTHER_FACET`.
    """

    name: str
    words: tuple[str, ...]
    within: tuple[str, ...] = ()
    facet: str = ""

    @property
    def facets(self) -> tuple[str, ...]:
        """Return the facets that the label fills."""
        return split_facets(self.facet or OTHER_FACET)


@dataclass(frozen=True)
class Vocabulary:
    """All labels by name."""

    labels: Mapping[str, Label]

    @cached_property
    def _by_word(self) -> dict[str, str]:
        return {_key(word): label.name for label in self.labels.values() for word in label.words}

    def label_of(self, hashtag: str) -> str | None:
        """Return the name of the label that a hashtag means, or None."""
        return self._by_word.get(_key(hashtag))

    def label_or_hashtag(self, hashtag: str) -> str:
        """Return the label of a hashtag; a hashtag without a label is a label of its own."""
        return self.label_of(hashtag) or normalize_word(hashtag)

    @cached_property
    def facets(self) -> tuple[str, ...]:
        """Return all facets, in the order of the labels, and `OTHER_FACET` last."""
        ordered = dict.fromkeys(facet for label in self.labels.values() for facet in label.facets)
        return (*(facet for facet in ordered if facet != OTHER_FACET), OTHER_FACET)

    def facets_of(self, name: str) -> tuple[str, ...]:
        """Return the facets that a label fills; a label of its own has `OTHER_FACET`."""
        return self.labels[name].facets if name in self.labels else (OTHER_FACET,)

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return label names, ordered by facet and name."""
        rank = self.facets.index
        return tuple(sorted(names, key=lambda name: (rank(self.facets_of(name)[0]), name)))

    def conflicts(self, names: Iterable[str]) -> list[list[str]]:
        """Return the groups of labels that exclude each other.

        Args:
            names: Names of labels.

        Returns:
            Groups of at least two labels in the order of `names`: each label shares a facet with
            another one of its group and with none of another group.
        """
        ordered = list(dict.fromkeys(names))
        groups: list[tuple[set[str], set[str]]] = []
        for name in ordered:
            facets, members = set(self.facets_of(name)), {name}
            for group in [group for group in groups if not facets.isdisjoint(group[0])]:
                facets |= group[0]
                members |= group[1]
                groups.remove(group)
            groups.append((facets, members))
        return [
            [name for name in ordered if name in members]
            for _, members in groups
            if len(members) > 1
        ]

    def narrowest(self, names: Iterable[str]) -> list[str]:
        """Drop labels that contain another one: of shoes and sneakers, sneakers remains."""
        names = list(names)
        wider = {above for name in names for above in self.wider(name)}
        return [name for name in names if name not in wider]

    def wider(self, name: str) -> set[str]:
        """Return all labels that contain a label."""
        wider: set[str] = set()
        queue = [name]
        while queue:
            label = self.labels.get(queue.pop())
            new = set(label.within if label else ()) - wider - {name}
            wider |= new
            queue += new
        return wider

    def words_of(self, tag: str) -> tuple[str, ...]:
        """Return what to search for a tag: all words of its label, or the tag itself.

        Raises:
            BadInput: The tag is too long.
        """
        name = self.label_of(tag)
        words = self.labels[name].words if name else (tag,)
        normalized = tuple(dict.fromkeys(normalize_word(word) for word in words))
        for word in normalized:
            if len(word.encode()) > MAX_WORD_BYTES:
                raise BadInput(
                    f"the tag {shorten_for_display(word)!r} has {len(word)} characters; a hashtag"
                    " has at most a hundred"
                )
        return normalized

    def unique_tags(self, tags: Iterable[str]) -> list[str]:
        """Return tags normalized, without those of the same label as an earlier one."""
        labels: dict[str, str] = {}
        for tag in tags:
            labels.setdefault(self.label_or_hashtag(tag), normalize_word(tag))
        return [tag for tag in labels.values() if tag]


def load_vocabulary(path: Path | None = None, multi_label: bool = False) -> Vocabulary:
    """Load the built-in labels, extended by those of a TOML file.

    With `replace = true` in the file, only its labels are used. A label of the same name gets the
    words of both; a word of a built-in label that the file uses moves to the file's label. A label
    without a facet has that of the built-in label of its name, else that of its wider labels.

    Args:
        path: The TOML file.
        multi_label: Whether a photo can have several labels. In this case only, the built-in
            colours, patterns and accessories are included, and facets are inherited.

    Raises:
        BadInput: The file does not exist, is not TOML, or has something that is not a label.
    """
    built_in = {
        name: label
        for name, label in _labels(read_toml(BUILT_IN_FILE), BUILT_IN_FILE).items()
        if multi_label or set(label.facets) <= set(GARMENT_FACETS)
    }
    if path is None:
        return Vocabulary(built_in)
    table = read_toml(path)
    replaces = table.pop("replace", False)
    labels = _labels(table, path)
    extended = labels if replaces else _extended(built_in, labels)
    return Vocabulary(_with_inherited_facets(extended, path) if multi_label else extended)


def _extended(built_in: dict[str, Label], added: dict[str, Label]) -> dict[str, Label]:
    taken = {_key(word) for label in added.values() for word in label.words}
    vocabulary, placed = Vocabulary(built_in), {n for n, label in added.items() if label.facet}
    kept = {
        name: replace(
            label,
            words=tuple(w for w in label.words if _key(w) not in taken),
            # A label follows its wider label into the facet that the file names.
            facet=label.facet if placed.isdisjoint(vocabulary.wider(name)) else "",
        )
        for name, label in built_in.items()
    }
    for name, label in added.items():
        before = kept.get(name, Label(name, ()))
        kept[name] = replace(
            label,
            words=before.words + label.words,
            within=before.within + label.within,
            facet=label.facet or before.facet,
        )
    return {name: label for name, label in kept.items() if label.words}


def _with_inherited_facets(labels: dict[str, Label], path: Path) -> dict[str, Label]:
    """Give labels without a facet that of the wider labels that contain them."""
    vocabulary, complete = Vocabulary(labels), {}
    for name, label in labels.items():
        wider = [labels[above] for above in sorted(vocabulary.wider(name)) if above in labels]
        of_facet = {above.facet: above.name for above in wider if above.facet}
        other = next((facet for facet in of_facet if facet != label.facet), None)
        if len(of_facet) > 1 or (label.facet and other):
            facets = {label.facet: name, **of_facet} if label.facet else of_facet
            listed = " and ".join(f"{facet!r} of [{owner}]" for facet, owner in facets.items())
            raise BadInput(
                f"{path}: [{name}] has two facets, {listed}; a label and the labels that contain"
                " it need the same facet"
            )
        complete[name] = replace(label, facet=label.facet or other or "")
    return complete


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        BadInput: It can't be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; name a readable TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not TOML in UTF-8: {error}") from error


def _labels(table: dict[str, Any], path: Path) -> dict[str, Label]:
    labels: dict[str, Label] = {}
    for name, entry in table.items():
        label = _label(name, entry, path)
        before = labels.get(label.name, label)
        if before.facet != label.facet:
            raise BadInput(
                f"{path}: [{name}] is there twice, with the facets {before.facet!r} and"
                f" {label.facet!r}; a label has one facet"
            )
        labels[label.name] = label
    _refuse_shared_words(labels.values(), path)
    return labels


def _label(name: str, entry: object, path: Path) -> Label:
    expected = f'[{name}] needs words = ["…"] and, if wider labels contain it, within = ["…"]'
    if not isinstance(entry, dict) or not normalize_word(name):
        raise BadInput(f"{path}: {expected}, not {entry!r}")
    words = entry.get("words", [name])
    if not isinstance(words, list) or not all(isinstance(w, str) and _key(w) for w in words):
        raise BadInput(f"{path}: {expected}, not words = {words!r}")
    within = entry.get("within", [])
    if not isinstance(within, list) or not all(isinstance(above, str) for above in within):
        raise BadInput(f"{path}: {expected}, not within = {within!r}")
    return Label(
        normalize_word(name),
        tuple(words),
        tuple(normalize_word(above) for above in within),
        _facet(name, entry.get("facet"), path),
    )


def _facet(name: str, facet: object, path: Path) -> str:
    """Return a normalized facet; empty if there is none."""
    if facet is None:
        return ""
    parts = [normalize_word(part) for part in split_facets(facet)] if isinstance(facet, str) else []
    if not all(parts) or not parts or len(set(parts)) < len(parts):
        raise BadInput(
            f'{path}: [{name}] needs one facet, such as facet = "lower", or "upper+lower" for a'
            f" garment that covers both, not facet = {facet!r}"
        )
    return join_facets(parts)


def _refuse_shared_words(labels: Iterable[Label], path: Path) -> None:
    owner: dict[str, str] = {}
    for label in labels:
        for word in label.words:
            if owner.setdefault(_key(word), label.name) != label.name:
                raise BadInput(
                    f"{path}: {word!r} is in both [{owner[_key(word)]}] and [{label.name}]; a"
                    " word can mean one label only"
                )
