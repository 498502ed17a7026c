"""Read, measure and store images."""
