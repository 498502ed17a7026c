"""Build leak-free image classification datasets from the catalogue.

`build.py` turns the images of a catalogue into train, validation and test splits on disk. The
packages below hold its steps: the catalogue and the image store, duplicate detection, pose
estimation and crops, the selection of images and their splits, and the export with its audit.
"""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "build": ["selection_options", "preview_build", "prompt_conflicts"],
        "errors": ["BadInput", "Failure"],
        "vocabulary": ["Label", "Vocabulary", "load_vocabulary"],
    },
)
