"""Benchmarks: each script compares this project with its peers on the same work."""
