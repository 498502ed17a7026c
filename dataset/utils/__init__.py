"""Helpers without knowledge of datasets: files, downloads, HTML, plots, command-line options."""
