"""The `find-similar` command: index items and search similar ones."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "build": ["IndexUpdate", "add_items", "build_index", "remove_items"],
        "index_file": ["IndexFile", "open_index"],
        "query": ["QueryResult", "SearchOptions", "run_queries"],
        "search": ["Query", "Searcher"],
    },
)
