"""Tests of dataset/review."""
