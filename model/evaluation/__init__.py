"""Compute metrics, confidence intervals, calibration and selective accuracy."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "metrics": ["CoveragePoint", "LabeledLogits", "compute_metrics", "coverage_curve"],
        "bootstrap": ["Bootstrap", "make_bootstrap"],
        "calibration": [
            "expected_calibration_error",
            "fit_temperature",
            "reliability_bins",
            "softmax",
        ],
    },
)
