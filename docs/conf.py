"""Sphinx configuration of the documentation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fashion_tagger
from dataset.utils.keras_backend import import_backend

# The API reference imports the networks; TensorFlow must not print its log messages as warnings.
import_backend()

project = "fashion-tagger"
author = "The fashion-tagger authors"
project_copyright = "2026, the fashion-tagger authors"
version = release = fashion_tagger.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
# Docstrings mark code with single backticks.
default_role = "code"
html_theme = "furo"
html_title = "fashion-tagger"
# The documentation builds without internet.
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
nitpicky = False
