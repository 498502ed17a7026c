"""Choose the images of a build: labels, quality gates, groups, splits and crops."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "candidates": [
            "Candidate",
            "Exclusions",
            "QualityGates",
            "apply_quality_gates",
            "load_candidates",
            "load_quality_gates",
            "select_best_copies",
        ],
        "labeling": ["LabeledImage", "assign_labels"],
        "splits": [
            "GroupAssignment",
            "ImageLinks",
            "assign_groups",
            "assign_splits",
            "link_images",
        ],
        "planning": ["BuildPlan", "SelectionOptions", "plan_build"],
        "crops": ["PersonCrop", "PoseOptions", "find_crops"],
    },
)
