"""Tests of `scraper.parsing`."""
