"""The catalogue's history, run by Alembic."""
