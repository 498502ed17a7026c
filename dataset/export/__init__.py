"""Write a build to disk: images, manifest, dataset card, report and leakage audit."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "layout": [
            "AuditResult",
            "BuildOptions",
            "BuildResult",
            "CrossSplitPair",
            "DatasetItem",
            "RenderedImage",
        ],
        "formats": ["DatasetFormat", "FORMATS", "read_format"],
        "leakage_audit": ["audit_build"],
    },
)
