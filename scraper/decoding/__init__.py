"""Inspect images in decoder processes."""
