"""`find-similar`: photos that look like a photo, and the best ones for each item of a shop."""
