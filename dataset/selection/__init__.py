"""Choose the images of a build: labels, quality gates, groups, splits and crops."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "candidates": ["Candidate", "Exclusions", "load_candidates", "select_best_copies"],
        "labeling": ["LabeledImage", "assign_labels"],
        "quality_gates": ["QualityGates", "apply_quality_gates", "load_quality_gates"],
        "groups": ["GroupAssignment", "ImageLinks", "assign_groups", "link_images"],
        "splits": ["assign_splits"],
        "planning": ["BuildPlan", "SelectionOptions", "plan_build"],
        "crops": ["PersonCrop", "PoseOptions", "find_crops"],
    },
)
