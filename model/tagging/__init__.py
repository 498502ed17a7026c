"""Tag photos that have no tag, from the command line and over HTTP, and explain the tags."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "pipeline": ["PhotoTags", "TagOptions", "Tagger", "load_tagger", "tag_photos"],
        "server": ["ServeOptions", "serve"],
    },
)
