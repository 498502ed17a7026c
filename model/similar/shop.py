"""`find-similar --all`: recommendations for a whole shop, as a table."""

from contextlib import closing
from pathlib import Path

import numpy as np

from model.similar.opening import open_index
from model.similar.recommend import recommend, ties_of
from model.similar.search import Searcher
from model.similar.show import write_recommendations


def recommend_all(path: Path, out: Path, top: int) -> str:
    """Write the TOP best items for each item of the index PATH to OUT; returns what was done.

    Raises:
        BadInput: there is no such index.
        Failure: it is damaged, or OUT can't be written.
    """
    with closing(open_index(path)) as index:
        searcher, known = Searcher(index), dict(index.all_items())
        recall = index.facts().get("recall")
    searcher.keep(np.array(list(known)))
    items = [known[place] for place in searcher.places.tolist()]
    parts = recommend(searcher, ties_of(items), top)
    rows, lonely = write_recommendations(out, items, parts)
    said = f"{rows} recommendations for {len(items) - lonely} of {len(items)} items: {out}"
    if searcher.approximate and recall:
        said += f"\nthe search is approximate: it finds {recall:.1%} of the 10 nearest"
    return said
