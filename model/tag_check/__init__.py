"""The `check-tags` command: find products with wrong tags."""
