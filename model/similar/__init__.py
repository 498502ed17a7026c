"""The `find-similar` command: index items and search similar ones."""
