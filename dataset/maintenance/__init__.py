"""The `catalogue` command: statistics, verification, takedowns, export and import."""
