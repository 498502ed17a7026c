"""Tests of the sites' formats."""
