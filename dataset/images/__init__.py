"""Read, measure and store images."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "io": ["Unreadable", "letterbox", "open_photo", "thumbnail"],
        "quality": ["ImageQuality", "measure"],
        "store": ["ImageStore", "open_store"],
    },
)
