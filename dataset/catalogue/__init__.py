"""The SQL catalogue: mapped classes, sessions with migrations, and shared queries."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "models": [
            "Hashtag",
            "ImageRow",
            "LabelDecision",
            "PostRow",
            "RunRow",
            "Search",
            "Sighting",
        ],
        "session": ["open_catalogue"],
        "queries": ["find_image", "search_stats"],
    },
)
