"""A covering index on hashes, so that they are read without the pictures."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_index(
        "ix_fingerprints_image_id_compared_views", "fingerprints", ["image_id", "compared", "views"]
    )
