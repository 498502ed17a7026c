"""Tests of who looks like whom."""
