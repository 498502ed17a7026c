"""Tests of the sample shop's response formats."""
