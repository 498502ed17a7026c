"""The `export-model` command: SavedModel, ONNX and LiteRT."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "exporter": ["ExportOptions", "ExportReport", "export_model"],
    },
)
