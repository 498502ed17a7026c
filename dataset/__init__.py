"""Catalogue to splits: the ground floor, which imports nothing of ours."""
