"""Load a saved run and predict: preprocessing, probabilities and embeddings."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "saved_run": ["SavedRun", "load_run"],
        "predictor": ["NetworkOutputs", "Predictor", "load_predictor"],
        "preprocessing": ["PhotoInput", "Preprocessor"],
        "embedding": ["Embedding", "fit_embedding"],
        "grad_cam": ["draw_explanation", "heat_map"],
    },
)
