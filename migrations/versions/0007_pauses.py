"""Hosts that asked to be left alone for a while, which a restart must not forget."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "pauses",
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("until", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("host", name="pk_pauses"),
    )
