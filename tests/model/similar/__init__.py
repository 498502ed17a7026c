"""Tests of model/similar."""
