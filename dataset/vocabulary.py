"""The words of a label: which hashtags mean it, and what to search for it."""

import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dataset.errors import BadInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ZONES = ("upper", "lower", "full", "feet", "head")
BUILT_IN_FILE = Path(__file__).with_name("labels.toml")


def normalize_word(word: str) -> str:
    """WORD as hashtags are compared and stored: NFKC, case folded, ё as е, leading # dropped."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    return " ".join(folded.replace("ё", "е").strip().lstrip("#").split())


def _key(word: str) -> str:
    """What is equal for "polo shirt", "polo-shirt" and "#PoloShirt"."""
    return re.sub(r"[\s_\-]+", "", normalize_word(word))


@dataclass(frozen=True)
class Label:
    """A class of ours: its NAME, the ZONE of the body it is worn on, and its WORDS.

    WITHIN: the labels that hold it, as shoes hold sneakers.
    """

    name: str
    zone: str
    words: tuple[str, ...]
    within: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vocabulary:
    """All labels by name."""

    labels: Mapping[str, Label]

    @cached_property
    def _by_word(self) -> dict[str, str]:
        return {_key(word): label.name for label in self.labels.values() for word in label.words}

    def label_of(self, hashtag: str) -> str | None:
        """The name of the label that HASHTAG is a word of, or None."""
        return self._by_word.get(_key(hashtag))

    def label_or_own(self, hashtag: str) -> str:
        """The label of HASHTAG; one that is in no label is a label of its own."""
        return self.label_of(hashtag) or normalize_word(hashtag)

    def narrowest(self, names: Iterable[str]) -> list[str]:
        """NAMES without those labels that hold another of them: sneakers, of shoes and sneakers."""
        names = list(names)
        wider = {above for name in names for above in self._above(name)}
        return [name for name in names if name not in wider]

    def _above(self, name: str) -> set[str]:
        """All labels that hold the label NAME."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            label = self.labels.get(waiting.pop())
            new = set(label.within if label else ()) - found - {name}
            found |= new
            waiting += new
        return found

    def zone_of(self, name: str) -> str | None:
        """Where the garments of the label NAME are worn; None for a label of its own."""
        return self.labels[name].zone if name in self.labels else None

    def words_of(self, tag: str) -> tuple[str, ...]:
        """What to search for TAG: every word of its label, or TAG itself when it has none."""
        name = self.label_of(tag)
        words = self.labels[name].words if name else (tag,)
        return tuple(dict.fromkeys(normalize_word(word) for word in words))


def load_vocabulary(own: Path | None = None) -> Vocabulary:
    """The built-in labels, extended by the file OWN, or replaced when it says `replace = true`.

    A label of the same name gains OWN's words; a word that a built-in label had moves to OWN's.

    Raises:
        BadInput: OWN is missing, is not TOML, or holds something that is not a label.
    """
    built_in = read_toml(BUILT_IN_FILE)
    if own is None:
        return Vocabulary(_labels(built_in, BUILT_IN_FILE))
    table = read_toml(own)
    replaces = table.pop("replace", False)
    theirs = _labels(table, own)
    return Vocabulary(theirs if replaces else _extended(_labels(built_in, BUILT_IN_FILE), theirs))


def _extended(ours: dict[str, Label], theirs: dict[str, Label]) -> dict[str, Label]:
    taken = {_key(word) for label in theirs.values() for word in label.words}
    kept = {
        name: replace(label, words=tuple(w for w in label.words if _key(w) not in taken))
        for name, label in ours.items()
    }
    for name, label in theirs.items():
        before = kept.get(name, Label(name, label.zone, ()))
        kept[name] = replace(
            label, words=before.words + label.words, within=before.within + label.within
        )
    return {name: label for name, label in kept.items() if label.words}


def read_toml(path: Path) -> dict[str, Any]:
    """The file PATH, edited by people.

    Raises:
        BadInput: it can't be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; name a readable TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not TOML in UTF-8: {error}") from error


def _labels(table: dict[str, Any], path: Path) -> dict[str, Label]:
    labels = {normalize_word(name): _label(name, entry, path) for name, entry in table.items()}
    _refuse_shared_words(labels.values(), path)
    return labels


def _label(name: str, entry: object, path: Path) -> Label:
    wanted = (
        f'[{name}] wants zone = one of {", ".join(ZONES)}, words = ["…"] and, where wider labels'
        ' hold it, within = ["…"]'
    )
    if not isinstance(entry, dict) or not normalize_word(name):
        raise BadInput(f"{path}: {wanted}, not {entry!r}")
    zone, words = entry.get("zone", "full"), entry.get("words", [name])
    if zone not in ZONES:
        raise BadInput(f"{path}: {wanted}, not zone = {zone!r}")
    if not isinstance(words, list) or not all(isinstance(w, str) and _key(w) for w in words):
        raise BadInput(f"{path}: {wanted}, not words = {words!r}")
    within = entry.get("within", [])
    if not isinstance(within, list) or not all(isinstance(above, str) for above in within):
        raise BadInput(f"{path}: {wanted}, not within = {within!r}")
    return Label(
        normalize_word(name), zone, tuple(words), tuple(normalize_word(above) for above in within)
    )


def _refuse_shared_words(labels: Iterable[Label], path: Path) -> None:
    owner: dict[str, str] = {}
    for label in labels:
        for word in label.words:
            if owner.setdefault(_key(word), label.name) != label.name:
                raise BadInput(
                    f"{path}: {word!r} stands in both [{owner[_key(word)]}] and [{label.name}];"
                    " a word can mean one label only"
                )
