"""The catalogue: tables, session and statistics."""
