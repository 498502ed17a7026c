"""The Inception-v3 network: backbone, feature layers, head and dtype policy."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "inception": [
            "PrecisionChoice",
            "build_backbone",
            "build_classifier",
            "build_feature_network",
            "build_head",
            "choose_precision",
        ],
    },
)
