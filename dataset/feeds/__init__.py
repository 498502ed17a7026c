"""Read product feeds of any usual format: tables, Excel workbooks, XML and JSON."""

import lazy_loader

# Imported on first use, so that a command imports only what it needs.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "product_feed": ["FeedColumns", "FeedRow", "ProductFeed", "open_feed"],
        "cells": ["parse_price", "split_photos"],
    },
)
