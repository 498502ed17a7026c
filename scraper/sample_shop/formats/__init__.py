"""One file a site: how the shop writes what the spider reads."""
