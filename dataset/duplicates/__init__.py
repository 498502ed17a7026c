"""Who looks like whom: fingerprints, near ones among many, how alike two are, clusters."""
