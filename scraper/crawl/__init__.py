"""Run crawls: shared resources, searches and their planning, checks, and the summary."""
