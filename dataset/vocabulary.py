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


def normalize_word(word: str) -> str:
    """Normalize a word as hashtags are compared and stored.

    NFKC, case folded, ё as е, without a leading #.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    return " ".join(folded.replace("ё", "е").strip().lstrip("#").split())


def _key(word: str) -> str:
    """Return a key that is equal for "polo shirt", "polo-shirt" and "#PoloShirt"."""
    return re.sub(r"[\s_\-]+", "", normalize_word(word))


@dataclass(frozen=True)
class Label:
    """A class of the classifier.

    Attributes:
        name: Name of the label.
        words: Hashtags and search words that mean the label.
        within: Wider labels that contain it, as shoes contain sneakers.
    """

    name: str
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
        """Return the name of the label that a hashtag means, or None."""
        return self._by_word.get(_key(hashtag))

    def label_or_own(self, hashtag: str) -> str:
        """Return the label of a hashtag; a hashtag without a label is a label of its own."""
        return self.label_of(hashtag) or normalize_word(hashtag)

    def narrowest(self, names: Iterable[str]) -> list[str]:
        """Drop labels that contain another one: of shoes and sneakers, sneakers remains."""
        names = list(names)
        wider = {above for name in names for above in self._above(name)}
        return [name for name in names if name not in wider]

    def _above(self, name: str) -> set[str]:
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
            labels.setdefault(self.label_or_own(tag), normalize_word(tag))
        return [tag for tag in labels.values() if tag]


def load_vocabulary(path: Path | None = None) -> Vocabulary:
    """Load the built-in labels, extended by those of a TOML file.

    With `replace = true` in the file, only its labels are used. A label of the same name gets the
    words of both; a word of a built-in label that the file uses moves to the file's label.

    Raises:
        BadInput: The file does not exist, is not TOML, or has something that is not a label.
    """
    built_in = read_toml(BUILT_IN_FILE)
    if path is None:
        return Vocabulary(_labels(built_in, BUILT_IN_FILE))
    table = read_toml(path)
    replaces = table.pop("replace", False)
    labels = _labels(table, path)
    return Vocabulary(labels if replaces else _extended(_labels(built_in, BUILT_IN_FILE), labels))


def _extended(built_in: dict[str, Label], added: dict[str, Label]) -> dict[str, Label]:
    taken = {_key(word) for label in added.values() for word in label.words}
    kept = {
        name: replace(label, words=tuple(w for w in label.words if _key(w) not in taken))
        for name, label in built_in.items()
    }
    for name, label in added.items():
        before = kept.get(name, Label(name, ()))
        kept[name] = replace(
            label, words=before.words + label.words, within=before.within + label.within
        )
    return {name: label for name, label in kept.items() if label.words}


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
    labels = {normalize_word(name): _label(name, entry, path) for name, entry in table.items()}
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
        normalize_word(name), tuple(words), tuple(normalize_word(above) for above in within)
    )


def _refuse_shared_words(labels: Iterable[Label], path: Path) -> None:
    owner: dict[str, str] = {}
    for label in labels:
        for word in label.words:
            if owner.setdefault(_key(word), label.name) != label.name:
                raise BadInput(
                    f"{path}: {word!r} is in both [{owner[_key(word)]}] and [{label.name}]; a"
                    " word can mean one label only"
                )
