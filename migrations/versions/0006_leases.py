"""Workers of crawls and their claims."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("process", sa.Integer(), nullable=False),
        sa.Column("born", sa.String(), nullable=False),
        sa.Column("beat", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        # Ids must not be reused, or a new worker would take over the claims of a dead one.
        sqlite_autoincrement=True,
    )
    for table in ("searches", "sightings"):
        op.add_column(table, sa.Column("worker_id", sa.Integer(), nullable=True))
    op.create_index("ix_sightings_worker_id", "sightings", ["worker_id"])
