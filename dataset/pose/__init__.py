"""Estimate human poses with HRNet and derive person crops from the key points."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "models": ["JointSet", "PoseModel", "find_model", "model_names"],
        "network": ["Architecture", "build_hrnet"],
        "checkpoints": ["load_estimator", "load_weights"],
        "estimator": ["PoseEstimator"],
        "crop": ["Crop", "choose_crop"],
        "annotations": ["People", "Person", "read_people"],
        "evaluation": ["evaluate_pose"],
        "training": ["PoseTrainOptions"],
        "torch_checkpoint": ["read_tensors"],
    },
)
