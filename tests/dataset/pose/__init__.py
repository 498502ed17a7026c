"""Tests of `dataset.pose`."""
