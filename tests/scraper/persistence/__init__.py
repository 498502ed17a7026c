"""Tests of `scraper.persistence`."""
