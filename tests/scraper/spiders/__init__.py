"""Tests of the spiders."""
