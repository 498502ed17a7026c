"""Parse fields, hashtags and rate-limit headers of responses."""
