"""Helpers that know nothing of datasets: files, downloads, HTML, plots, command-line options."""
