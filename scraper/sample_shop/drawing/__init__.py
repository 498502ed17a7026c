"""Draw product photos of dressed people."""
