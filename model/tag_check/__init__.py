"""The `check-tags` command: find products with wrong tags."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "pipeline": ["CheckOptions", "check_tags"],
    },
)
