"""Read items to check or to index from product feeds and from the catalogue."""
