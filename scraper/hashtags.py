"""Hashtags in captions and titles."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

ADDRESS = re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE)
# U+FF03 is the full-width sign of East Asian keyboards. Not in the middle of a word or an entity.
SIGN = re.compile(r"(?<![\w&/])[#\uFF03]")
SIGNS = "#\uff03"
# Joiners inside words of Persian, Hindi and others.
JOINERS = "\u200c\u200d"


def hashtags_in(text: str | None) -> tuple[str, ...]:
    """The hashtags of TEXT as written, without their sign, each once, in order.

    A `#` inside an address is an anchor and none; so is one followed by digits alone. #a#b are two.
    """
    found = (tag.strip("_" + JOINERS) for tag in _runs(ADDRESS.sub(" ", text or "")))
    return tuple(dict.fromkeys(tag for tag in found if tag and not tag.isdecimal()))


def as_hashtag(word: str) -> str:
    """WORD as a hashtag without its sign: "polo shirt" is poloshirt; a lone emoji is nothing."""
    return "".join(letter for letter in word if _belongs(letter))


def unlike(words: Iterable[str]) -> list[str]:
    """WORDS without those that make the same hashtag as an earlier one."""
    first: dict[str, str] = {}
    for word in words:
        first.setdefault(as_hashtag(word), word)
    return list(first.values())


def grouped(words: Iterable[str], fits: Callable[[Sequence[str]], bool]) -> list[tuple[str, ...]]:
    """WORDS in order, as many together as one search FITS."""
    groups: list[list[str]] = []
    for word in words:
        if groups and fits([*groups[-1], word]):
            groups[-1].append(word)
        else:
            groups.append([word])
    return [tuple(group) for group in groups]


def _runs(text: str) -> Iterator[str]:
    end = 0
    for sign in SIGN.finditer(text):
        start = sign.end()
        # A run that was gone through already, as #a#b, is not gone through again.
        while start > end:
            end = start
            while end < len(text) and _belongs(text[end]):
                end += 1
            yield text[start:end]
            if end > start and text[end : end + 1] in SIGNS:
                start = end + 1


def _belongs(letter: str) -> bool:
    # Letters, marks and numbers of any script; `\w` has no marks.
    return unicodedata.category(letter)[0] in "LMN" or letter == "_" or letter in JOINERS
