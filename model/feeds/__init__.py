"""Read items to check or to index from product feeds and from the catalogue."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "sources": [
            "CatalogueSource",
            "FeedSource",
            "FetchOptions",
            "ImageFetcher",
            "TaggedItem",
        ],
    },
)
