"""Load a saved run and predict: preprocessing, probabilities and embeddings."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "predictor": ["NetworkOutputs", "Predictor", "SavedRun", "load_predictor", "load_run"],
        "preprocessing": ["PhotoInput", "Preprocessor"],
        "embedding": ["Embedding", "fit_embedding"],
        "grad_cam": ["draw_explanation", "heat_map"],
    },
)
