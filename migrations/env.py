"""Entry point of Alembic: runs migrations on the connection of dataset.catalogue.session."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
