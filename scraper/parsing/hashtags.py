"""Find hashtags and words in captions and titles, and turn search words into hashtags."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit

from dataset.catalogue.models import HASHTAG_SEPARATOR
from dataset.vocabulary import normalize_word

URL = re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE)
# U+FF03 is the full-width hash sign of East Asian keyboards. A sign inside a word or an HTML entity
# starts no hashtag.
HASH_SIGN = re.compile(r"(?<![\w&/])[#\uFF03]")
HASH_SIGNS = "#\uff03"
# Zero-width joiners inside words, for example of Persian and Hindi.
JOINERS = "\u200c\u200d"


def find_hashtags(text: str | None) -> tuple[str, ...]:
    """Return the unique hashtags of a text, as written but without their sign, in order.

    Fragments of URLs (`page#top`) and digits only (`#1`) are not hashtags. `#a#b` are two hashtags.
    """
    hashtags = (token.strip("_" + JOINERS) for token in _tokens(URL.sub(" ", text or "")))
    return tuple(
        dict.fromkeys(hashtag for hashtag in hashtags if hashtag and not hashtag.isdecimal())
    )


def to_hashtag(word: str) -> str:
    """Return a word or phrase as a hashtag without its sign.

    "polo shirt" gives "poloshirt"; a text without letters and digits, such as an emoji, gives "".
    """
    return "".join(character for character in word if _is_hashtag_character(character))


def unique_hashtags(words: Iterable[str]) -> list[str]:
    """Return the words without those that give the same hashtag as an earlier word."""
    word_by_hashtag: dict[str, str] = {}
    for word in words:
        word_by_hashtag.setdefault(to_hashtag(word), word)
    return list(word_by_hashtag.values())


def group_words(
    words: Iterable[str], fits: Callable[[Sequence[str]], bool]
) -> list[tuple[str, ...]]:
    """Split words into groups for one search each, in order and as large as possible.

    Args:
        words: The words.
        fits: Returns whether a group of words fits into one search.
    """
    groups: list[list[str]] = []
    for word in words:
        if groups and fits([*groups[-1], word]):
            groups[-1].append(word)
        else:
            groups.append([word])
    return [tuple(group) for group in groups]


def _tokens(text: str) -> Iterator[str]:
    """Yield the characters after each hash sign that may be part of a hashtag."""
    end = 0
    for sign in HASH_SIGN.finditer(text):
        start = sign.end()
        # Signs inside a token that was scanned already, as in #a#b, are skipped: linear time.
        while start > end:
            end = start
            while end < len(text) and _is_hashtag_character(text[end]):
                end += 1
            yield text[start:end]
            if end > start and text[end : end + 1] in HASH_SIGNS:
                start = end + 1


def _is_hashtag_character(character: str) -> bool:
    # Letters, marks and numbers of any script; the `\w` of `re` does not match marks.
    return unicodedata.category(character)[0] in "LMN" or character == "_" or character in JOINERS


# Maximum number of words in a phrase of a vocabulary.
MAX_PHRASE_WORDS = 5
# No name, tag or category is longer.
MAX_TEXT_CHARS = 5_000


def has_word(texts: Iterable[str | None], words: Iterable[str]) -> bool:
    """Return whether a text contains one of the words or phrases, as whole words.

    "polo shirt", "polo-shirt" and "poloshirt" are equal, and an English plural equals its singular.
    """
    wanted = {key for word in words if (key := _phrase_key(word))}
    return any(not wanted.isdisjoint(_phrase_keys(text)) for text in texts if text)


def _phrase_key(phrase: str) -> str:
    return _singular("".join(_words(phrase)))


def _phrase_keys(text: str) -> set[str]:
    """Return the keys of all phrases of a text."""
    words = _words(text[:MAX_TEXT_CHARS])
    return {
        _singular("".join(words[start : start + length]))
        for start in range(len(words))
        for length in range(1, MAX_PHRASE_WORDS + 1)
    }


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", normalize_word(text))


def _singular(word: str) -> str:
    if not word.isascii() or len(word) < 4 or word.endswith("ss"):
        return word
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word.removesuffix("s")


def words_in_fragment(url: str) -> list[str]:
    """Return the words of a search from the fragment of a URL, see `fragment_of`."""
    return fragment_values(url).get("words", "").split(HASHTAG_SEPARATOR)


def fragment_values(url: str) -> dict[str, str]:
    """Return the values in the fragment of a URL, see `fragment_of`."""
    return dict(parse_qsl(urlsplit(url).fragment, keep_blank_values=True))


def fragment_of(words: str, **values: str) -> str:
    """Return a fragment of a URL with the words of a search and other values.

    A fragment is not sent: it passes data about the search to `read` of the spider.
    """
    return "#" + urlencode({"words": words, **values})
