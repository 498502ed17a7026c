"""Local features of each image, and what two near duplicates have in common.

All images are compared again with the next `catalogue dedup` or build.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

# The similarity from which version 0015 put two images into one cluster.
DUPLICATE_SIMILARITY = 0.93


def upgrade() -> None:
    # Both databases add a column without a copy of the table.
    op.add_column("fingerprints", sa.Column("features", sa.LargeBinary(), nullable=True))
    op.add_column("fingerprints", sa.Column("content", sa.Float(), nullable=True))
    op.add_column("fingerprints", sa.Column("detail", sa.Float(), nullable=True))
    op.add_column(
        "resemblances",
        sa.Column("relation", sa.String(), nullable=False, server_default="part"),
    )
    for name in ("one_decoration", "other_decoration"):
        op.add_column(
            "resemblances", sa.Column(name, sa.Float(), nullable=False, server_default="0")
        )
    rows = sa.table("resemblances", sa.column("similarity"), sa.column("relation"))
    op.execute(
        sa.update(rows).where(rows.c.similarity >= DUPLICATE_SIMILARITY).values(relation="same")
    )
    fingerprints = sa.table("fingerprints", sa.column("compared"))
    op.execute(sa.update(fingerprints).values(compared=sa.false()))
