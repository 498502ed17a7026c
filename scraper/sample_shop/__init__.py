"""A local test shop that serves products in the sites' own response formats."""
