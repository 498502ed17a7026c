"""Train the classifier: linear probe, fine-tuning, label noise and cross-validation."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["FitConfig", "TrainOptions"],
        "cross_validation": ["cross_validate"],
        "label_noise": ["estimate_label_weights", "predict_out_of_fold"],
        "stages": ["ProgressReporter", "TrainedNetwork", "train_network"],
    },
)
