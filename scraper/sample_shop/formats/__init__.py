"""The response formats of each site: what the shop sends and the spider parses."""
