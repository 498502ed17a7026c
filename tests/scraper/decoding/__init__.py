"""Tests of `scraper.decoding`."""
