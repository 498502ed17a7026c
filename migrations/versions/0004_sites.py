"""Columns and tables of five sites: later runs, image keys, hashtag quotas."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("searches", sa.Column("later", sa.String(), nullable=True))
    op.add_column("sightings", sa.Column("key", sa.String(), nullable=True))
    op.create_table(
        "asked_hashtags",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("hashtag", sa.String(), nullable=False),
        sa.Column("allowed", sa.Integer(), nullable=False),
        sa.Column("asked", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_asked_hashtags"),
    )
    op.create_index("ix_asked_hashtags_asked", "asked_hashtags", ["asked"])
