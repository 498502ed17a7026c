"""License, author and source page of each image of a post."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

COLUMNS = ("license", "license_url", "author", "attribution", "source_page")


def upgrade() -> None:
    # Both databases add a column without a copy of the table.
    for name in COLUMNS:
        op.add_column("sightings", sa.Column(name, sa.String(), nullable=True))
