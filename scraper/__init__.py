"""Sites to catalogue: spiders, the crawl, and a shop to try it on."""
