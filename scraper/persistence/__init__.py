"""The SQL of a crawl: searches, posts, claims of pending images, and images."""
