"""Load splits, extract backbone features and make augmented batches."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "loading": ["Example", "SplitData", "letterbox", "load_splits"],
        "augmentation": ["ImageAugmentation", "parse_augmentation"],
        "feature_cache": ["FeatureCache"],
        "features": ["FeatureExtractor", "SplitFeatures"],
    },
)
