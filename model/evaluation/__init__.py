"""Compute metrics, confidence intervals, calibration and selective accuracy."""
