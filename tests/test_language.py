"""The project's texts are plain English: phrases that readers had to decode stay out."""

import re
from pathlib import Path

import pytest

import fashion_tagger

ROOT = Path(fashion_tagger.__file__).parent
SUFFIXES = {".py", ".md", ".html", ".toml", ".js", ".css", ".sh", ".cfg", ".rst"}
FOLDERS = ("scraper", "dataset", "model", "migrations", "tests", "benchmarks", "docs", ".ci")
FILES = sorted(
    path
    for path in (*ROOT.glob("*"), *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*")))
    if path.suffix in SUFFIXES and path.is_file() and "_build" not in path.parts
)
# Each of these has a plainer form.
DENIED = re.compile(
    r"\b(?:anew|afresh|whom|in hand|at hand|is told|are told|is asked|are asked|is said to|rightly"
    r"|has it that|what came|who asks|who is under way|what became of|a photo a|photos a step"
    r"|people a step|a row an?|a line an?|the likest|what may have|to be had|can't be had"
    r"|knows? nothing|believed|buried|lets? go of|(?<!there )is no (?:folder|photo|JSON)"
    r"|which split of many|of all that is random|so many as|as many \w+ as there are to)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_have_no_denied_phrase(path: Path) -> None:
    if path == Path(__file__):
        pytest.skip("lists the phrases")
    lines = path.read_text(encoding="utf-8").splitlines()
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}"
        for number, line in enumerate(lines, 1)
        for match in DENIED.finditer(line)
    ]
    assert not hits, "\n".join(hits)
