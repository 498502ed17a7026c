"""Revisions of the catalogue's tables, one file each."""
